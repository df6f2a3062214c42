//! The executables and libraries that a process has mapped.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Of a list of mappings: JVMs with large heaps have some thousand lines.
const MOST_BYTES: u64 = 16 << 20;

/// A file as it is: another with the same inode number comes at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// Opens each file that the process has mapped to be executed, by its own view of the file system.
/// What cannot be opened is left out.
pub(super) fn executables(pid: u32) -> io::Result<Vec<(Identity, File)>> {
    let maps = File::open(format!("/proc/{pid}/maps"))?;
    let mut files: Vec<_> = paths(maps).into_iter().filter_map(|path| open(&within(pid, &path))).collect();
    // The executable by itself: it may have been replaced meanwhile.
    files.extend(open(Path::new(&format!("/proc/{pid}/exe"))));
    let mut seen = HashSet::new();
    files.retain(|(identity, _)| seen.insert(*identity));
    Ok(files)
}

fn within(pid: u32, path: &Path) -> PathBuf {
    let mut whole = PathBuf::from(format!("/proc/{pid}/root")).into_os_string();
    whole.push(path);
    whole.into()
}

/// A regular file, for reading alone. Whatever else lies there does not keep us.
fn open(path: &Path) -> Option<(Identity, File)> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let changed = (meta.ctime(), meta.ctime_nsec());
    let identity = Identity { device: meta.dev(), inode: meta.ino(), changed, size: meta.size() };
    meta.is_file().then_some((identity, file))
}

/// Paths of files in a list of mappings (`/proc/PID/maps`) that may be executed, each once, as far
/// as they still have that path.
fn paths(maps: impl io::Read) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    // A line that is not whole ends it.
    for line in BufReader::new(maps.take(MOST_BYTES)).split(b'\n').map_while(Result::ok) {
        if let Some(path) = path(&line)
            && paths.last().is_none_or(|last| last != path)
        {
            paths.push(path.to_owned());
        }
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// `00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon`
fn path(line: &[u8]) -> Option<&Path> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    let inode = fields.nth(2)?;
    let path = fields.next()?.trim_ascii_start();
    let file = permissions.get(2) == Some(&b'x') && inode != b"0" && path.starts_with(b"/");
    let there = !path.ends_with(b" (deleted)") && !path.contains(&b'\\');
    (file && there).then(|| Path::new(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_executed() {
        let maps = b"\
00400000-00452000 r--p 00000000 08:02 173521                             /usr/bin/with data alone
00651000-00652000 r-xp 00051000 08:02 173521                             /usr/bin/a program
00652000-00655000 rwxp 00052000 08:02 173522                             /usr/lib/z.so
00652000-00655000 r-xp 00052000 08:02 173521                             /usr/bin/a program
7f0000000000-7f0000021000 rwxp 00000000 00:00 0 
7f0000000000-7f0000021000 r-xp 00000000 00:00 0                          [vdso]
7f0000000000-7f0000021000 r-xp 00000000 08:02 9                          /usr/lib/old.so (deleted)
7f0000000000-7f0000021000 r-xp 00000000 08:02 9                          anon_inode:[perf_event]
7f0000000000-7f0000021000 r-xp
garbage
\xff\xff \xff\xff \xff";
        let found = paths(&maps[..]);
        assert_eq!(found, [Path::new("/usr/bin/a program"), Path::new("/usr/lib/z.so")]);
    }

    #[test]
    fn our_own() {
        let own = std::env::current_exe().unwrap().metadata().unwrap().ino();
        let files = executables(std::process::id()).unwrap();
        assert_eq!(files.iter().filter(|(identity, _)| identity.inode == own).count(), 1);
        assert!(executables(u32::MAX).is_err());
    }
}
