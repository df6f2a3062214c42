//! A test's own directory, readable by other users too (tests run the agent as one), removed at the
//! end.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// `KTRACE_KEEP=1` leaves the directory and says where it is.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    pub fn new() -> Result<Self> {
        Self::below(&std::env::temp_dir())
    }

    /// In memory: for measurements, which a disk would blur.
    pub fn in_memory() -> Result<Self> {
        Self::below(Path::new("/dev/shm"))
    }

    fn below(parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ktrace-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)?;
        Ok(Self(Some(dir)))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// Leaves the directory when this value goes, and returns it.
    pub fn leave(mut self) -> PathBuf {
        self.0.take().map(TempDir::keep).unwrap_or_default()
    }

    /// A path in the directory; nothing is created.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("KTRACE_KEEP").is_some()
            && let Some(dir) = self.0.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}
