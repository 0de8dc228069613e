//! Conditions that are right, wrong, and neither.

use super::*;

struct Thing {
    name: &'static str,
    took: Option<u64>,
    size: u64,
    share: f64,
    failed: bool,
}

const FIELDS: &[Field<Thing>] = &[
    Field {
        name: "name",
        kind: Kind::Text(|thing| vec![thing.name]),
    },
    Field {
        name: "took",
        kind: Kind::Time(|thing| thing.took),
    },
    Field {
        name: "size",
        kind: Kind::Size(|thing| thing.size),
    },
    Field {
        name: "share",
        kind: Kind::Percent(|thing| Some(thing.share)),
    },
    Field {
        name: "failed",
        kind: Kind::Flag(|thing| thing.failed),
    },
];

const THING: Thing = Thing {
    name: "GET /users/{id}",
    took: Some(150_000),
    size: 2_000,
    share: 1.5,
    failed: true,
};

fn finds(text: &str) -> bool {
    Find::parse(text, FIELDS).unwrap().matches(&THING)
}

#[test]
fn fields_are_compared_in_their_units() {
    for text in [
        "took>100ms",
        "took>=150ms",
        "took<=150ms",
        "took=150ms",
        "took != 1s",
        "size>1kB",
        "size=2000",
        "share>1%",
        "share<2",
        "failed",
        "name=\"get /users*\"",
        "name='GET */{id}' or took>1h",
        "name!=post*",
    ] {
        assert!(finds(text), "{text}");
    }
    assert!(!finds("took>150ms") && !finds("size>2kB") && !finds("not failed"));
    let unanswered = Thing { took: None, ..THING };
    let of_time = |text: &str| Find::parse(text, FIELDS).unwrap().matches(&unanswered);
    assert!(!of_time("took<1s") && !of_time("took!=1s") && of_time("not took<1s"));
}

#[test]
fn and_binds_closer_than_or() {
    assert!(finds("failed or failed and not failed"));
    assert!(!finds("(failed or failed) and not failed"));
    assert!(finds("not (failed and not failed)"));
    assert!(finds("not not failed"));
}

#[test]
fn errors_say_what_would_be_right() {
    for (text, says) in [
        ("", "fields are name, took, size, share, failed"),
        ("nme=x", "no field `nme`; fields are name"),
        (
            "took",
            "`took` lacks what to compare it with, such as `took>100ms`",
        ),
        ("took>", "`took>` lacks its value"),
        ("took>5", "took: "),
        ("size>many", "size: "),
        ("share>x", "share: `x` is not a number, such as `share>1%`"),
        ("name>x", "`name` is text: it is compared by = and !="),
        ("failed=yes", "write `failed` or `not failed`"),
        ("failed took>1s", "join conditions by `and` or `or`"),
        ("(failed", "a `(` lacks its `)`"),
        ("failed)", "`)` does not belong there"),
        ("name=\"a", "lacks its closing"),
        ("name=[", "name: "),
        ("! failed", "comparisons are"),
        ("failed and", "a condition is missing at the end"),
    ] {
        let error = Find::parse(text, FIELDS).map(|_| ()).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    let deep = "(".repeat(100_000) + "failed";
    assert!(Find::parse(&deep, FIELDS).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ ()=<>!\"'a-z0-9%{}\\[\\]*\\\\]{0,60}") {
        let _ = Find::parse(&text, FIELDS).map(|find| find.matches(&THING));
    }
}
