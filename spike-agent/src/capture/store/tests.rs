//! Kept captures on a real disk: several readers, rotation, a full quota, a full disk, another agent.

use std::os::unix::fs::MetadataExt;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::*;
use crate::capture::pcapng::{Section, secrets, section};

/// A section's beginning, and `more` bytes of content.
fn begin(more: usize) -> Bytes {
    let mut out = BytesMut::new();
    let about = Section {
        hardware: "x",
        os: "y",
        application: "z",
    };
    section(&mut out, &about);
    secrets(&mut out, &vec![b'x'; more]);
    out.freeze()
}

async fn all(kept: &Arc<Kept>, follows: bool) -> Vec<u8> {
    let pieces: Vec<io::Result<Bytes>> = kept.read(follows).collect().await;
    pieces
        .into_iter()
        .flat_map(|piece| piece.unwrap().to_vec())
        .collect()
}

#[tokio::test]
async fn readers_have_all_of_it_whenever_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let (store, found) = Store::open(dir.path().join("captures"), 1 << 20);
    assert!(found.is_empty());
    let kept = store.create(store.new_id()).unwrap();
    let (bytes_tx, bytes) = mpsc::channel(4);
    kept.write(bytes, None).unwrap();
    let early = tokio::spawn({
        let kept = Arc::clone(&kept);
        async move { all(&kept, true).await }
    });
    let mut expected = Vec::new();
    for _ in 0..3 {
        let piece = begin(100_000);
        expected.extend_from_slice(&piece);
        bytes_tx.send(piece).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let late = tokio::spawn({
        let kept = Arc::clone(&kept);
        async move { all(&kept, true).await }
    });
    drop(bytes_tx);
    assert!(early.await.unwrap() == expected && late.await.unwrap() == expected);
    assert_eq!(all(&kept, false).await, expected);
    assert_eq!(kept.size(), (expected.len() as u64, 3));
    assert!(kept.is_over() && kept.error().is_none());
    for entry in std::fs::read_dir(kept.directory()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn of_too_many_files_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path().to_owned(), 1 << 20);
    let kept = store.create(store.new_id()).unwrap();
    let (bytes_tx, bytes) = mpsc::channel(4);
    kept.write(bytes, Some(2)).unwrap();
    let pieces: Vec<Bytes> = (1..6).map(|n| begin(1000 * n)).collect();
    for piece in &pieces {
        bytes_tx.send(piece.clone()).await.unwrap();
    }
    drop(bytes_tx);
    kept.ended().await;
    let expected = [&pieces[3][..], &pieces[4]].concat();
    assert_eq!(all(&kept, true).await, expected);
    assert_eq!(store.used.load(Ordering::Relaxed), expected.len() as u64);
    kept.remove();
    assert_eq!(store.used.load(Ordering::Relaxed), 0);
    assert!(!kept.directory().exists());
}

#[tokio::test]
async fn the_quota_ends_a_capture_and_what_it_took_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path().to_owned(), 5000);
    let kept = store.create(store.new_id()).unwrap();
    let (bytes_tx, bytes) = mpsc::channel(1);
    kept.write(bytes, None).unwrap();
    let first = begin(4000);
    bytes_tx.send(first.clone()).await.unwrap();
    let _ = bytes_tx.send(begin(4000)).await;
    bytes_tx.closed().await;
    assert_eq!(all(&kept, true).await, first);
    let error = kept.error().unwrap();
    assert!(
        error.contains("of 5000 bytes") && error.contains("--capture-quota"),
        "{error}"
    );
    let kept = store.create(store.new_id()).unwrap();
    let (bytes_tx, bytes) = mpsc::channel(1);
    kept.write(bytes, None).unwrap();
    bytes_tx.send(begin(4000)).await.unwrap();
    bytes_tx.closed().await;
    assert!(kept.error().is_some());
}

#[tokio::test]
async fn another_agent_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path().to_owned(), 1 << 20);
    let kept = store.create(store.new_id()).unwrap();
    let (bytes_tx, bytes) = mpsc::channel(1);
    kept.write(bytes, None).unwrap();
    let piece = begin(100);
    bytes_tx.send(piece.clone()).await.unwrap();
    bytes_tx.send(piece.clone()).await.unwrap();
    kept.describe(b"{}");
    let id = kept.id().to_owned();
    drop(bytes_tx);
    let expected = [&piece[..], &piece].concat();
    assert_eq!(all(&kept, true).await, expected);

    let (store, found) = Store::open(dir.path().to_owned(), 1 << 20);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id(), found[0].is_over()), (&*id, true));
    assert_eq!(found[0].description().as_deref(), Some(&b"{}"[..]));
    assert_eq!(all(&found[0], true).await, expected);
    assert_ne!(store.new_id(), id);
}
