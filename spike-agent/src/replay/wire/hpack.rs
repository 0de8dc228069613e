//! Header blocks of HTTP/2 (HPACK, RFC 7541), with every field whole.
//!
//! The decoder in `protocol` keeps the few fields that name a call, and goes on after a gap; a replay needs all of them,
//! from the connection's start.

use fluke_hpack::Decoder;

use crate::replay::exchange::Header;

/// Largest table that an encoder may ask for, in the octets of RFC 7541 section 4.1.
const TABLE_LIMIT: usize = 1 << 20;

/// The table of one direction.
pub struct Table(Decoder<'static>);

impl Default for Table {
    fn default() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_LIMIT);
        Self(decoder)
    }
}

impl Table {
    /// Reads a whole block; none if it is not one, or refers to what was not seen.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<Header>> {
        let fields = self.0.decode(block).ok()?.into_iter();
        Some(fields.map(|(name, value)| (name.into(), value.into())).collect())
    }
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
