//! Makes old steps coarser and drops the oldest.

use std::collections::BTreeMap;

use rusqlite::{Connection, Result, params};

use super::{COARSE_MS, FINE_MS, MIDDLE_MS, Step, store};
use crate::topology::Counts;

/// From which level steps go to the next, after which age, and how long those are, in milliseconds.
const LEVELS: [(i64, i64, i64); 2] = [(0, FINE_MS, 300_000), (1, MIDDLE_MS, 3_600_000)];
/// Coarse steps that are made in one go at most, so that nobody waits long for the database.
const AT_ONCE: usize = 64;
/// An edge that was not seen for so long before the oldest step is forgotten; the agent tells each that it sees once an
/// hour.
const EDGE_SPARE_MS: i64 = 2 * 3_600_000;

pub(super) fn fold(database: &mut Connection, now_ms: i64) -> Result<()> {
    for (level, age, length) in LEVELS {
        for _ in 0..AT_ONCE {
            // A coarse step is made when all of its time is old enough.
            let until = (now_ms - age).div_euclid(length) * length;
            let oldest: Option<i64> = database.query_row(
                "SELECT MIN(from_ms) FROM step WHERE level = ?1 AND from_ms < ?2",
                [level, until],
                |row| row.get(0),
            )?;
            let Some(oldest) = oldest else { break };
            let start = oldest.div_euclid(length) * length;
            join(database, level, start, start + length)?;
        }
    }
    database.execute("DELETE FROM step WHERE to_ms < ?1", [now_ms - COARSE_MS])?;
    if let Some(oldest) = store::oldest(database)? {
        database.execute("DELETE FROM edge WHERE seen_ms < ?1", [oldest - EDGE_SPARE_MS])?;
    }
    Ok(())
}

/// Replaces the steps of a level that begin within a stretch of time by one of the next.
fn join(database: &mut Connection, level: i64, from_ms: i64, to_ms: i64) -> Result<()> {
    let change = database.transaction()?;
    let mut sums: BTreeMap<u64, Counts> = BTreeMap::new();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    {
        let mut steps = change.prepare_cached(
            "SELECT from_ms, to_ms, data FROM step WHERE level = ?1 AND from_ms >= ?2 AND from_ms < ?3 ORDER BY from_ms",
        )?;
        let mut rows = steps.query(params![level, from_ms, to_ms])?;
        while let Some(row) = rows.next()? {
            first = first.min(row.get(0)?);
            last = last.max(row.get(1)?);
            let data: Vec<u8> = row.get(2)?;
            // What is damaged is lost, and does not stop the rest.
            for (id, counts) in store::decode(&data) {
                sums.entry(id).or_default().add(&counts);
            }
        }
    }
    change.execute(
        "DELETE FROM step WHERE level = ?1 AND from_ms >= ?2 AND from_ms < ?3",
        params![level, from_ms, to_ms],
    )?;
    let step = Step {
        from_ms: first,
        to_ms: last,
        edges: sums.into_iter().collect(),
    };
    store::insert(&change, &step, level + 1)?;
    change.commit()
}

/// Drops the oldest steps until the file is within its limit; gives its size.
pub(super) fn cut(database: &mut Connection, limit: u64) -> Result<u64> {
    while size(database)? > limit {
        let gone = database.execute(
            "DELETE FROM step WHERE rowid IN (SELECT rowid FROM step ORDER BY to_ms \
             LIMIT MAX(1, (SELECT COUNT(*) / 20 FROM step)))",
            [],
        )?;
        if gone == 0 {
            break;
        }
    }
    // Gives the freed pages back to the file system, then empties the write-ahead log.
    let mut vacuum = database.prepare("PRAGMA incremental_vacuum")?;
    let mut freed = vacuum.query([])?;
    while freed.next()?.is_some() {}
    drop(freed);
    drop(vacuum);
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    size(database)
}

/// Bytes in use, without pages that are free.
fn size(database: &Connection) -> Result<u64> {
    let number = |name: &str| database.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let size = (number("page_count")? - number("freelist_count")?) * number("page_size")?;
    Ok(u64::try_from(size).unwrap_or(0))
}
