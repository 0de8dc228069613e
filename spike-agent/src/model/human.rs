//! Numbers for people: three digits and a unit.

use std::time::Duration;

use super::units::format_duration;

/// Microseconds as `850µs`, `12.3ms` or `1.20s`.
pub fn micros(us: u64) -> String {
    if us < 1_000 {
        format!("{us}µs")
    } else {
        scaled(us, 1_000, &["ms", "s", "ks"])
    }
}

/// Bytes as `512B`, `1.20kB` or `34.5MB`, in powers of ten.
pub fn bytes(count: u64) -> String {
    if count < 1_000 {
        format!("{count}B")
    } else {
        scaled(count, 1_000, &["kB", "MB", "GB", "TB", "PB", "EB"])
    }
}

/// Milliseconds as `9m58s`, without a fraction of a second.
pub fn millis_left(ms: u64) -> String {
    format_duration(Duration::from_secs(ms / 1_000))
}

/// A rate a second as `0.05/s`, `12.3/s` or `1.20k/s`.
pub fn rate(rate: f64) -> String {
    if rate < 1_000.0 {
        let decimals = if rate < 9.995 {
            2
        } else {
            usize::from(rate < 99.95)
        };
        format!("{rate:.decimals$}/s")
    } else {
        // A rate that no count can reach is shown as the largest.
        format!("{}/s", scaled(rate as u64, 1_000, &["k", "M", "G", "T"]))
    }
}

/// A share in percent as `0%`, `0.05%`, `1.2%` or `35%`.
pub fn percent(percent: f64) -> String {
    let decimals = match percent {
        0.0 => 0,
        small if small < 0.95 => 2,
        middle if middle < 9.95 => 1,
        _ => 0,
    };
    format!("{percent:.decimals$}%")
}

fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let mut factor = step;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // What rounds to 1000 of one unit is shown as 1.00 of the next.
    while value as f64 / factor as f64 >= 999.5 {
        let Some(next) = units.next() else { break };
        (factor, unit) = (factor.saturating_mul(1_000), *next);
    }
    let amount = value as f64 / factor as f64;
    let decimals = if amount < 9.995 {
        2
    } else {
        usize::from(amount < 99.95)
    };
    format!("{amount:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown() {
        for (us, text) in [
            (0, "0µs"),
            (999, "999µs"),
            (1_000, "1.00ms"),
            (12_345, "12.3ms"),
            (201_400, "201ms"),
            (999_900, "1.00s"),
            (61_000_000, "61.0s"),
        ] {
            assert_eq!(micros(us), text);
        }
        for (count, text) in [
            (0, "0B"),
            (1_500, "1.50kB"),
            (10_737_418_240, "10.7GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(millis_left(598_999), "9m58s");
        for (number, text) in [
            (0.0, "0.00/s"),
            (9.0, "9.00/s"),
            (12.34, "12.3/s"),
            (1_500.0, "1.50k/s"),
        ] {
            assert_eq!(rate(number), text);
        }
        for (number, text) in [
            (0.0, "0%"),
            (0.05, "0.05%"),
            (1.25, "1.2%"),
            (35.4, "35%"),
            (100.0, "100%"),
        ] {
            assert_eq!(percent(number), text);
        }
    }
}
