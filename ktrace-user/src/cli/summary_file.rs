//! The file that `--summary` names: opened when the run begins, written when it ends.
//!
//! An agent runs as root, and anyone may write to `/tmp`. So neither a link nor a file that another
//! user has put into a directory that others can write to is taken for the file that is meant, as
//! Linux does it for `O_CREAT` where `fs.protected_symlinks` and `fs.protected_regular` are set.
//! Links elsewhere are followed: `/dev/stdout` is one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::Failure;
use crate::export;
use crate::summary::Summary;

/// Who may write into a directory beside its owner.
const OTHERS_WRITE: u32 = 0o022;

/// An open summary file; without a path, nothing is written.
pub struct SummaryFile {
    open: Option<(PathBuf, File)>,
}

impl SummaryFile {
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { open: None }) };
        match open(path) {
            Ok(file) => Ok(Self { open: Some((path.to_owned(), file)) }),
            Err(error) => Err(unwritable(path, &error)),
        }
    }

    /// # Errors
    /// [`Failure::Failed`] where the file cannot be written.
    pub fn write(self, summary: &Summary) -> Result<(), Failure> {
        let Some((path, mut file)) = self.open else { return Ok(()) };
        let text = export::json(summary).map_err(|error| Failure::failed(error, "report this"))?;
        // What is no regular file has no length to set.
        // Nor is what was printed to be emptied, where /dev/stdout is a file.
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file() && !is_output(&metadata));
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        emptied
            .and_then(|()| file.write_all((text + "\n").as_bytes()))
            .and_then(|()| file.flush())
            .map_err(|error| unwritable(&path, &error))
    }
}

/// Whether it is the file of standard output or standard error.
fn is_output(metadata: &Metadata) -> bool {
    ["/dev/stdout", "/dev/stderr"].iter().any(|output| {
        fs::metadata(output)
            .is_ok_and(|output| (output.dev(), output.ino()) == (metadata.dev(), metadata.ino()))
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let what = format_args!("cannot write summary {}: {error}", path.display());
    Failure::failed(what, "check the path given with --summary")
}

fn open(path: &Path) -> io::Result<File> {
    let mut follow = false;
    // From the root down, as the kernel goes.
    let whole: Vec<_> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    for part in whole.into_iter().rev() {
        let Ok(link) = part.symlink_metadata() else { break };
        let Some(directory) = parent(part).and_then(|parent| parent.metadata().ok()) else { continue };
        let is_link = link.is_symlink();
        if part == path {
            follow = is_link;
        }
        if (is_link || (part == path && !link.is_dir())) && is_of_another(&link, &directory) {
            let what = format!("{} was put there by another user", part.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    let flags = if follow { 0 } else { libc::O_NOFOLLOW };
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}

fn parent(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Whether neither this user nor the directory's owner has put it into a directory that others can
/// write to.
fn is_of_another(found: &Metadata, directory: &Metadata) -> bool {
    let own = geteuid().as_raw();
    directory.mode() & OTHERS_WRITE != 0 && found.uid() != own && found.uid() != directory.uid()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::*;

    fn written(path: &Path) -> Result<(), Failure> {
        SummaryFile::open(Some(path))?.write(&Summary::default())
    }

    #[test]
    fn links_of_others_are_not_followed() {
        let base = std::env::temp_dir().join(format!("ktrace-summary-{}", std::process::id()));
        let (shared, target) = (base.join("shared"), base.join("target"));
        fs::create_dir_all(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(&target, "precious, and longer than it was").unwrap();
        let (link, new) = (shared.join("link"), shared.join("new"));
        symlink(&target, &link).unwrap();
        symlink(&base, shared.join("directory")).unwrap();
        // Its own it may follow, and what is there before is gone.
        written(&link).unwrap();
        written(&new).unwrap();
        written(&new).unwrap();
        let text = fs::read_to_string(&target).unwrap();
        assert!(text.starts_with('{') && text == fs::read_to_string(&new).unwrap(), "{text}");
        if geteuid().is_root() {
            const NOBODY: Option<u32> = Some(65534);
            for of_another in [&link, &shared.join("directory"), &new] {
                lchown(of_another, NOBODY, NOBODY).unwrap();
            }
            // The directory is not this user's either, as /tmp is root's.
            for refused in [&link, &new, &shared.join("directory").join("target")] {
                assert!(matches!(written(refused), Err(Failure::Failed { .. })), "{}", refused.display());
            }
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        } else {
            eprintln!("skipped: links of another user need root");
        }
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn what_is_no_file_is_written_all_the_same() {
        written(Path::new("/dev/null")).unwrap();
        assert!(written(Path::new("/dev/full")).is_err() && written(Path::new("/nowhere/s.json")).is_err());
    }
}
