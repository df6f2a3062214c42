//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The repository's root.
pub(super) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The repository's files with their text, by their paths from its root. What git ignores is left
/// out, and what is not UTF-8.
pub(super) fn sources(takes: impl Fn(&Path) -> bool) -> Result<Vec<(PathBuf, String)>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("needs git")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout)?;
    let mut paths: Vec<PathBuf> = list.split_terminator('\0').map(PathBuf::from).collect();
    paths.sort();
    // A file in conflict is listed once a side.
    paths.dedup();
    paths.retain(|path| takes(path));
    let read = |path: PathBuf| {
        // One that was deleted is listed until that is staged.
        let text = String::from_utf8(fs::read(root().join(&path)).ok()?).ok()?;
        Some((path, text))
    };
    Ok(paths.into_iter().filter_map(read).collect())
}

pub(super) fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|is| is == extension)
}
