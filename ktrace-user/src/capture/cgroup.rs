//! Where to attach: the root of the cgroup v2 tree, wherever it is mounted, or a directory that the
//! user names.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, fstatfs, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where the tree is mounted: alone, or beside version 1.
const USUAL_MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A directory of the cgroup v2 tree, open for attaching.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) fd: OwnedFd,
    /// Where it is mounted; `None` where it was mounted by ourselves, out of sight.
    pub(super) path: Option<PathBuf>,
    /// Whether it is the root of the whole host and not only of a container.
    pub(super) whole_host: bool,
    /// Device and inode: another directory under the same path has others.
    pub(super) id: (u64, u64),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    #[error("{path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is not in a cgroup v2 tree")]
    NotCgroup2 { path: PathBuf },
    #[error("no cgroup v2 tree is mounted, and mounting one failed: {source}")]
    Mount { source: io::Error },
}

/// Opens the directory that the user named, or the root: the mount that shows most of the host, or
/// a mount of our own that no other process sees.
pub(super) fn open(named: Option<&Path>) -> Result<Cgroup, CgroupError> {
    if let Some(path) = named {
        let fd = open_directory(path)?;
        return if is_cgroup2(&fd) {
            Cgroup::new(fd, Some(path.to_owned()))
        } else {
            Err(CgroupError::NotCgroup2 { path: path.to_owned() })
        };
    }
    let table = fs::read_to_string("/proc/self/mountinfo");
    // Without /proc: where distributions mount it.
    let mounts = table.map_or_else(|_| USUAL_MOUNTS.map(PathBuf::from).to_vec(), |table| mounts(&table));
    let mut part = None;
    for path in mounts {
        match open_directory(&path).and_then(|fd| Cgroup::new(fd, Some(path))) {
            Ok(cgroup) if !is_cgroup2(&cgroup.fd) => {}
            Ok(cgroup) if cgroup.whole_host => return Ok(cgroup),
            Err(CgroupError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => part = part.or(Some(other)),
        }
    }
    if let Some(part) = part {
        return part;
    }
    let fd = mount_detached().map_err(|source| CgroupError::Mount { source })?;
    Cgroup::new(fd, None)
}

impl Cgroup {
    fn new(fd: OwnedFd, path: Option<PathBuf>) -> Result<Self, CgroupError> {
        let whole_host = is_root(&fd);
        let directory = File::from(fd);
        let metadata = directory
            .metadata()
            .map_err(|source| CgroupError::Open { path: path.clone().unwrap_or_default(), source })?;
        Ok(Self { whole_host, id: (metadata.dev(), metadata.ino()), fd: directory.into(), path })
    }

    /// Whether it has not been removed.
    pub(super) fn is_alive(&self) -> bool {
        has_file(&self.fd, "cgroup.procs")
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    File::open(path).map(OwnedFd::from).map_err(|source| CgroupError::Open { path: path.to_owned(), source })
}

/// Mount points of cgroup v2 in a mount table (proc_pid_mountinfo(5)), in its order.
fn mounts(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next() == Some("cgroup2"))
                .then(|| before.split(' ').nth(4).map(|path| PathBuf::from(unescape(path))))?
        })
        .collect()
}

/// The mount table writes space, tab, newline and backslash as octal numbers.
fn unescape(text: &str) -> String {
    ["\\040 ", "\\011\t", "\\012\n", "\\134\\"].iter().fold(text.to_owned(), |text, pair| {
        let (code, plain) = pair.split_at(4);
        text.replace(code, plain)
    })
}

/// Only the root of the hierarchy has no `cgroup.events`
/// (`Documentation/admin-guide/cgroup-v2.rst`, "exists on non-root cgroups").
pub(super) fn is_root(directory: &OwnedFd) -> bool {
    has_file(directory, "cgroup.controllers") && !has_file(directory, "cgroup.events")
}

fn has_file(directory: &OwnedFd, name: &str) -> bool {
    accessat(directory, name, Access::EXISTS, AtFlags::empty()).is_ok()
}

pub(super) fn is_cgroup2(directory: impl AsFd) -> bool {
    // The field's type differs between architectures; the number has 32 bits.
    fstatfs(directory).is_ok_and(|info| info.f_type as u32 == libc::CGROUP2_SUPER_MAGIC as u32)
}

/// Mounts the tree without a place in any file system: the mount lives as long as the descriptor,
/// so not even `kill -9` leaves it behind. Linux 5.2; needs CAP_SYS_ADMIN.
fn mount_detached() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::empty())?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::empty(), MountAttrFlags::empty())?;
    // The mount's own descriptor is a mere path; programs attach to a directory that was opened.
    Ok(openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn finds_cgroup2_in_mount_tables() {
        let hybrid = "\
25 21 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpu rw,relatime shared:11 - cgroup cgroup rw,cpu
99 25 0:23 / /mnt/with\\040space\\134 rw - cgroup2 none rw";
        assert_eq!(
            mounts(hybrid),
            [PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/mnt/with space\\")]
        );
        assert!(mounts("").is_empty());
        assert!(mounts("garbage\n - \n1 2 - cgroup2").is_empty());
    }

    #[test]
    fn named_directories_must_be_cgroups() {
        assert!(matches!(open(Some(Path::new("/nowhere"))), Err(CgroupError::Open { .. })));
        assert!(matches!(open(Some(Path::new("/proc"))), Err(CgroupError::NotCgroup2 { .. })));
    }

    #[test]
    fn a_mount_of_our_own_is_a_cgroup_root() {
        match mount_detached() {
            Ok(fd) => {
                assert!(is_cgroup2(&fd));
                let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(!table.contains(&format!("fd/{}", fd.as_raw_fd())));
            }
            Err(error) => println!("skipped: {error}"),
        }
    }
}
