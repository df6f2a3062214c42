//! Every way to send: each sends all the bytes, in parts of random size.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use socket2::Socket;

use crate::bytes::Random;
use crate::call;

/// A way to send all the bytes of a slice.
pub struct Sending {
    pub name: &'static str,
    pub send: fn(&Socket, &[u8], &mut Random) -> io::Result<()>,
    /// Why this kernel cannot, if so.
    pub lacking: fn() -> Option<String>,
}

const fn sending(name: &'static str, send: fn(&Socket, &[u8], &mut Random) -> io::Result<()>) -> Sending {
    Sending { name, send, lacking: || None }
}

pub const SENDINGS: [Sending; 17] = [
    sending("write", write),
    sending("writev", writev),
    sending("send", |socket, bytes, random| send(socket, bytes, random, 0)),
    sending("send MSG_MORE", |socket, bytes, random| send(socket, bytes, random, libc::MSG_MORE)),
    sending("write TCP_NODELAY", |socket, bytes, random| {
        socket.set_tcp_nodelay(true)?;
        write(socket, bytes, random)
    }),
    sending("write TCP_CORK", |socket, bytes, random| {
        socket.set_tcp_cork(true)?;
        write(socket, bytes, random)?;
        socket.set_tcp_cork(false)
    }),
    sending("write non-blocking", write_nonblocking),
    sending("sendmsg", sendmsg),
    sending("sendmmsg", sendmmsg),
    sending("MSG_ZEROCOPY", zerocopy),
    sending("sendfile", sendfile),
    sending("splice of a file", splice_file),
    sending("splice of memory", splice_memory),
    sending("splice of another socket", splice_socket),
    Sending { name: "io_uring send", send: uring_send, lacking: || uring_lacks(opcode::Send::CODE) },
    Sending { name: "io_uring write", send: uring_write, lacking: || uring_lacks(opcode::Write::CODE) },
    Sending {
        name: "io_uring send_zc",
        send: uring_send_zerocopy,
        lacking: || uring_lacks(opcode::SendZc::CODE),
    },
];

/// Calls `send` with random parts; it says how many bytes went.
fn in_parts(
    mut bytes: &[u8],
    random: &mut Random,
    mut send: impl FnMut(&[u8], bool) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let part = random.part(bytes.len());
        let sent = send(&bytes[..part], part == bytes.len())?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[sent..];
    }
    Ok(())
}

fn write(mut socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    in_parts(bytes, random, |part, _| socket.write(part))
}

/// A small buffer, so that calls send less than they were given.
fn write_nonblocking(mut socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    socket.set_send_buffer_size(16_384)?;
    socket.set_nonblocking(true)?;
    in_parts(bytes, random, |part, _| {
        loop {
            match socket.write(part) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    call::wait_for(socket, libc::POLLOUT)?;
                }
                sent => return sent,
            }
        }
    })?;
    socket.set_nonblocking(false)
}

fn send(socket: &Socket, bytes: &[u8], random: &mut Random, more: i32) -> io::Result<()> {
    in_parts(bytes, random, |part, last| {
        socket.send_with_flags(part, if last { 0 } else { more } | libc::MSG_NOSIGNAL)
    })
}

/// Cuts bytes into up to eight parts.
fn cut<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while !bytes.is_empty() && parts.len() < 8 {
        let (part, rest) = bytes.split_at(random.part(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}

fn writev(socket: &Socket, mut bytes: &[u8], random: &mut Random) -> io::Result<()> {
    while !bytes.is_empty() {
        let parts: Vec<_> = cut(bytes, random).into_iter().map(call::part).collect();
        // SAFETY: an open descriptor, and parts of `bytes`.
        let sent = unsafe { libc::writev(socket.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) };
        bytes = &bytes[call::result(sent)?..];
    }
    Ok(())
}

fn sendmsg(socket: &Socket, mut bytes: &[u8], random: &mut Random) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut parts: Vec<_> = cut(bytes, random).into_iter().map(call::part).collect();
        let message = call::message(&mut parts);
        // SAFETY: an open descriptor, and a message of parts of `bytes`.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        bytes = &bytes[call::result(sent)?..];
    }
    Ok(())
}

fn sendmmsg(socket: &Socket, mut bytes: &[u8], random: &mut Random) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut parts: Vec<_> = cut(bytes, random).into_iter().map(call::part).collect();
        let asked: Vec<usize> =
            parts.chunks(2).map(|parts| parts.iter().map(|part| part.iov_len).sum()).collect();
        let mut messages: Vec<_> = parts
            .chunks_mut(2)
            .map(|parts| libc::mmsghdr { msg_hdr: call::message(parts), msg_len: 0 })
            .collect();
        let count = messages.len() as libc::c_uint;
        // Its flags' type differs between C libraries.
        let flags = libc::MSG_NOSIGNAL as _;
        // SAFETY: an open descriptor, and messages of parts of `bytes`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, flags) };
        let sent = call::result(sent as isize)?;
        for (message, asked) in messages[..sent].iter().zip(asked) {
            // Its rest would go after its successors; a blocking socket sends all.
            if message.msg_len as usize != asked {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[asked..];
        }
    }
    Ok(())
}

