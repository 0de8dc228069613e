//! Binds the socket's file and takes it away again.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};

use super::Peer;

/// A listening socket; its file goes with it.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Tells our file from one that another agent put in its place.
    inode: u64,
}

impl Socket {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let shown = path.display();
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.with_context(|| format!("create the directory {}", parent.display()))?;
        }
        check_free(path)?;
        // The socket appears under its name only when nobody but its group can connect to it.
        let hidden = hidden_name(path)?;
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).with_context(|| format!("bind the socket {shown}"))?;
        let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o660))
            .and_then(|()| fs::metadata(&hidden))
            .and_then(|metadata| fs::rename(&hidden, path).map(|()| metadata.ino()));
        let inode = placed.inspect_err(|_| drop(fs::remove_file(&hidden)));
        let inode = inode.with_context(|| format!("put the socket at {shown}"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }
}

/// A short name beside `path`: Unix socket addresses hold 107 bytes.
fn hidden_name(path: &Path) -> Result<PathBuf> {
    let hidden = path.with_file_name(format!(".s{:x}", std::process::id()));
    for name in [&hidden, &path.to_owned()] {
        let length = name.as_os_str().len();
        if length > 107 {
            bail!(
                "the socket path {} is too long: {length} bytes, at most 107; choose another with --socket",
                name.display()
            );
        }
    }
    Ok(hidden)
}

/// Is there nothing at `path`, or a socket that nobody answers on?
fn check_free(path: &Path) -> Result<()> {
    let shown = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
    };
    if !metadata.file_type().is_socket() {
        bail!("{shown} is there and is not a socket; remove it or choose another path with --socket");
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => bail!("another agent answers at {shown}; stop it first"),
        Err(error) => {
            Err(error).with_context(|| format!("find out whether another agent answers at {shown}"))
        }
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        let peer = Peer::of(&stream, &self.path);
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/s.sock");
        let first = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = Socket::bind(&path).err().unwrap().to_string();
        assert!(error.contains("another agent answers"), "{error}");
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());

        fs::write(&path, "x").unwrap();
        assert!(
            Socket::bind(&path)
                .err()
                .unwrap()
                .to_string()
                .contains("not a socket")
        );
        assert!(path.exists());
    }
}
