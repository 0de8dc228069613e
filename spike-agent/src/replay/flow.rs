//! What one side of a recorded connection sent: its bytes, when they passed, and where some are missing.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

/// More of one side is not replayed: it would all be in memory.
pub(super) const FLOW_LIMIT: u64 = 256 << 20;

/// What one side sent.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Zeros where bytes are missing.
    bytes: Bytes,
    /// Position of the first byte of each chunk, and when it passed in nanoseconds of the recording.
    marks: Vec<(usize, u64)>,
    /// Missing bytes.
    gaps: Vec<Range<usize>>,
}

/// Bytes, and how long after something else they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// After the last byte of the request; zero for what came before that.
    pub after: Duration,
    /// At least one.
    pub bytes: Bytes,
}

impl Flow {
    /// From chunks in order, each with its position and time, and the number of bytes that were sent in all; none when
    /// there are too many.
    pub fn new(chunks: impl IntoIterator<Item = (u64, u64, Vec<u8>)>, sent: u64) -> Option<Self> {
        let (mut bytes, mut marks, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        for (position, at, chunk) in chunks {
            let position = usize::try_from(position).ok()?;
            if (position + chunk.len()) as u64 > FLOW_LIMIT {
                return None;
            }
            if position > bytes.len() {
                gaps.push(bytes.len()..position);
                bytes.resize(position, 0);
            }
            marks.push((bytes.len(), at));
            bytes.extend_from_slice(&chunk);
        }
        if sent > FLOW_LIMIT {
            return None;
        }
        let sent = usize::try_from(sent).ok()?;
        if sent > bytes.len() {
            gaps.push(bytes.len()..sent);
            bytes.resize(sent, 0);
        }
        Some(Self {
            bytes: bytes.into(),
            marks,
            gaps,
        })
    }

    /// All bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether none of these bytes is missing.
    pub fn is_whole(&self, range: Range<usize>) -> bool {
        !self
            .gaps
            .iter()
            .any(|gap| gap.start < range.end && range.start < gap.end)
    }

    /// When the byte at a position passed, in nanoseconds of the recording.
    pub fn at(&self, position: usize) -> u64 {
        let next = self.marks.partition_point(|(start, _)| *start <= position);
        let mark = next.checked_sub(1).and_then(|index| self.marks.get(index));
        mark.or(self.marks.first()).map_or(0, |(_, at)| *at)
    }

    /// Where each chunk begins and ends, and when it passed.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let ends = self.marks.iter().skip(1).map(|(start, _)| *start);
        let ends = ends.chain([self.bytes.len()]);
        let chunks = self.marks.iter().zip(ends);
        chunks
            .map(|(&(start, at), end)| (start, end, at))
            .filter(|(start, end, _)| start < end)
    }

    /// The bytes of a range as they came, counted from `since`.
    pub fn pieces(&self, range: Range<usize>, since: u64) -> Vec<Piece> {
        let starts = self.marks.iter().map(|(start, _)| *start);
        let inner = starts.filter(|start| range.start < *start && *start < range.end);
        let edges: Vec<usize> = [range.start]
            .into_iter()
            .chain(inner)
            .chain([range.end])
            .collect();
        let pairs = edges.windows(2).filter(|pair| pair[0] < pair[1]);
        let mut pieces: Vec<Piece> = Vec::new();
        for pair in pairs {
            let after = Duration::from_nanos(self.at(pair[0]).saturating_sub(since));
            let bytes = self.bytes.slice(pair[0]..pair[1]);
            pieces.push(Piece { after, bytes });
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_chunks_began() {
        let flow = Flow::new([(0, 10, b"abc".to_vec()), (3, 20, b"def".to_vec())], 6).unwrap();
        let pieces = flow.pieces(1..5, 8);
        let shown: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.after.as_nanos(), &piece.bytes[..]))
            .collect();
        assert_eq!(shown, [(2, &b"bc"[..]), (12, &b"de"[..])]);
        assert_eq!((flow.at(2), flow.at(3), flow.at(99)), (10, 20, 20));
        assert!(flow.pieces(2..2, 0).is_empty());
    }

    #[test]
    fn missing_bytes_are_known() {
        let flow = Flow::new([(0, 1, b"ab".to_vec()), (4, 2, b"ef".to_vec())], 8).unwrap();
        assert_eq!(&flow.bytes()[..], b"ab\0\0ef\0\0");
        assert!(flow.is_whole(0..2) && flow.is_whole(4..6));
        assert!(!flow.is_whole(1..3) && !flow.is_whole(5..7) && !flow.is_whole(0..8));
    }
}
