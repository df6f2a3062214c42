//! Kafka sockets that are there already, and the processes that hold them: for connections older than the agent, and for those whose owner
//! the kernel side could not tell.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use super::Ends;
use super::netlink::{Socket, each_tcp_socket};

/// A client's end of a connection to a Kafka port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cookie: u64,
    pub(super) ends: Ends,
    /// The inode of its network namespace.
    pub(super) netns: u64,
    /// A process that holds the socket, by the agent's view of /proc; `None` where none was found (gone, or not to be seen).
    pub(super) pid: Option<u32>,
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The inode of its network namespace.
    pub(super) netns: u64,
    /// See [`Found::pid`].
    pub(super) pid: Option<u32>,
}

/// Lists the sockets of all network namespaces that the agent may enter (CAP_SYS_ADMIN for others than its own), and finds their processes
/// through the descriptors in /proc (CAP_SYS_PTRACE for those of other users).
///
/// Takes about a second on a host with a million descriptors; nothing is looked up if no socket is `wanted`.
pub(super) fn find(wanted: impl Fn(&Socket) -> bool + Sync) -> io::Result<Vec<Found>> {
    let sockets = in_all_namespaces(usize::MAX, |netns, socket| wanted(&socket).then_some((netns, socket)))?;
    let inodes = sockets.iter().map(|(_, socket)| socket.inode).filter(|inode| *inode != 0).collect();
    let holders = holders(inodes);
    Ok(sockets
        .into_iter()
        .map(|(netns, socket)| Found {
            cookie: socket.cookie,
            ends: Ends { client: socket.local, broker: socket.remote },
            netns,
            pid: holders.get(&socket.inode).copied(),
        })
        .collect())
}

/// The same by cookie, with little kept of each, and of no more than `most` sockets.
pub(super) fn find_holders(
    most: usize,
    wanted: impl Fn(&Socket) -> bool + Sync,
) -> io::Result<HashMap<u64, Holder>> {
    let sockets = in_all_namespaces(most, |netns, socket| {
        wanted(&socket).then_some((socket.cookie, netns, socket.inode))
    })?;
    let holders = holders(sockets.iter().map(|(.., inode)| *inode).filter(|inode| *inode != 0).collect());
    let of = |(cookie, netns, inode)| (cookie, Holder { netns, pid: holders.get(&inode).copied() });
    Ok(sockets.into_iter().map(of).collect())
}

/// What is kept of each socket, given the inode of its namespace; of `most` at most.
fn in_all_namespaces<T: Send>(
    most: usize,
    keep: impl Fn(u64, Socket) -> Option<T> + Sync,
) -> io::Result<Vec<T>> {
    let own = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let list = |name: &Path, kept: &mut Vec<T>| {
        let netns = inode(name);
        each_tcp_socket(&mut |socket| {
            if kept.len() < most {
                kept.extend(keep(netns, socket));
            }
        })
    };
    let mut sockets = Vec::new();
    list(&own, &mut sockets)?;
    let others = namespaces(&own);
    if others.is_empty() {
        return Ok(sockets);
    }
    // A thread of its own: it ends in another namespace than it began in.
    thread::scope(|scope| {
        let enter = || {
            for (name, path) in others {
                let Ok(namespace) = File::open(&path) else { continue };
                // SAFETY: an open descriptor; only this thread changes its namespace.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
                    // One that cannot be listed has none that could be found.
                    drop(list(&name, &mut sockets));
                } else {
                    let error = io::Error::last_os_error();
                    tracing::debug!(path = %path.display(), %error, "cannot list the sockets of a network namespace");
                }
            }
        };
        let entered = thread::Builder::new().name("ktrace-netns".into()).spawn_scoped(scope, enter)?;
        drop(entered.join());
        io::Result::Ok(())
    })?;
    Ok(sockets)
}

/// The number in a namespace's name, such as `net:[4026531840]`.
fn inode(name: &Path) -> u64 {
    let digits = name.to_str().and_then(|name| name.split(['[', ']']).nth(1));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The name of each network namespace that a process lives in, and a path to it, except `own`.
fn namespaces(own: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut seen = HashSet::from([own.to_owned()]);
    let mut paths = Vec::new();
    for (_, folder) in processes() {
        let path = folder.join("ns/net");
        if let Ok(name) = fs::read_link(&path)
            && seen.insert(name.clone())
        {
            paths.push((name, path));
        }
    }
    paths
}

/// Which process holds each of the wanted sockets. Where several do (after fork), the one with the lowest number: most often the parent.
fn holders(mut wanted: HashSet<u32>) -> HashMap<u32, u32> {
    let mut holders = HashMap::new();
    for (pid, folder) in processes() {
        if wanted.is_empty() {
            break;
        }
        let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if let Some(inode) = target.to_str().and_then(socket_inode)
                && wanted.remove(&inode)
            {
                holders.insert(inode, pid);
            }
        }
    }
    holders
}

/// The processes in /proc, by number.
fn processes() -> Vec<(u32, PathBuf)> {
    let mut processes: Vec<(u32, PathBuf)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    processes.sort_unstable();
    processes
}

/// The inode number in the target of a descriptor's link, if it is a socket.
fn socket_inode(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn descriptor_links() {
        assert_eq!(socket_inode("socket:[12345]"), Some(12345));
        assert_eq!(socket_inode("pipe:[12345]"), None);
        assert_eq!(socket_inode("socket:[]"), None);
        assert_eq!(socket_inode("/tmp/socket:[1]"), None);
    }

    #[test]
    fn finds_our_own_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = find(|socket| socket.remote.port() == port).unwrap();
        let [found] = found.as_slice() else { panic!("one socket expected: {found:?}") };
        assert_eq!(found.ends.client, stream.local_addr().unwrap());
        assert_eq!(found.ends.broker, stream.peer_addr().unwrap());
        assert_eq!(found.pid, Some(std::process::id()));
        assert_eq!(found.netns, inode(&fs::read_link("/proc/self/ns/net").unwrap()));
        assert_ne!(found.netns, 0);
    }
}