/// Waits for the kernel to let go of the buffers before they are given back.
fn zerocopy(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    call::set_option(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let mut waiting = 0_u32;
    in_parts(bytes, random, |part, _| {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_ZEROCOPY;
        match socket.send_with_flags(part, flags) {
            // Too many notices are not read yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                waiting -= released(socket)?;
                socket.send_with_flags(part, libc::MSG_NOSIGNAL)
            }
            Err(error) => Err(error),
            Ok(sent) => {
                waiting += 1;
                Ok(sent)
            }
        }
    })?;
    while waiting > 0 {
        waiting -= released(socket)?;
    }
    Ok(())
}

/// How many calls the next notice says are over (`Documentation/networking/msg_zerocopy.rst`).
fn released(socket: &Socket) -> io::Result<u32> {
    // Of `struct sock_extended_err`: the origin, and the range of calls.
    const ORIGIN_AT: usize = 4;
    const FIRST_AT: usize = 8;
    const LAST_AT: usize = 12;
    /// `SO_EE_ORIGIN_ZEROCOPY`, of `include/uapi/linux/errqueue.h`.
    const ZEROCOPY: u8 = 5;
    let mut control = [0_u64; 16];
    let mut message = call::message(&mut []);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    loop {
        // SAFETY: an open descriptor, and a message with room for control data.
        match call::result(unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
        }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => call::wait_for(socket, 0)?,
            other => break other.map(|_| ())?,
        }
    }
    // SAFETY: the message that was just received.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: what follows a control header is at least this long for errors.
    let told: [u8; 16] = unsafe { libc::CMSG_DATA(header).cast::<[u8; 16]>().read_unaligned() };
    if told[ORIGIN_AT] != ZEROCOPY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let word = |at: usize| u32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
    Ok(word(LAST_AT).wrapping_sub(word(FIRST_AT)).wrapping_add(1))
}

fn sendfile(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    let file = call::file_of(bytes)?;
    in_parts(bytes, random, |part, _| {
        // SAFETY: open descriptors; without an offset, the file's own position is used.
        call::result(unsafe {
            libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), part.len())
        })
    })
}

fn splice_file(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    let file = call::file_of(bytes)?;
    let (out, into) = call::pipe()?;
    in_parts(bytes, random, |part, last| {
        let read = call::splice(&file, &into, part.len(), 0)?;
        let flags = if last { 0 } else { libc::SPLICE_F_MORE };
        drain(&out, socket, read, flags)
    })
}

fn splice_memory(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    // The peer reads these very pages, and nothing says when it has.
    let bytes: &'static [u8] = bytes.to_vec().leak();
    let (out, into) = call::pipe()?;
    in_parts(bytes, random, |part, _| {
        let parts = [call::part(part)];
        // SAFETY: an open descriptor; the bytes stay as they are for good.
        let read = call::result(unsafe { libc::vmsplice(into.as_raw_fd(), parts.as_ptr(), 1, 0) })?;
        drain(&out, socket, read, 0)
    })
}

/// As a proxy in the kernel does.
fn splice_socket(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    let (mut near, far) = Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    let (out, into) = call::pipe()?;
    in_parts(bytes, random, |part, _| {
        // No more than fits into both buffers, as nothing else empties them.
        let part = &part[..part.len().min(4096)];
        near.write_all(part)?;
        let mut left = part.len();
        while left > 0 {
            let read = call::splice(&far, &into, left, 0)?;
            left -= drain(&out, socket, read, 0)?;
        }
        Ok(part.len())
    })
}

/// All that waits in a pipe.
fn drain(pipe: &std::os::fd::OwnedFd, socket: &Socket, len: usize, flags: libc::c_uint) -> io::Result<usize> {
    let mut left = len;
    while left > 0 {
        left -= call::splice(pipe, &socket.as_fd(), left, flags)?;
    }
    Ok(len)
}

fn uring_lacks(code: u8) -> Option<String> {
    let known = || -> io::Result<bool> {
        let ring = IoUring::new(2)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        Ok(probe.is_supported(code))
    };
    match known() {
        Ok(true) => None,
        Ok(false) => Some("no such operation".into()),
        Err(error) => Some(error.to_string()),
    }
}

fn uring_send(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    uring(bytes, random, |part| {
        let (at, len) = (part.as_ptr(), part.len() as u32);
        opcode::Send::new(types::Fd(socket.as_raw_fd()), at, len).flags(libc::MSG_NOSIGNAL).build()
    })
}

fn uring_write(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    uring(bytes, random, |part| {
        opcode::Write::new(types::Fd(socket.as_raw_fd()), part.as_ptr(), part.len() as u32).build()
    })
}

fn uring_send_zerocopy(socket: &Socket, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    uring(bytes, random, |part| {
        let (at, len) = (part.as_ptr(), part.len() as u32);
        opcode::SendZc::new(types::Fd(socket.as_raw_fd()), at, len).flags(libc::MSG_NOSIGNAL).build()
    })
}

fn uring(bytes: &[u8], random: &mut Random, entry: impl Fn(&[u8]) -> squeue::Entry) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    in_parts(bytes, random, |part, _| {
        // SAFETY: the bytes and the socket outlive the operation, whose end is waited for.
        unsafe { ring.submission().push(&entry(part)) }.map_err(io::Error::other)?;
        let mut sent = None;
        loop {
            ring.submit_and_wait(1)?;
            let mut more = false;
            for completion in ring.completion() {
                more = cqueue::more(completion.flags());
                if !cqueue::notif(completion.flags()) {
                    sent = Some(completion.result());
                }
            }
            if !more {
                break;
            }
        }
        let sent = sent.ok_or(io::ErrorKind::InvalidData)?;
        usize::try_from(sent).map_err(|_| io::Error::from_raw_os_error(-sent))
    })
}
