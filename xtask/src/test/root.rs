//! How tests get root, which programs in the kernel and network namespaces need.

use std::{
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

/// Where root's rights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// This process has them.
    Here,
    /// `sudo` gives them without a password.
    BySudo,
    /// They cannot be had.
    No,
}

impl Root {
    pub(crate) fn find() -> Self {
        if std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
            return Self::Here;
        }
        // -n: fails where it would ask.
        let asked = Command::new("sudo")
            .args(["-n", "-E", "true"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if asked.is_ok_and(|status| status.success()) {
            Self::BySudo
        } else {
            Self::No
        }
    }

    /// Has cargo start what it built as root; cargo itself and its files stay the user's.
    pub(crate) fn cargo_options(self) -> &'static [&'static str] {
        match self {
            Self::BySudo => &[
                "--config",
                r#"target."cfg(all())".runner = ["sudo", "-n", "-E", "--"]"#,
            ],
            Self::Here | Self::No => &[],
        }
    }
}
