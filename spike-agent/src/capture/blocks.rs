//! Finds the blocks in a pcapng stream that comes in pieces, so that it can be cut into files or turned into another format.

use bytes::{Buf, Bytes, BytesMut};

use super::pcapng::{INTERFACE_DESCRIPTION, SECTION_HEADER};

/// Bounds the memory for a stream that is no pcapng: above the longest packet with its comment.
const LONGEST: usize = 16 * 1024 * 1024;

/// The blocks of a stream that the agent writes: little-endian.
#[derive(Debug, Default)]
pub struct Blocks {
    waiting: BytesMut,
}

/// The stream is not what the agent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no block of a pcapng file at byte {0} of a piece")]
pub struct NoBlock(usize);

/// One block with its head and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: u32,
    /// All of it.
    pub bytes: Bytes,
}

impl Block {
    /// A new file begins with it.
    pub fn begins_section(&self) -> bool {
        self.kind == SECTION_HEADER
    }

    /// It describes an interface.
    pub fn is_interface(&self) -> bool {
        self.kind == INTERFACE_DESCRIPTION
    }

    /// What is between its head and its end.
    pub fn body(&self) -> &[u8] {
        self.bytes
            .get(8..self.bytes.len().saturating_sub(4))
            .unwrap_or_default()
    }
}

impl Blocks {
    /// Takes a piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next whole block; none before more has come.
    ///
    /// # Errors
    /// When there is something else.
    pub fn next_block(&mut self) -> Result<Option<Block>, NoBlock> {
        let mut head = &self.waiting[..];
        if head.len() < 8 {
            return Ok(None);
        }
        let (kind, length) = (head.get_u32_le(), head.get_u32_le() as usize);
        if length < 12 || !length.is_multiple_of(4) || length > LONGEST {
            return Err(NoBlock(0));
        }
        if self.waiting.len() < length {
            return Ok(None);
        }
        let bytes = self.waiting.split_to(length).freeze();
        if (&bytes[length - 4..]).get_u32_le() as usize != length {
            return Err(NoBlock(length - 4));
        }
        Ok(Some(Block { kind, bytes }))
    }

    /// Bytes of a block that is not whole yet.
    pub fn rest(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcapng::{Section, secrets, section};

    #[test]
    fn blocks_are_found_however_the_stream_is_cut() {
        let mut stream = BytesMut::new();
        for _ in 0..3 {
            let about = Section {
                hardware: "x",
                os: "y",
                application: "z",
            };
            section(&mut stream, &about);
            secrets(&mut stream, b"odd");
        }
        for size in 1..stream.len() {
            let (mut blocks, mut found) = (Blocks::default(), Vec::new());
            for piece in stream.chunks(size) {
                blocks.push(piece);
                while let Some(block) = blocks.next_block().unwrap() {
                    found.push(block);
                }
            }
            assert_eq!((found.len(), blocks.rest()), (6, 0), "in pieces of {size}");
            let whole: Vec<u8> = found.iter().flat_map(|block| block.bytes.to_vec()).collect();
            assert_eq!(whole, stream);
            assert!(found[2].begins_section() && !found[3].begins_section());
        }
    }

    #[test]
    fn what_is_no_block_is_an_error() {
        let mut blocks = Blocks::default();
        blocks.push(b"HTTP/1.1 200 OK\r\n");
        assert!(blocks.next_block().is_err());
        let mut blocks = Blocks::default();
        blocks.push(&[6, 0, 0, 0, 12, 0, 0, 0, 13, 0, 0, 0]);
        assert!(blocks.next_block().is_err());
    }
}
