//! Header blocks of HTTP/2 (HPACK, RFC 7541), with every field whole.
//!
//! The decoder in `protocol` keeps the few fields that name a call, and goes on after a gap; a replay needs all of them,
//! from the connection's start.

use std::collections::VecDeque;

use bytes::Bytes;
use octets::Octets;

use crate::replay::exchange::Header;

/// Size of the table until its encoder says otherwise.
const TABLE_SIZE: usize = 4096;
/// Largest table that an encoder may ask for.
const TABLE_LIMIT: usize = 1 << 20;
/// What each field costs in the table, beside its bytes.
const FIELD_COST: usize = 32;
/// RFC 7541 appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The table of one direction.
#[derive(Clone, Debug)]
pub struct Table {
    /// The newest first.
    fields: VecDeque<Header>,
    size: usize,
    limit: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            fields: VecDeque::new(),
            size: 0,
            limit: TABLE_SIZE,
        }
    }
}

impl Table {
    /// Reads a whole block; none if it is not one, or refers to what was not seen.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<Header>> {
        let mut fields = Vec::new();
        let mut block = Octets::with_slice(block);
        while block.cap() > 0 {
            let first = block.peek_u8().ok()?;
            let name = match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    fields.push(self.get(index)?);
                    continue;
                }
                0x40.. => integer(&mut block, 6)?,
                0x20.. => {
                    let size = integer(&mut block, 5)?;
                    self.limit = size.min(TABLE_LIMIT);
                    self.evict();
                    continue;
                }
                _ => integer(&mut block, 4)?,
            };
            let name = match name {
                0 => string(&mut block)?,
                index => self.get(index)?.0,
            };
            let value = string(&mut block)?;
            if first >= 0x40 {
                self.size += name.len() + value.len() + FIELD_COST;
                self.fields.push_front((name.clone(), value.clone()));
                self.evict();
            }
            fields.push((name, value));
        }
        Some(fields)
    }

    fn get(&self, index: usize) -> Option<Header> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )),
            None => self.fields.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.fields.pop_back() else {
                self.size = 0;
                return;
            };
            self.size -= name.len() + value.len() + FIELD_COST;
        }
    }
}

/// An integer with a prefix of so many bits.
fn integer(block: &mut Octets<'_>, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(block.get_u8().ok()?) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..=28).step_by(7) {
        let byte = usize::from(block.get_u8().ok()?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn string(block: &mut Octets<'_>) -> Option<Bytes> {
    let huffman = block.peek_u8().ok()? & 0x80 != 0;
    let size = integer(block, 7)?;
    let mut coded = block.get_bytes(size).ok()?;
    let text = if huffman {
        coded.get_huffman_decoded().ok()?
    } else {
        coded.to_vec()
    };
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fields: Option<Vec<Header>>) -> Vec<String> {
        let text = |(name, value): &Header| {
            format!(
                "{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            )
        };
        fields.unwrap().iter().map(text).collect()
    }

    /// RFC 7541 appendix C.4: three requests on one connection, coded by Huffman.
    #[test]
    fn blocks_of_the_standard_are_read() {
        let mut table = Table::default();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(
            shown(table.read(first)),
            [
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com"
            ]
        );
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(
            shown(table.read(second))[3..],
            [":authority: www.example.com", "cache-control: no-cache"]
        );
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        assert_eq!(
            shown(table.read(third))[3..],
            [":authority: www.example.com", "custom-key: custom-value"]
        );
    }

    #[test]
    fn what_refers_to_nothing_is_not_read() {
        assert!(Table::default().read(b"\xbe").is_none());
        assert!(Table::default().read(b"\x80").is_none());
        assert!(Table::default().read(b"\x41\x8c\xf1").is_none());
    }
}
