//! Flips bits, which finds readers that trust what they get. TCP's checksum does not see it: it is made anew.
//!
//! Which bits comes from the seed and the position in the direction, and not from how the bytes happened to arrive.

use bytes::{Bytes, BytesMut};
use spike_common::chance;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::stage::{Chunk, Content, Next, receive};

/// Flips one bit of some bytes.
#[derive(Debug)]
pub struct Corrupt {
    /// Share of the bytes in percent.
    pub share: f64,
    /// Of this connection and direction.
    pub seed: u64,
}

impl Corrupt {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        loop {
            let mut chunk = match receive(chunk_rx, interrupt).await {
                Ok(chunk) => chunk,
                Err(next) => return next,
            };
            if let Content::Bytes(bytes) = chunk.content {
                chunk.content = Content::Bytes(self.corrupted(bytes, chunk.position));
            }
            let has_more = chunk.has_more();
            if chunk_tx.send(chunk.go_on()).await.is_err() || !has_more {
                return Next::Over;
            }
        }
    }

    fn corrupted(&self, bytes: Bytes, position: u64) -> Bytes {
        let threshold = chance::threshold(self.share);
        let mut bytes = BytesMut::from(bytes);
        for (place, byte) in (position..).zip(bytes.iter_mut()) {
            if chance::chosen(self.seed, place, threshold) {
                *byte ^= 1 << (chance::roll(!self.seed, place) >> 29);
            }
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_only_one_bit_flips() {
        let corrupt = Corrupt { share: 2.0, seed: 9 };
        let zeroes = Bytes::from(vec![0; 100_000]);
        let whole = corrupt.corrupted(zeroes.clone(), 0);
        let flipped = whole.iter().filter(|byte| **byte != 0).count();
        // 2,000 ± 5 standard deviations.
        assert!((1779..=2221).contains(&flipped), "{flipped}");
        assert!(whole.iter().all(|byte| byte.count_ones() <= 1));
        let bits = whole.iter().fold(0, |bits, byte| bits | byte);
        assert_eq!(bits, 0xff);
        let in_pieces: Vec<u8> = (0..1000)
            .flat_map(|piece| corrupt.corrupted(zeroes.slice(..100), piece * 100))
            .collect();
        assert_eq!(whole, in_pieces);
    }
}
