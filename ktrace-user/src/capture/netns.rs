//! A network namespace that the user names.
#![expect(unsafe_code, reason = "SO_NETNS_COOKIE, which rustix does not have")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::pidfd::WatchedProcess;

/// `SO_NETNS_COOKIE` of `include/uapi/asm-generic/socket.h`, Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// As the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Netns {
    /// The same as `bpf_get_netns_cookie` gives.
    pub(super) cookie: u64,
    /// Of its file in /proc.
    pub(super) inode: u64,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {name}: {source}")]
pub struct NetnsError {
    name: String,
    source: io::Error,
}

impl NetnsError {
    /// There is none of that name.
    pub(super) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl Netns {
    /// By a path to it, a name below /run/netns (as `ip netns` gives them), or the number of a
    /// process in it.
    pub(super) fn open(name: &str) -> Result<Self, NetnsError> {
        Self::read(name).map_err(|source| NetnsError { name: name.to_owned(), source })
    }

    fn read(name: &str) -> io::Result<Self> {
        let file = File::open(path_of(name))?;
        let inode = file.metadata()?.ino();
        // A thread of its own: it ends in another namespace than it began in.
        let entered = thread::Builder::new().name("ktrace-netns".into()).spawn(move || cookie_in(&file))?;
        let cookie = entered.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { cookie, inode })
    }
}

fn path_of(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else if let Some(pid) = pid_of(name) {
        PathBuf::from(format!("/proc/{pid}/ns/net"))
    } else {
        PathBuf::from(format!("/run/netns/{name}"))
    }
}

fn pid_of(name: &str) -> Option<u32> {
    name.parse().ok().filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What the user has named the namespace by. It is not held open: that would keep the namespace and
/// its links alive.
#[derive(Debug)]
pub struct NetnsName {
    name: String,
    /// The process, where it was named by one.
    process: Option<WatchedProcess>,
    /// Device and inode of its file, else.
    file: Option<(u64, u64)>,
}

impl NetnsName {
    /// As it stands now.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let process = pid_of(name).and_then(|pid| WatchedProcess::open(pid).ok());
        let file = fs::metadata(path_of(name)).ok().map(|file| (file.dev(), file.ino()));
        Self { name: name.to_owned(), process, file }
    }

    /// A line that says so, where the name no longer stands for the namespace that it stood for.
    #[must_use]
    pub fn change(&self) -> Option<String> {
        let goes_on = "connections in the namespace that it was at the start are captured as long as there \
        are any, and no others";
        if let Some(process) = &self.process {
            let has_ended = process.ends_within(Duration::ZERO);
            return has_ended
                .then(|| format!("process {}, named by --netns, has ended: {goes_on}", self.name));
        }
        let is_other = match fs::metadata(path_of(&self.name)) {
            Ok(file) => self.file.is_some_and(|known| known != (file.dev(), file.ino())),
            // Any other error says nothing of the namespace: capabilities may have been dropped
            // meanwhile.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        is_other.then(|| format!("network namespace {} was removed or made again: {goes_on}", self.name))
    }
}

/// Enters the namespace, for good, and asks a socket there.
fn cookie_in(namespace: &File) -> io::Result<u64> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: an open descriptor and a place for eight bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_to_stand_for_another_one() {
        let path = std::env::temp_dir().join(format!("ktrace-netns-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        let name = NetnsName::new(path.to_str().unwrap());
        assert_eq!(name.change(), None);
        // both are there at once, so the second has another inode
        let other = path.with_extension("other");
        fs::write(&other, "").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(name.change().unwrap().contains("made again"));
        fs::remove_file(&path).unwrap();
        assert!(name.change().is_some());
    }

    #[test]
    fn names_that_are_none() {
        let error = Netns::open("no-such-namespace").unwrap_err();
        assert!(error.to_string().starts_with("network namespace no-such-namespace: "), "{error}");
    }
}
