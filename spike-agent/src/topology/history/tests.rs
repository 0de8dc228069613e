//! What is written is read again, coarser with time, and within its limit.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const HOUR: i64 = 3_600_000;

fn counts(calls: u64) -> Counts {
    Counts {
        calls,
        ..Counts::default()
    }
}

fn step(from_ms: i64, to_ms: i64, edges: &[(u64, u64)]) -> Step {
    Step {
        from_ms,
        to_ms,
        edges: edges.iter().map(|(id, calls)| (*id, counts(*calls))).collect(),
    }
}

fn between(history: &History, from_ms: i64, to_ms: i64) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    history.each_between(from_ms, to_ms, |from_ms, to_ms, edges| {
        steps.push(Step {
            from_ms,
            to_ms,
            edges: edges.collect(),
        });
    })?;
    Ok(steps)
}

fn view(protocol: &str) -> EdgeView {
    EdgeView {
        id: "1".to_owned(),
        protocol: protocol.to_owned(),
        ..EdgeView::default()
    }
}

#[test]
fn what_was_added_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.db");
    let far = u64::MAX - 3;
    {
        let history = History::open(&path, 1 << 20).unwrap();
        history
            .add(
                &step(1_000, 2_000, &[(1, 5), (far, 7)]),
                &[(1, view("tcp")), (far, view("udp"))],
            )
            .unwrap();
        history
            .add(&step(2_000, 3_000, &[(1, 6)]), &[(1, view("http"))])
            .unwrap();
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let history = History::open(&path, 1 << 20).unwrap();
    // A new agent has not seen yet what it speaks.
    history
        .add(&step(3_000, 3_001, &[]), &[(1, view("tcp"))])
        .unwrap();
    let all = between(&history, 0, 10_000).unwrap();
    assert_eq!(
        all,
        [
            step(1_000, 2_000, &[(1, 5), (far, 7)]),
            step(2_000, 3_000, &[(1, 6)])
        ]
    );
    assert_eq!(between(&history, 2_000, 10_000).unwrap().len(), 1);
    assert_eq!(between(&history, 0, 1_000).unwrap().len(), 0);
    assert_eq!(between(&history, 1_999, 2_001).unwrap().len(), 2);
    let known = history.identities(&[1, far, 9]).unwrap();
    assert_eq!(
        known[&1].protocol, "http",
        "the last that told more than the transport"
    );
    assert_eq!(known[&far].protocol, "udp");
    assert_eq!(known.len(), 2);
}

#[test]
fn a_file_that_is_no_history_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.db");
    fs::write(
        &path,
        "this is not a database, and longer than a header of one would be. ".repeat(99),
    )
    .unwrap();
    let history = History::open(&path, 1 << 20).unwrap();
    history.add(&step(1, 2, &[(1, 5)]), &[]).unwrap();
    assert_eq!(between(&history, 0, 10).unwrap().len(), 1);
    assert!(dir.path().join("map.db.broken").exists());
    let nowhere = History::open(&dir.path().join("no/map.db"), 1 << 20).map(|_| ());
    assert!(nowhere.unwrap_err().to_string().contains("no/map.db"));
}

#[test]
fn old_steps_become_coarser_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(&dir.path().join("map.db"), 64 << 20).unwrap();
    let now = 400 * 24 * HOUR;
    // Three hours of steps of 10 s: one of a day and a half ago, one of ten days ago, one of 100 days ago; one now.
    for start in [now - 36 * HOUR, now - 240 * HOUR, now - 2400 * HOUR, now - HOUR] {
        for number in 0..360 {
            let at = start + number * 10_000;
            history
                .add(&step(at, at + 10_000, &[(1, 1), (2, 2)]), &[])
                .unwrap();
        }
    }
    for _ in 0..3 {
        history.tidy(now).unwrap();
    }
    let lengths = |from, to| {
        let steps = between(&history, from, to).unwrap();
        let calls: u64 = steps
            .iter()
            .flat_map(|step| &step.edges)
            .map(|(_, counts)| counts.calls)
            .sum();
        (steps.len(), calls)
    };
    assert_eq!(lengths(now - HOUR, now), (360, 1080));
    assert_eq!(lengths(now - 37 * HOUR, now - 34 * HOUR), (12, 1080));
    assert_eq!(lengths(now - 241 * HOUR, now - 238 * HOUR), (1, 1080));
    assert_eq!(lengths(0, now - 2000 * HOUR), (0, 0), "older than 90 days");
}

#[test]
fn the_file_stays_within_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.db");
    let limit = 512 << 10;
    let history = History::open(&path, limit).unwrap();
    let edges: Vec<(u64, u64)> = (0..500).map(|id| (id * 7_919_123_456_789, id)).collect();
    for number in 0..200 {
        let at = number * 10_000;
        history.add(&step(at, at + 10_000, &edges), &[]).unwrap();
    }
    let size = history.tidy(2_000_000).unwrap();
    assert!(size <= limit, "{size}");
    assert!(fs::metadata(&path).unwrap().len() <= limit);
    let left = between(&history, 0, 2_000_000).unwrap();
    assert!(!left.is_empty() && left.len() < 200, "{}", left.len());
    assert_eq!(left.last().unwrap().to_ms, 2_000_000, "the newest stay");
}

#[test]
fn a_damaged_step_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.db");
    let history = History::open(&path, 1 << 20).unwrap();
    history.add(&step(1, 2, &[(1, 5)]), &[]).unwrap();
    history
        .lock()
        .execute("UPDATE step SET data = x'01ff'", [])
        .unwrap();
    let error = between(&history, 0, 9).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}
