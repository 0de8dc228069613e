//! The secret that a change by TCP must show; only who may read its file knows it.

use std::{
    fmt::Write as _,
    fs::{DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use subtle::ConstantTimeEq;

/// A bearer token and the file that it was written to, which goes with the last clone.
#[derive(Clone)]
pub(super) struct Token(Arc<Written>);

struct Written {
    secret: String,
    path: PathBuf,
}

impl Token {
    /// Makes a token of 32 random bytes and writes it to `state_dir`, readable by the agent's user alone.
    pub(super) fn create(state_dir: &Path) -> Result<Self> {
        let mut random = [0_u8; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("get random bytes")?;
        let secret = random.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let path = state_dir.join("token");
        write_private(&path, &secret)
            .with_context(|| format!("write the API's token to {}", path.display()))?;
        Ok(Self(Arc::new(Written { secret, path })))
    }

    /// Compares in a time that does not tell how much was right.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.secret.as_bytes().ct_eq(given).into()
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    #[cfg(test)]
    pub(super) fn secret(&self) -> &str {
        &self.0.secret
    }
}

/// Replaces whatever is at `path` by a new file, so that no one holds an older, laxer one open.
fn write_private(path: &Path, secret: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    writeln!(file, "{secret}")?;
    std::fs::rename(&fresh, path)
}

impl Drop for Written {
    fn drop(&mut self) {
        // Another agent may have written its own since; that one is not ours to remove.
        let is_ours = std::fs::read_to_string(&self.path).is_ok_and(|text| text.trim_end() == self.secret);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_private_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        std::fs::write(state_dir.join("token"), "old").unwrap();
        let token = Token::create(&state_dir).unwrap();
        let metadata = std::fs::metadata(token.path()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(token.path()).unwrap();
        assert_eq!(text.trim_end().len(), 64);
        assert!(token.is(text.trim_end().as_bytes()) && !token.is(b"") && !token.is(text.as_bytes()));
        let path = token.path().to_owned();
        drop(token);
        assert!(!path.exists());
    }
}
