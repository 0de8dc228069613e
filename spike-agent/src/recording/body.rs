//! The content of HTTP/1.x messages, without the transfer coding that they went by.

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// So many bytes.
    Size(u64),
    /// In chunks.
    Chunked,
    /// Up to the connection's end.
    ToTheEnd,
}

impl Framing {
    /// By the names and values of a head's fields (RFC 9112 section 6.3).
    pub fn of<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>, is_response: bool) -> Self {
        let mut framing = if is_response {
            Self::ToTheEnd
        } else {
            Self::Nothing
        };
        for (name, value) in fields {
            let value = String::from_utf8_lossy(value);
            if name.eq_ignore_ascii_case("transfer-encoding") {
                let last = value.rsplit(',').next().unwrap_or_default().trim();
                return if last.eq_ignore_ascii_case("chunked") {
                    Self::Chunked
                } else {
                    Self::ToTheEnd
                };
            }
            if name.eq_ignore_ascii_case("content-length")
                && let Ok(size) = value.trim().parse()
            {
                framing = Self::Size(size);
            }
        }
        framing
    }

    /// The content, from what follows the head; none if that is not all of it.
    pub fn content(self, rest: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Nothing => Some(Vec::new()),
            Self::Size(size) => {
                let size = usize::try_from(size).ok()?;
                rest.get(..size).map(<[u8]>::to_vec)
            }
            Self::ToTheEnd => Some(rest.to_vec()),
            Self::Chunked => dechunked(rest),
        }
    }
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        let digits = rest[..line].split(|byte| *byte == b';').next()?.trim_ascii();
        let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        rest = &rest[line + 1..];
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(rest.get(..size)?);
        // The chunk's own line end.
        rest = rest.get(size..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        rest = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_without_its_framing() {
        let of = |name, value: &'static str| Framing::of([(name, value.as_bytes())].into_iter(), true);
        assert_eq!(of("Content-Length", "3").content(b"abcdef").unwrap(), b"abc");
        assert_eq!(of("content-length", "9").content(b"abc"), None);
        let chunked = of("Transfer-Encoding", "gzip, chunked");
        assert_eq!(
            chunked.content(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").unwrap(),
            b"abcde"
        );
        assert_eq!(chunked.content(b"3\r\nabc\r\n2\r\nd"), None);
        assert_eq!(of("x", "y").content(b"abc").unwrap(), b"abc");
        assert_eq!(
            Framing::of([("x", &b"y"[..])].into_iter(), false),
            Framing::Nothing
        );
    }
}
