//! The trace that a call belongs to, by W3C Trace Context.

use std::fmt;

/// A `traceparent` header (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Never 0.
    pub trace_id: u128,
    /// The caller's span; never 0.
    pub parent_id: u64,
    /// Whether the caller may have recorded it.
    pub sampled: bool,
}

impl Trace {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; later versions may have more behind it.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let mut parts = str::from_utf8(header).ok()?.trim().split('-');
        let mut number = |length: usize| {
            let part = parts.next()?;
            let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            let valid = part.len() == length && part.bytes().all(lower_hex);
            u128::from_str_radix(part, 16).ok().filter(|_| valid)
        };
        let (version, trace_id, parent_id, flags) = (number(2)?, number(32)?, number(16)?, number(2)?);
        let parent_id = u64::try_from(parent_id).ok()?;
        let valid = version != 0xff && trace_id != 0 && parent_id != 0;
        let known = version != 0 || parts.next().is_none();
        (valid && known).then_some(Self {
            trace_id,
            parent_id,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.parent_id)
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(header.as_bytes()).unwrap();
        assert!(trace.sampled);
        assert_eq!(trace.to_string(), header);
    }

    #[test]
    fn what_the_standard_calls_invalid_is_none() {
        for header in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(Trace::parse(header.as_bytes()), None, "{header}");
        }
    }
}
