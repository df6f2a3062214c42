//! Kafka sockets that are there already, and the processes that hold them: for connections older
//! than the agent, and for those whose owner the kernel side does not know.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{Socket, each_tcp_socket};
use crate::seen::Ends;

/// A client's end of a connection to a Kafka port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cookie: u64,
    pub(super) ends: Ends,
    /// The inode of its network namespace.
    pub(super) netns: u64,
    /// A process that holds the socket, by the agent's view of /proc; `None` where none was found
    /// (gone, or not to be seen).
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

/// Lists the sockets of all network namespaces that the agent may enter (CAP_SYS_ADMIN for others
/// than its own), and finds their processes through the descriptors in /proc (CAP_SYS_PTRACE for
/// those of other users).
///
/// Takes about a second on a host with a million descriptors; nothing is looked up if no socket is
/// `wanted`.
pub(super) fn find(wanted: impl Fn(&Socket) -> bool + Sync) -> io::Result<Vec<Found>> {
    let sockets = in_all_namespaces(usize::MAX, |netns, socket| {
        (!socket.is_listening && wanted(&socket)).then_some((netns, socket))
    })?;
    let inodes = sockets.iter().map(|(_, socket)| socket.inode).filter(|inode| *inode != 0).collect();
    let (holders, _) = holders(inodes, HashSet::new());
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

/// Who holds sockets.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Of connections, by cookie.
    pub(super) connected: HashMap<u64, Holder>,
    /// Of sockets that listen, with where they do.
    pub(super) listening: Vec<(SocketAddr, Holder)>,
    /// In which network namespace an address is that is some socket's own; `None` where it is in
    /// several.
    pub(super) addresses: HashMap<IpAddr, Option<u64>>,
}

/// The same by cookie, with little kept of each, and of no more than `most` sockets. With those
/// that listen, where they are asked for.
pub(super) fn find_holders(
    most: usize,
    listening: bool,
    wanted: impl Fn(&Socket) -> bool + Sync,
) -> io::Result<Holders> {
    struct Kept {
        cookie: u64,
        netns: u64,
        inode: u32,
        listens_at: Option<SocketAddr>,
        address: Option<IpAddr>,
    }
    let sockets = in_all_namespaces(most, |netns, socket| {
        let Socket { cookie, inode, local, is_listening, .. } = socket;
        let keeps = (listening || !is_listening) && wanted(&socket);
        keeps.then(|| Kept {
            cookie,
            netns,
            inode,
            listens_at: is_listening.then_some(local),
            address: (listening && !local.ip().is_unspecified()).then_some(local.ip()),
        })
    })?;
    let inodes = |listens: bool| {
        let of = sockets.iter().filter(move |kept| !listens || kept.listens_at.is_some());
        of.map(|kept| kept.inode).filter(|inode| *inode != 0).collect()
    };
    let (by_inode, shared) = holders(inodes(false), inodes(true));
    let mut found = Holders::default();
    for Kept { cookie, netns, inode, listens_at, address } in sockets {
        let holder = Holder { netns, pid: by_inode.get(&inode).copied() };
        match listens_at {
            // Any of those that share it may accept: workers that have inherited it, each after the
            // other.
            Some(local) if shared.contains(&inode) => {
                found.listening.push((local, Holder { pid: None, ..holder }));
            }
            Some(local) => found.listening.push((local, holder)),
            None => drop(found.connected.insert(cookie, holder)),
        }
        if let Some(address) = address {
            let of = found.addresses.entry(address).or_insert(Some(netns));
            *of = of.filter(|of| *of == netns);
        }
    }
    Ok(found)
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
                match move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)) {
                    // One that cannot be listed has none that could be found.
                    Ok(()) => drop(list(&name, &mut sockets)),
                    Err(error) => {
                        let path = path.display();
                        tracing::debug!(%path, %error, "cannot list the sockets of a network namespace");
                    }
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

/// Which process holds each of the wanted sockets. Where several do (after fork), the one with the
/// lowest number: most often the parent. Of the `listening` ones it is found out, too, which are
/// held by several.
fn holders(mut wanted: HashSet<u32>, listening: HashSet<u32>) -> (HashMap<u32, u32>, HashSet<u32>) {
    let (mut holders, mut shared) = (HashMap::new(), HashSet::new());
    for (pid, folder) in processes() {
        if wanted.is_empty() && listening.is_empty() {
            break;
        }
        let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if let Some(inode) = target.to_str().and_then(socket_inode)
                && (wanted.remove(&inode) || listening.contains(&inode))
            {
                let first = *holders.entry(inode).or_insert(pid);
                if first != pid {
                    shared.insert(inode);
                }
            }
        }
    }
    (holders, shared)
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

    #[test]
    fn finds_who_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let of_port = |socket: &Socket| socket.local.port() == local.port();
        let found = find_holders(usize::MAX, true, of_port).unwrap();
        let [(at, holder)] = found.listening.as_slice() else { panic!("one expected: {found:?}") };
        assert_eq!((*at, holder.pid), (local, Some(std::process::id())));
        assert_eq!(found.addresses[&local.ip()], Some(holder.netns));
        assert!(find_holders(usize::MAX, false, of_port).unwrap().listening.is_empty());
    }
}
