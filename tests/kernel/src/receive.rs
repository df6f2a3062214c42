//! Every way to receive: each reads just as many bytes as it is asked for, in parts of random size.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::{fs::File, ptr};

use io_uring::{IoUring, opcode, types};
use socket2::Socket;

use crate::bytes::Random;
use crate::call;

/// A way to read a number of bytes.
pub struct Receiving {
    pub name: &'static str,
    pub receive: fn(&Socket, usize, &mut Random) -> io::Result<Vec<u8>>,
}

const fn receiving(
    name: &'static str,
    receive: fn(&Socket, usize, &mut Random) -> io::Result<Vec<u8>>,
) -> Receiving {
    Receiving { name, receive }
}

pub const RECEIVINGS: [Receiving; 9] = [
    receiving("read", |mut socket, len, random| in_parts(len, random, |part| socket.read(part))),
    receiving("readv", readv),
    receiving("recv MSG_PEEK", |socket, len, random| {
        in_parts(len, random, |part| {
            let seen = flagged(socket, part, libc::MSG_PEEK)?;
            flagged(socket, &mut part[..seen], 0)
        })
    }),
    receiving("recv MSG_WAITALL", |socket, len, random| {
        in_parts(len, random, |part| flagged(socket, part, libc::MSG_WAITALL))
    }),
    receiving("recvmsg", recvmsg),
    receiving("recvmmsg", recvmmsg),
    receiving("read non-blocking", read_nonblocking),
    receiving("splice", splice),
    receiving("io_uring recv", uring),
];

/// Calls `receive` with random parts; it says how many bytes came.
fn in_parts(
    len: usize,
    random: &mut Random,
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let part = random.part(len - at);
        match receive(&mut bytes[at..at + part])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => at += received,
        }
    }
    Ok(bytes)
}

fn flagged(socket: &Socket, part: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: an open descriptor, and as many writable bytes as the length says.
    call::result(unsafe { libc::recv(socket.as_raw_fd(), part.as_mut_ptr().cast(), part.len(), flags) })
}

/// Cuts a part in two.
fn halves(part: &mut [u8]) -> [libc::iovec; 2] {
    let (first, second) = part.split_at_mut(part.len() / 2);
    [call::part_mut(first), call::part_mut(second)]
}

fn readv(socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    in_parts(len, random, |part| {
        let parts = halves(part);
        // SAFETY: an open descriptor, and parts that may be written to.
        call::result(unsafe { libc::readv(socket.as_raw_fd(), parts.as_ptr(), 2) })
    })
}

fn recvmsg(socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    in_parts(len, random, |part| {
        let mut parts = halves(part);
        let mut message = call::message(&mut parts);
        // SAFETY: an open descriptor, and a message of parts that may be written to.
        call::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })
    })
}

fn recvmmsg(socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    in_parts(len, random, |part| {
        let mut parts = halves(part);
        let mut message = libc::mmsghdr { msg_hdr: call::message(&mut parts), msg_len: 0 };
        // Its flags' type differs between C libraries.
        let flags = libc::MSG_WAITFORONE as _;
        // SAFETY: an open descriptor, and a message of parts that may be written to.
        let count =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), &raw mut message, 1, flags, ptr::null_mut()) };
        call::result(count as isize)?;
        Ok(message.msg_len as usize)
    })
}

fn read_nonblocking(mut socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    socket.set_nonblocking(true)?;
    let bytes = in_parts(len, random, |part| {
        loop {
            match socket.read(part) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    call::wait_for(socket, libc::POLLIN)?;
                }
                received => return received,
            }
        }
    })?;
    socket.set_nonblocking(false)?;
    Ok(bytes)
}

fn splice(socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    let (out, into) = call::pipe()?;
    let mut out = File::from(out);
    in_parts(len, random, |part| {
        // No more than the pipe holds, as nothing else empties it.
        let received = call::splice(socket, &into, part.len().min(65_536), 0)?;
        out.read_exact(&mut part[..received])?;
        Ok(received)
    })
}

/// Where there is no io_uring, by `recv`: the ways to send say that it is missing.
fn uring(socket: &Socket, len: usize, random: &mut Random) -> io::Result<Vec<u8>> {
    let Ok(mut ring) = IoUring::new(2) else {
        return in_parts(len, random, |part| flagged(socket, part, 0));
    };
    in_parts(len, random, |part| {
        let (at, len) = (part.as_mut_ptr(), part.len() as u32);
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), at, len).build();
        // SAFETY: the buffer and the socket outlive the operation, whose end is waited for.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        let received = ring.completion().next().ok_or(io::ErrorKind::InvalidData)?.result();
        usize::try_from(received).map_err(|_| io::Error::from_raw_os_error(-received))
    })
}
