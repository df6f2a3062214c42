//! The TCP sockets of a network namespace, as the kernel lists them: sock_diag(7).

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::connections::address;

/// A TCP socket that is connected, or listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// The same number as `bpf_get_socket_cookie` gives.
    pub(super) cookie: u64,
    /// 0 where no process holds it any more.
    pub(super) inode: u32,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) is_listening: bool,
}

/// Message type of `include/uapi/linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct nlmsghdr`, of `struct inet_diag_req_v2` and of `struct inet_diag_msg`.
const NLMSG_HEADER: usize = 16;
const REQUEST: usize = 56;
const ANSWER: usize = 72;
/// Number of a state of `include/net/tcp_states.h`.
const LISTEN: u8 = 10;
/// Established, SYN sent, FIN wait 1 and 2, close wait, last ACK, closing: all that has or had a
/// peer, without TIME-WAIT, which belongs to no process; and listening.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << LISTEN;

/// Gives the sockets of the calling thread's network namespace, one by one: there may be a million.
pub(super) fn each_tcp_socket(each: &mut dyn FnMut(Socket)) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(u8::try_from(family).unwrap_or_default(), each)?;
    }
    Ok(())
}

fn dump(family: u8, each: &mut dyn FnMut(Socket)) -> io::Result<()> {
    let (kind, protocol) = (SocketType::RAW, Some(netlink::SOCK_DIAG));
    let fd = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    send(&fd, &request(family), SendFlags::empty())?;
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let received = match recv(&fd, &mut buffer[..], RecvFlags::empty()) {
            Ok((received, _)) => received,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if received == 0 || parse(&buffer[..received], each)? {
            return Ok(());
        }
    }
}

fn request(family: u8) -> [u8; NLMSG_HEADER + REQUEST] {
    let mut message = [0; NLMSG_HEADER + REQUEST];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    message[0..4].copy_from_slice(&((NLMSG_HEADER + REQUEST) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[16] = family;
    message[17] = libc::IPPROTO_TCP as u8;
    message[20..24].copy_from_slice(&STATES.to_ne_bytes());
    message
}

/// Reads the messages of one datagram; whether the list has ended.
fn parse(mut datagram: &[u8], each: &mut dyn FnMut(Socket)) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(datagram, 0), u16_at(datagram, 4)) {
        let length = length as usize;
        let Some(body) = datagram.get(NLMSG_HEADER..length) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "sock_diag answer is cut short"));
        };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = u32_at(body, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => {
                if let Some(socket) = socket(body) {
                    each(socket);
                }
            }
        }
        // Messages are padded to four bytes.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads a `struct inet_diag_msg`.
fn socket(body: &[u8]) -> Option<Socket> {
    let body = body.get(..ANSWER)?;
    let (family, state) = (i32::from(body[0]), body[1]);
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let octets = |at: usize| -> Option<[u8; 16]> {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(if family == libc::AF_INET {
            let [a, b, c, d, ..] = bytes;
            std::net::Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets()
        } else {
            bytes
        })
    };
    Some(Socket {
        local: address(octets(8)?, port(4)?),
        remote: address(octets(24)?, port(6)?),
        cookie: u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32,
        inode: u32_at(body, 68)?,
        is_listening: state == LISTEN,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn lists_a_socket_with_its_cookie() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let cookie = rustix::net::sockopt::socket_cookie(&stream).unwrap();
            let mut sockets = Vec::new();
            each_tcp_socket(&mut |socket| sockets.push(socket)).unwrap();
            let found = sockets.iter().find(|socket| socket.cookie == cookie).unwrap();
            assert_eq!(found.local, stream.local_addr().unwrap());
            assert_eq!(found.remote, stream.peer_addr().unwrap());
            assert_ne!(found.inode, 0);
            assert!(!found.is_listening);
            let local = listener.local_addr().unwrap();
            let listens = |socket: &&Socket| socket.is_listening && socket.local == local;
            assert_eq!(sockets.iter().filter(listens).count(), 1);
        }
    }

    #[test]
    fn answers_cut_short_are_errors_not_panics() {
        let mut sockets = Vec::new();
        let mut message = vec![0_u8; NLMSG_HEADER];
        message[0..4].copy_from_slice(&200_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert!(parse(&message, &mut |socket| sockets.push(socket)).is_err());
        message[0..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(parse(&message, &mut |socket| sockets.push(socket)).is_err());
        message[0..4].copy_from_slice(&(NLMSG_HEADER as u32).to_ne_bytes());
        assert!(!parse(&message, &mut |socket| sockets.push(socket)).unwrap());
        assert!(sockets.is_empty());
    }
}
