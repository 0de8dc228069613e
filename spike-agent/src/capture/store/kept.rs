//! One kept capture: the files that it is written to, and what is known of it when it is found again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{SUFFIX, Store, StoreError, create_file};
use crate::capture::pcapng::SECTION_HEADER;

/// What describes a capture, beside its files.
const DESCRIPTION: &str = "capture.json";

/// A capture on the disk.
#[derive(Debug)]
pub struct Kept {
    id: String,
    dir: PathBuf,
    store: Arc<Store>,
    state: Mutex<State>,
    /// Told of each change.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    files: VecDeque<Piece>,
    is_over: bool,
    error: Option<String>,
    is_removed: bool,
}

/// One file of a capture.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) number: u64,
    /// Bytes that may be read.
    pub(super) size: u64,
    pub(super) path: PathBuf,
}

impl Kept {
    pub(super) fn new(store: &Arc<Store>, id: String) -> Arc<Self> {
        Arc::new(Self {
            dir: store.dir.join(&id),
            id,
            store: Arc::clone(store),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// One that an earlier agent left: what is on the disk is all there is.
    pub(super) fn found(store: &Arc<Store>, id: String) -> Arc<Self> {
        let kept = Self::new(store, id);
        let mut state = kept.lock();
        state.is_over = true;
        for entry in std::fs::read_dir(&kept.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_ours = path.extension().is_some_and(|suffix| suffix == SUFFIX);
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let (true, Some(number), Ok(metadata)) = (is_ours, number, entry.metadata()) {
                let size = metadata.len();
                state.files.push_back(Piece { number, size, path });
                store.grew(size);
            }
        }
        state.files.make_contiguous().sort_by_key(|piece| piece.number);
        drop(state);
        kept
    }

    /// Names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes on the disk, and how many files they are in.
    pub fn size(&self) -> (u64, u64) {
        let state = self.lock();
        (
            state.files.iter().map(|piece| piece.size).sum(),
            state.files.len() as u64,
        )
    }

    /// Whether nothing more is written.
    pub fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Why it could not go on.
    pub fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// Keeps a description beside the files; the last one counts.
    pub fn describe(&self, text: &[u8]) {
        if self.lock().is_removed {
            return;
        }
        let new = self.dir.join("capture.json.new");
        let _ = std::fs::remove_file(&new);
        let written = create_file(&new)
            .and_then(|mut file| file.write_all(text))
            .and_then(|()| std::fs::rename(&new, self.dir.join(DESCRIPTION)));
        if let Err(error) = written {
            tracing::warn!(capture = self.id, "describe the capture: {error}");
        }
    }

    /// The description.
    pub fn description(&self) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join(DESCRIPTION)).ok()
    }

    /// Writes what comes, on a thread of its own, until there is no more or it cannot be written; then `bytes` is
    /// dropped. Of more than `most` files the oldest goes.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn write(
        self: &Arc<Self>,
        mut bytes: mpsc::Receiver<Bytes>,
        most: Option<u32>,
    ) -> std::io::Result<()> {
        let kept = Arc::clone(self);
        let write = move || {
            let mut file = None;
            while let Some(piece) = bytes.blocking_recv() {
                if let Err(error) = kept.append(&mut file, &piece, most) {
                    if let StoreError::Removed = error {
                        break;
                    }
                    tracing::warn!(capture = kept.id, "the capture ends: {error}");
                    kept.lock().error = Some(error.to_string());
                    break;
                }
                kept.changed.send_replace(());
            }
            drop(bytes);
            kept.lock().is_over = true;
            kept.changed.send_replace(());
        };
        std::thread::Builder::new()
            .name("spike-capture".to_owned())
            .spawn(write)
            .map(drop)
    }

    fn append(&self, file: &mut Option<File>, piece: &[u8], most: Option<u32>) -> Result<(), StoreError> {
        let begins = piece.starts_with(&SECTION_HEADER.to_le_bytes());
        if begins || file.is_none() {
            *file = Some(self.next_file(most)?);
        }
        let Some(file) = file else { return Ok(()) };
        self.store.room_for(piece.len() as u64)?;
        let mut state = self.lock();
        if state.is_removed {
            return Err(StoreError::Removed);
        }
        let Some(last) = state.files.back_mut() else {
            return Ok(());
        };
        let path = last.path.clone();
        if let Err(error) = file.write_all(piece) {
            // What is there has to end with a whole block.
            let _ = file.set_len(last.size);
            return Err(StoreError::disk("write to", &path)(error));
        }
        last.size += piece.len() as u64;
        self.store.grew(piece.len() as u64);
        Ok(())
    }

    fn next_file(&self, most: Option<u32>) -> Result<File, StoreError> {
        let mut state = self.lock();
        if state.is_removed {
            return Err(StoreError::Removed);
        }
        while most.is_some_and(|most| state.files.len() >= most as usize)
            && let Some(oldest) = state.files.pop_front()
        {
            self.delete(&oldest);
        }
        let number = state.files.back().map_or(1, |last| last.number + 1);
        let path = self.dir.join(format!("{number:06}.{SUFFIX}"));
        let file = create_file(&path).map_err(StoreError::disk("create", &path))?;
        state.files.push_back(Piece {
            number,
            size: 0,
            path,
        });
        Ok(file)
    }

    fn delete(&self, piece: &Piece) {
        if let Err(error) = std::fs::remove_file(&piece.path) {
            tracing::warn!("remove {}: {error}", piece.path.display());
        }
        self.store.shrank(piece.size);
    }

    /// Removes it from the disk. Who reads a file of it may read that to its end.
    pub fn remove(&self) {
        let mut state = self.lock();
        for piece in std::mem::take(&mut state.files) {
            self.delete(&piece);
        }
        state.is_removed = true;
        for name in [DESCRIPTION, "capture.json.new"] {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
        let _ = std::fs::remove_dir(&self.dir);
    }

    /// The first file that comes after this number, and whether there will be no other.
    pub(super) fn after(&self, number: u64) -> (Option<Piece>, bool) {
        let state = self.lock();
        let next = state.files.iter().find(|piece| piece.number > number).cloned();
        (next, state.is_over || state.is_removed)
    }

    /// How much of a file may be read by now, and whether it will grow.
    pub(super) fn readable(&self, number: u64, known: u64) -> (u64, bool) {
        let state = self.lock();
        let piece = state.files.iter().find(|piece| piece.number == number);
        let is_last = state.files.back().is_some_and(|last| last.number == number);
        let size = piece.map_or(known, |piece| piece.size);
        (size, is_last && !state.is_over && !state.is_removed)
    }

    /// Waits until nothing more is written.
    pub async fn ended(&self) {
        let mut changed = self.subscribe();
        while !self.is_over() {
            // The sender lives as long as this.
            let _ = changed.changed().await;
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
