//! Cuts a capture into files where its sections begin, and keeps the newest.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use tokio::{fs::File, io::AsyncWriteExt};

use super::create;
use crate::capture::blocks::Blocks;

/// Files `out-000001.pcapng`, `out-000002.pcapng` and so on for an output `out.pcapng`.
pub(super) struct Files {
    output: PathBuf,
    most: Option<u32>,
    blocks: Blocks,
    current: Option<File>,
    written: VecDeque<PathBuf>,
    number: u64,
}

impl Files {
    /// Of more than `most` files the oldest is removed.
    pub(super) fn new(output: PathBuf, most: Option<u32>) -> Self {
        Self {
            output,
            most,
            blocks: Blocks::default(),
            current: None,
            written: VecDeque::new(),
            number: 0,
        }
    }

    pub(super) async fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.blocks.push(piece);
        let mut whole = Vec::with_capacity(piece.len());
        while let Some(block) = self.blocks.next_block().map_err(io::Error::other)? {
            if block.begins_section() {
                self.write(&mut whole).await?;
                self.next_file().await?;
            }
            whole.extend_from_slice(&block.bytes);
        }
        self.write(&mut whole).await
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(file) => file.flush().await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, whole: &mut Vec<u8>) -> io::Result<()> {
        if let Some(file) = &mut self.current {
            file.write_all(whole).await?;
        }
        whole.clear();
        Ok(())
    }

    async fn next_file(&mut self) -> io::Result<()> {
        self.flush().await?;
        while self.most.is_some_and(|most| self.written.len() >= most as usize)
            && let Some(oldest) = self.written.pop_front()
        {
            // Somebody may have moved it away.
            let _ = std::fs::remove_file(oldest);
        }
        self.number += 1;
        let path = numbered(&self.output, self.number);
        self.current = Some(create(&path)?);
        self.written.push_back(path);
        Ok(())
    }
}

fn numbered(output: &Path, number: u64) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let suffix = output.extension().map(|suffix| suffix.to_string_lossy());
    let name = match suffix {
        Some(suffix) => format!("{stem}-{number:06}.{suffix}"),
        None => format!("{stem}-{number:06}"),
    };
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_before_their_suffix() {
        for (output, expected) in [
            ("/tmp/a.pcapng", "/tmp/a-000007.pcapng"),
            ("a", "a-000007"),
            ("b.c/a.b.pcapng", "b.c/a.b-000007.pcapng"),
        ] {
            assert_eq!(numbered(Path::new(output), 7), Path::new(expected));
        }
    }
}
