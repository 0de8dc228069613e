//! Latencies over time as a field of characters: the more calls, the denser.

use crate::model::view::StepView;

/// From no call to the most.
const DENSITY: [char; 5] = [' ', '\u{2591}', '\u{2592}', '\u{2593}', '\u{2588}'];

/// A heat map: rows from slow to fast, each with its upper bound in microseconds; the newest step to the right.
pub(super) fn heat(steps: &[StepView], width: usize, height: usize) -> Vec<(u64, String)> {
    let steps = &steps[steps.len().saturating_sub(width)..];
    let buckets = || steps.iter().flat_map(|step| &step.histogram);
    let lowest = buckets()
        .map(|bucket| bucket.from_us)
        .fold(f64::INFINITY, f64::min)
        .max(1.0);
    let highest = buckets()
        .map(|bucket| bucket.to_us.unwrap_or(bucket.from_us))
        .fold(lowest * 2.0, f64::max);
    if height == 0 || !lowest.is_finite() {
        return Vec::new();
    }
    // Rows are equal factors of time.
    let factor = (highest / lowest).powf(1.0 / height as f64);
    let row_of = |micros: f64| {
        let row = ((micros.max(lowest) / lowest).ln() / factor.ln()).floor();
        (row as usize).min(height - 1)
    };
    let mut field = vec![vec![0_u64; steps.len()]; height];
    for (column, step) in steps.iter().enumerate() {
        for bucket in &step.histogram {
            let middle = bucket.from_us.midpoint(bucket.to_us.unwrap_or(bucket.from_us));
            field[row_of(middle)][column] += bucket.calls;
        }
    }
    let most = field.iter().flatten().copied().max().unwrap_or(0).max(1);
    let shade = |calls: u64| {
        let level = if calls == 0 {
            0
        } else {
            // By the logarithm, so that a few slow calls among thousands can be seen.
            1 + ((calls as f64).ln_1p() / (most as f64).ln_1p() * 3.0).floor() as usize
        };
        DENSITY[level.min(DENSITY.len() - 1)]
    };
    (0..height)
        .rev()
        .map(|row| {
            let upper = lowest * factor.powi(i32::try_from(row + 1).unwrap_or(i32::MAX));
            (
                upper.round() as u64,
                field[row].iter().map(|calls| shade(*calls)).collect(),
            )
        })
        .collect()
}
