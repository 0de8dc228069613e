//! The examples of RFC 7541 appendix C, and tables that were not seen from their start.

use proptest::{collection::vec, prelude::*};

use super::{Fields, TABLE_LIMIT, Table};

/// Requests of appendix C.4, Huffman coded, each with what the one before put into the table.
const REQUESTS: [&[u8]; 3] = [
    b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
    b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
];

fn told(fields: &Fields) -> [Option<&str>; 3] {
    [&fields.method, &fields.authority, &fields.path]
        .map(|field| field.as_deref().map(|text| str::from_utf8(text).unwrap()))
}

#[test]
fn a_table_grows_from_block_to_block() {
    let mut table = Table::default();
    for (block, path) in REQUESTS.into_iter().zip(["/", "/", "/index.html"]) {
        let fields = table.read(block);
        assert_eq!(told(&fields), [Some("GET"), Some("www.example.com"), Some(path)]);
        assert!(fields.asks && !fields.gaps);
    }
    assert_eq!(table.fields.len(), 3);
}

#[test]
fn what_was_before_a_gap_is_unknown_and_never_another_field() {
    let mut table = Table::default();
    table.read(REQUESTS[0]);
    table.forget();
    let fields = table.read(REQUESTS[1]);
    assert_eq!(told(&fields), [Some("GET"), None, Some("/")]);
    assert!(fields.gaps);
    // Literals with incremental indexing since then are read right.
    table.read(b"\x41\x01a");
    let fields = table.read(b"\x82\xbe\xc4");
    assert_eq!(told(&fields), [Some("GET"), Some("a"), None]);
}

#[test]
fn a_block_that_is_not_hpack_voids_the_table() {
    for block in [
        &b"\x80"[..],
        b"\x41\x7fshort",
        b"\xff\xff\xff\xff\xff\xff\xff",
        b"\x41\x81\x00\x3f",
    ] {
        let mut table = Table::default();
        table.read(b"\x41\x01a");
        assert!(table.read(block).gaps, "{block:x?}");
        assert_eq!(table.fields.len(), 0);
    }
}

#[test]
fn a_table_is_emptied_by_a_smaller_size() {
    let mut table = Table::default();
    table.read(b"\x41\x01a\x44\x02/b");
    assert_eq!(table.fields.len(), 2);
    // As much as one field needs by its own count.
    table.read(b"\x3f\x03");
    assert_eq!(table.fields.len(), 1);
    table.read(b"\x20");
    assert_eq!(table.fields.len(), 0);
}

proptest! {
    #[test]
    fn any_block_is_survived_in_bounded_memory(blocks in vec(vec(any::<u8>(), 0..300), 0..30)) {
        let mut table = Table::default();
        // The largest that can be asked for.
        table.read(b"\x3f\xe0\xff\xff\xff\x0f\x82");
        for block in blocks {
            table.read(&block);
            prop_assert!(table.size <= TABLE_LIMIT && table.fields.len() * 32 <= TABLE_LIMIT);
        }
    }
}
