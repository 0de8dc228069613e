//! Reads and writes quantities as people type them, so that no number is ever without its unit.

use std::{fmt, time::Duration};

/// A rate in bytes per second, from 1 to [`Rate::MAX`].
///
/// Written as a decimal number (at most three digits after the point) and a unit:
///
/// | unit | meaning |
/// |---|---|
/// | `bit`, `kbit`, `mbit`, `gbit` | bits a second in powers of ten, as in tc(8); letter case is free, `/s` may follow |
/// | `kibit`, `mibit`, `gibit` | bits a second in powers of 1024 |
/// | `B/s`, `KB/s`, `MB/s`, `GB/s` | bytes a second in powers of ten; the `B` is a capital |
/// | `KiB/s`, `MiB/s`, `GiB/s` | bytes a second in powers of 1024 |
///
/// A bare number is refused, and so is `kbps`, which means bytes to tc(8) and bits to everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// Unit names with bytes a second as a fraction (numerator, denominator); longest suffix first.
const UNITS: [(&str, u64, u64); 7] = [
    ("kibit", 1 << 10, 8),
    ("mibit", 1 << 20, 8),
    ("gibit", 1 << 30, 8),
    ("kbit", 1_000, 8),
    ("mbit", 1_000_000, 8),
    ("gbit", 1_000_000_000, 8),
    ("bit", 1, 8),
];

const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB/s", 1 << 30),
    ("MiB/s", 1 << 20),
    ("KiB/s", 1 << 10),
    ("GB/s", 1_000_000_000),
    ("MB/s", 1_000_000),
    ("KB/s", 1_000),
    ("B/s", 1),
];

impl Rate {
    /// The largest rate: one terabyte a second.
    pub const MAX: Self = Self(1_000_000_000_000);

    /// Bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// A rate of `bytes` per second, `None` outside of 1..=[`Rate::MAX`].
    pub fn from_bytes_per_second(bytes: u64) -> Option<Self> {
        (1..=Self::MAX.0).contains(&bytes).then_some(Self(bytes))
    }

    /// Reads the text form described at [`Rate`]; fractions of a byte are dropped.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        let (numerator, denominator) = unit_factor(unit)?;
        let (thousandths, scale) = thousandths(number)
            .ok_or_else(|| format!("`{number}` is not a number with at most three digits after the point"))?;
        let bytes = u128::from(thousandths) * u128::from(numerator) / u128::from(denominator * scale);
        u64::try_from(bytes)
            .ok()
            .and_then(Self::from_bytes_per_second)
            .ok_or_else(|| format!("must be from 1 B/s to 1000 GB/s, got `{text}`"))
    }
}

/// Bytes a second that one `unit` stands for, as numerator and denominator.
fn unit_factor(unit: &str) -> Result<(u64, u64), String> {
    let lower = unit.to_ascii_lowercase();
    let bits = lower.strip_suffix("/s").unwrap_or(&lower);
    if let Some((_, numerator, denominator)) = UNITS.iter().find(|(name, ..)| *name == bits) {
        return Ok((*numerator, *denominator));
    }
    // The prefix's case is free (`kB/s` is common), the `B` must be a capital: `mb/s` could mean either.
    let is_bytes = |name: &str| name.eq_ignore_ascii_case(unit) && unit.contains('B');
    if let Some((_, factor)) = BYTE_UNITS.iter().find(|(name, _)| is_bytes(name)) {
        return Ok((*factor, 1));
    }
    let wanted = "write bits as 64kbit, 1mbit or 1gbit, bytes as 100KB/s or 1MiB/s";
    Err(match unit {
        "" => format!("a rate needs its unit: {wanted}"),
        _ => format!("unknown unit `{unit}`: {wanted}"),
    })
}

/// Reads a number of bytes such as `512`, `1.5kB` or `1MiB`; fractions of a byte are dropped.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let factor = BYTE_UNITS
        .iter()
        .find(|(name, _)| name.trim_end_matches("/s").eq_ignore_ascii_case(unit))
        .map_or((unit.is_empty()).then_some(1), |(_, factor)| Some(*factor));
    let bytes = factor
        .zip(thousandths(number))
        .and_then(|(factor, (thousandths, scale))| {
            u64::try_from(u128::from(thousandths) * u128::from(factor) / u128::from(scale)).ok()
        });
    bytes.ok_or_else(|| format!("`{text}` is not a size such as 512B, 10kB or 1MiB"))
}

/// `12.5` as 12500 and 1000; `None` when it is no such number.
fn thousandths(number: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 3 || fraction.contains('.') {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    Some((whole.checked_mul(1000)?.checked_add(fraction)?, 1000))
}

impl fmt::Display for Rate {
    /// The shortest exact form, which [`Rate::parse`] reads back as the same rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = BYTE_UNITS
            .iter()
            .filter(|(_, factor)| self.0.is_multiple_of(*factor))
            .map(|(name, factor)| format!("{}{name}", self.0 / factor));
        let bits = UNITS
            .iter()
            .skip(3)
            .filter(|(_, numerator, _)| (self.0 * 8).is_multiple_of(*numerator))
            .map(|(name, numerator, _)| format!("{}{name}", self.0 * 8 / numerator));
        let shortest = bytes.chain(bits).min_by_key(String::len);
        f.write_str(&shortest.unwrap_or_else(|| format!("{}B/s", self.0)))
    }
}

/// Reads a time such as `200ms`, `1.5s` or `1m30s`; a bare number is refused.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a time is needed, such as 200ms or 1m30s".to_owned());
    }
    if text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("a time needs its unit: write {text}ms or {text}s"));
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time such as 200ms, 1.5s or 1m30s"))
}

/// Writes a time as [`parse_duration`] reads it: `1m30s`.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_mean_what_tc_says() {
        for (text, bytes) in [
            ("8bit", 1),
            ("64kbit", 8_000),
            ("64Kbit/s", 8_000),
            ("1mbit", 125_000),
            ("1.5mbit", 187_500),
            ("1kibit", 128),
            ("100KB/s", 100_000),
            ("100kB/s", 100_000),
            ("1MiB/s", 1_048_576),
            ("1 GB/s", 1_000_000_000),
            ("1000GB/s", 1_000_000_000_000),
        ] {
            assert_eq!(Rate::parse(text).map(Rate::bytes_per_second), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn unclear_rates_are_refused() {
        for text in [
            "",
            "100",
            "0bit",
            "7bit",
            "1mb/s",
            "1kbps",
            "-1mbit",
            "1.2345mbit",
            "1.mbit",
            ".5mbit",
            "1..5mbit",
        ] {
            assert!(Rate::parse(text).is_err(), "{text} was accepted");
        }
        assert!(Rate::parse("99999999999999999999gbit").is_err());
        assert!(Rate::parse("1001GB/s").is_err());
        assert!(Rate::parse("100").unwrap_err().contains("needs its unit"));
    }

    #[test]
    fn a_bare_number_is_no_time() {
        assert_eq!(
            parse_duration("200").unwrap_err(),
            "a time needs its unit: write 200ms or 200s"
        );
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1s").is_err());
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(format_duration(Duration::from_secs(90)), "1m30s");
    }

    proptest! {
        #[test]
        fn a_written_rate_reads_back(bytes in 1..=Rate::MAX.0) {
            let rate = Rate::from_bytes_per_second(bytes).unwrap();
            prop_assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
        }

        #[test]
        fn a_written_time_reads_back(nanos in 0..=86_400_000_000_000_u64) {
            let time = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(time)), Ok(time));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,24}") {
            let _ = Rate::parse(&text);
            let _ = parse_duration(&text);
        }
    }
}
