//! Reads a kept capture from its beginning, and on while it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;

use super::Kept;
use super::kept::Piece;

/// So much is read at once.
const CHUNK: u64 = 256 * 1024;

struct Reader {
    kept: Arc<Kept>,
    changed: watch::Receiver<()>,
    /// Waits for more.
    follows: bool,
    /// The number of the last file that was begun.
    number: u64,
    file: Option<(Arc<File>, Piece, u64)>,
}

impl Kept {
    /// The capture's files, oldest first, one after the other: a pcapng file with a section for each. With `follows` the
    /// stream ends with the capture, else with what is there.
    pub fn read(self: &Arc<Self>, follows: bool) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let reader = Reader {
            kept: Arc::clone(self),
            changed: self.subscribe(),
            follows,
            number: 0,
            file: None,
        };
        futures_util::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Before the look, so that no change after it is missed.
            self.changed.borrow_and_update();
            let Some((file, piece, position)) = &mut self.file else {
                let (next, is_last) = self.kept.after(self.number);
                match next {
                    Some(piece) => self.open(piece)?,
                    None if is_last || !self.follows => return Ok(None),
                    None => self.wait().await,
                }
                continue;
            };
            let (size, grows) = self.kept.readable(piece.number, piece.size);
            piece.size = size;
            if *position < size {
                let (file, from) = (Arc::clone(file), *position);
                let length = (size - from).min(CHUNK);
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; length as usize];
                    file.read_exact_at(&mut buffer, from).map(|()| buffer)
                });
                let buffer = read.await.map_err(io::Error::other)??;
                *position += length;
                return Ok(Some(buffer.into()));
            }
            match (grows, self.follows) {
                (true, true) => self.wait().await,
                _ => self.file = None,
            }
        }
    }

    fn open(&mut self, piece: Piece) -> io::Result<()> {
        self.number = piece.number;
        match File::open(&piece.path) {
            Ok(file) => self.file = Some((Arc::new(file), piece, 0)),
            // It had to make room in the moment between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn wait(&mut self) {
        // The sender lives as long as the capture that is held here.
        let _ = self.changed.changed().await;
    }
}
