//! Forty secrets on their way through a web service, Redis and PostgreSQL: none is kept.

use std::{fs, path::Path, time::Duration};

use spike_tests::{
    agent::Agent,
    needs,
    tools::script,
    workload::{free_port, postgres, postgres_bin, redis, wait_for_listener},
    world::World,
};

use super::{record, sql, stop};

/// The how-many-th secret; like no other bytes.
fn secret(number: usize) -> String {
    format!("S3kr1t{number:02}zQ{:x}", number * 7919 + 0x00A1_B2C3)
}

pub(super) fn forty_secrets_are_nowhere() {
    let Some(bin) = postgres_bin() else {
        needs::skip("no PostgreSQL here")
    };
    needs::program("redis-cli");
    let world = World::new();
    let agent = Agent::start(&world);
    let (redis, postgres) = (
        redis(&world, &world.place("redis")),
        postgres(&world, &world.place("db"), &bin),
    );
    let port = free_port();
    let program = script("secrets_service.py").display().to_string();
    world.place("web").serve("python3", &[program, port.to_string()]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let shell = world.place("shell");
    let file = record(
        &world,
        &agent,
        &format!("--from {} --redact header=x-answer,field=iban", shell.selector()),
    );
    let s = secret;
    let url = format!("http://127.0.0.1:{port}");
    let run = |program: &str, args: &[&str]| shell.run(program, args).ok();
    run(
        "curl",
        &[
            "-sS",
            "-H",
            &format!("Authorization: Bearer {}", s(1)),
            "-H",
            &format!("Cookie: a={}; b={}", s(2), s(3)),
            "-H",
            &format!("X-Api-Key: {}", s(4)),
            "-H",
            &format!("Proxy-Authorization: Basic {}", s(5)),
            &format!("{url}/q?token={}&user=plain-marker&api_key={}", s(6), s(7)),
        ],
    );
    let answer = format!("X-Answer: ['{}','{}','{}','{}']", s(8), s(9), s(10), s(11));
    run("curl", &["-sS", "-H", &answer, &format!("{url}/plain")]);
    let answer = format!("X-Answer: ['{}','{}','{}','{}']", s(12), s(13), s(14), s(15));
    run("curl", &["-sS", "-H", &answer, &format!("{url}/chunked")]);
    let json = format!(
        r#"{{"user":"ann","password":"{}","nested":{{"secret":["{}",{{"x":"{}"}}]}},"clientSecret":"{}","iban":"{}"}}"#,
        s(16),
        s(17),
        s(18),
        s(19),
        s(20)
    );
    run(
        "curl",
        &["-sS", "-H", "Content-Type: application/json", "-d", &json, &url],
    );
    run(
        "curl",
        &[
            "-sS",
            "-d",
            &format!("user=ann&password={}&refresh_token={}", s(21), s(22)),
            &url,
        ],
    );
    run(
        "curl",
        &["-sS", "-F", "user=ann", "-F", &format!("passwd={}", s(23)), &url],
    );
    let redis = redis.to_string();
    let redis_cli = |args: &[&str]| shell.run("redis-cli", &[&["-p", redis.as_str()], args].concat());
    redis_cli(&[
        "ACL",
        "SETUSER",
        "bob",
        "on",
        &format!(">{}", s(24)),
        "+@all",
        "~*",
    ])
    .ok();
    redis_cli(&["AUTH", "bob", &s(24)]).ok();
    redis_cli(&["AUTH", "bob", &s(25)]);
    redis_cli(&["HSET", "user:1", "name", "ann", "password", &s(26)]).ok();
    redis_cli(&["HGETALL", "user:1"]).ok();
    redis_cli(&["SET", "session:token", &s(27)]).ok();
    redis_cli(&["GET", "session:token"]).ok();
    redis_cli(&[
        "SET",
        "doc",
        &format!(r#"{{"api_key":"{}","plain":"plain-marker"}}"#, s(28)),
    ])
    .ok();
    redis_cli(&["GET", "doc"]).ok();
    redis_cli(&["CONFIG", "SET", "masterauth", &s(29)]).ok();
    redis_cli(&["CONFIG", "GET", "masterauth"]).ok();
    let postgres = postgres.to_string();
    let psql = bin.join("psql").display().to_string();
    let psql = |script: &str| {
        shell.run(
            &psql,
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &postgres,
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                script,
            ],
        )
    };
    psql("CREATE TABLE users (id int, name text, password text, doc text)").ok();
    psql(&format!("CREATE ROLE ann LOGIN PASSWORD '{}'", s(30))).ok();
    psql(&format!(
        "ALTER ROLE ann WITH ENCRYPTED PASSWORD '{}' VALID UNTIL '2099-01-01'",
        s(31)
    ))
    .ok();
    psql(&format!(
        "INSERT INTO users (id, name, password) VALUES (1, 'plain-marker', '{}'), (2, 'bob', md5('{}'))",
        s(32),
        s(33)
    ))
    .ok();
    psql("SELECT id, name, password FROM users").ok();
    psql(&format!("UPDATE users SET password = '{}' WHERE id = 1", s(34))).ok();
    psql(&format!("SELECT name FROM users WHERE password = '{}'", s(35))).ok();
    psql(&format!(
        "UPDATE users SET doc = '{{\"token\": \"{}\"}}' WHERE id = 2",
        s(36)
    ))
    .ok();
    psql("SELECT doc FROM users").ok();
    psql(&format!("SELECT 'postgresql://h/?user=a&password={}'", s(37))).ok();
    psql(&format!("SELEC password '{}'", s(38)));
    psql(&format!(
        "PREPARE p (text) AS SELECT 1 WHERE $1 = 'password={}'",
        s(39)
    ))
    .ok();
    psql(&format!("CREATE USER carl PASSWORD $x${}$x$", s(40))).ok();

    let places = |path: &Path| fs::read(path).unwrap_or_default();
    let wal = Path::new(&file).with_extension("spike-wal");
    // What passed last is committed by then.
    std::thread::sleep(needs::patience(Duration::from_millis(1000)));
    assert!(!places(&wal).is_empty());
    let mut seen = vec![
        ("the log of the file", places(&wal)),
        ("the file while it grows", places(Path::new(&file))),
    ];
    stop(&agent);
    seen.push(("the file", places(Path::new(&file))));
    for format in ["--har", "--curl", "--jsonl", "--pcapng"] {
        let out = world.path("export");
        agent
            .spike(&[
                "record",
                "export",
                &file,
                format,
                "-o",
                out.to_str().expect("UTF-8"),
            ])
            .ok();
        let bytes = fs::read(&out).expect("read the export");
        assert!(
            bytes.windows(12).any(|window| window == b"plain-marker"),
            "{format} has what is no secret"
        );
        seen.push((format, bytes));
    }
    seen.push((
        "what is shown",
        agent.spike(&["record", "grep", ".", &file]).ok().into_bytes(),
    ));
    seen.push(("the agent's log", agent.log().into_bytes()));
    for number in 1..=40 {
        let secret = secret(number);
        for (place, bytes) in &seen {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "secret {number} is in {place}");
        }
    }
    let protocols = sql(
        &file,
        "SELECT protocol, count(*) > 5 FROM call GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(protocols, "http|1\npostgresql|1\nredis|1");
    assert_eq!(
        sql(&file, "SELECT count(*) FROM call WHERE NOT complete"),
        "0",
        "redacted bytes are decoded as before"
    );
    assert_eq!(sql(&file, "SELECT count(*) FROM loss"), "0");
}
