//! A network namespace that the user names.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;

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

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {name}: {source}")]
pub struct NetnsError {
    name: String,
    source: io::Error,
}

impl Netns {
    /// By a path to it, a name below /run/netns (as `ip netns` gives them), or the number of a process in it.
    pub(super) fn open(name: &str) -> Result<Self, NetnsError> {
        Self::read(name).map_err(|source| NetnsError { name: name.to_owned(), source })
    }

    fn read(name: &str) -> io::Result<Self> {
        let path = if name.contains('/') {
            PathBuf::from(name)
        } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
            PathBuf::from(format!("/proc/{name}/ns/net"))
        } else {
            PathBuf::from(format!("/run/netns/{name}"))
        };
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        // A thread of its own: it ends in another namespace than it began in.
        let entered = thread::Builder::new().name("ktrace-netns".into()).spawn(move || cookie_in(&file))?;
        let cookie = entered.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { cookie, inode })
    }
}

/// Enters the namespace, for good, and asks a socket there.
fn cookie_in(namespace: &File) -> io::Result<u64> {
    // SAFETY: an open descriptor; only the calling thread changes its namespace.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
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
    fn names_that_are_none() {
        let error = Netns::open("no-such-namespace").unwrap_err();
        assert!(error.to_string().starts_with("network namespace no-such-namespace: "), "{error}");
    }
}
