//! Statements of several dialects, and what must not be read out of them.

use proptest::prelude::*;

use super::summary;

#[test]
fn verb_and_table() {
    for (statement, verb, table) in [
        ("SELECT * FROM orders WHERE id = 7", "SELECT", "orders"),
        ("select o.id from shop.orders o, items i", "SELECT", "shop.orders"),
        (
            "  (SELECT a FROM `my table`) UNION SELECT b FROM c",
            "SELECT",
            "my table",
        ),
        ("SELECT 1", "SELECT", ""),
        ("SELECT (SELECT max(x) FROM a) FROM b", "SELECT", "b"),
        ("SELECT EXTRACT(YEAR FROM \"2020-01-01\")", "SELECT", ""),
        ("SELECT a IS DISTINCT FROM b FROM ONLY t", "SELECT", "t"),
        (
            "SELECT count(*) FROM (SELECT * FROM (SELECT 1 FROM deep) x) y",
            "SELECT",
            "deep",
        ),
        ("SELECT * FROM (SELECT 1) x", "SELECT", ""),
        ("SELECT * FROM ((a JOIN b ON 1) JOIN c ON 1)", "SELECT", "a"),
        ("SELECT data #>> '{from, x}' FROM docs", "SELECT", "docs"),
        (
            "INSERT IGNORE INTO \"public\".\"users\" (name) VALUES ('ann')",
            "INSERT",
            "public.users",
        ),
        ("INSERT INTO t SELECT * FROM u", "INSERT", "t"),
        ("UPDATE LOW_PRIORITY stock SET n = n - 1", "UPDATE", "stock"),
        (
            "DELETE FROM ONLY sessions WHERE token = 'x'",
            "DELETE",
            "sessions",
        ),
        ("DELETE a FROM a JOIN b", "DELETE", "a"),
        ("REPLACE t VALUES (1)", "REPLACE", "t"),
        ("MERGE INTO target USING source ON 1", "MERGE", "target"),
        ("TRUNCATE TABLE logs", "TRUNCATE", "logs"),
        (
            "CREATE TEMPORARY TABLE IF NOT EXISTS x (a int)",
            "CREATE TABLE",
            "x",
        ),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY i ON people (lower(name))",
            "CREATE INDEX",
            "people",
        ),
        (
            "CREATE OR REPLACE DEFINER=`root`@`localhost` VIEW v AS SELECT 1",
            "CREATE VIEW",
            "v",
        ),
        ("CREATE USER 'bob'@'%' IDENTIFIED BY 'secret'", "CREATE USER", ""),
        ("ALTER TABLE t ADD c int", "ALTER TABLE", "t"),
        ("DROP DATABASE IF EXISTS old", "DROP DATABASE", "old"),
        (
            "WITH recent (id) AS NOT MATERIALIZED (SELECT id FROM orders), b AS (SELECT 1) SELECT * FROM Recent",
            "SELECT",
            "orders",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1) INSERT INTO t SELECT * FROM r",
            "INSERT",
            "t",
        ),
        ("/* app:web */ -- line\n# mysql\nSELECT * FROM t", "SELECT", "t"),
        ("/*!40101 SET NAMES utf8 */", "SET", ""),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "LOAD", "t"),
        ("COPY (SELECT * FROM t) TO STDOUT", "COPY", "t"),
        ("COPY t FROM STDIN", "COPY", "t"),
        ("EXPLAIN ANALYZE SELECT * FROM t", "EXPLAIN", "t"),
        ("CALL pay(7, 'x')", "CALL", "pay"),
        ("SELECT $$ FROM secret $$ FROM t", "SELECT", "t"),
        ("SELECT $1 FROM t WHERE a = $2", "SELECT", "t"),
        (
            "SELECT * FROM events_7 WHERE 1; DROP TABLE x",
            "SELECT",
            "events_7",
        ),
        ("begin", "BEGIN", ""),
        ("; ; SELECT 1", "SELECT", ""),
        ("SELECT a INTO OUTFILE 'x' FROM t", "SELECT", "t"),
        ("VALUES (1)", "VALUES", ""),
        ("hunter2", "", ""),
        ("", "", ""),
    ] {
        assert_eq!(
            summary(statement.as_bytes()),
            (verb.to_owned(), table.to_owned()),
            "{statement}"
        );
    }
}

#[test]
fn where_dialects_disagree_nothing_is_taken_for_a_name() {
    for statement in [
        r"SELECT 'a\' FROM secret",
        r#"SELECT "a\" FROM secret"#,
        "SELECT 1 /* a /* b */ FROM secret",
        "SELECT 'FROM secret",
        "SELECT 1 -- FROM secret",
        "SELECT 1 # FROM secret",
        "SELECT $x$ FROM secret",
        "SELECT SUBSTRING(\"a\" FROM \"secret\")",
    ] {
        assert_eq!(
            summary(statement.as_bytes()),
            ("SELECT".to_owned(), String::new()),
            "{statement}"
        );
    }
}

proptest! {
    #[test]
    fn literals_never_show(literal in "[a-zA-Z0-9 (),.;#/*-]{1,20}", place in 0..5_usize) {
        let marked = format!("zq{literal}zq");
        let statement = match place {
            0 => format!("SELECT '{marked}' FROM t"),
            1 => format!("INSERT INTO t VALUES ('{marked}')"),
            2 => format!("SELECT * FROM t WHERE a = '{marked}' AND b IN (SELECT c FROM u)"),
            3 => format!("UPDATE t SET a = '{marked}'"),
            _ => format!("SELECT f(\"{marked}\" FROM \"{marked}\") FROM t"),
        };
        let (_, table) = summary(statement.as_bytes());
        prop_assert_eq!(table, "t");
    }

    #[test]
    fn any_bytes_are_survived(statement in proptest::collection::vec(any::<u8>(), 0..300)) {
        summary(&statement);
    }

    #[test]
    fn any_words_are_survived(statement in "((SELECT|FROM|WITH|AS|\\(|\\)|,|a|\"|'|\\$|;|--|/\\*|\\*/|`|\\.|CREATE|INDEX|ON)[ \n]?){0,60}") {
        summary(statement.as_bytes());
    }
}
