//! System calls that sockets of the standard library do not make, with their results as errors.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use libc::c_int;

/// The result of a call: a number, or the error that it left.
pub fn result(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

/// A call that gives 0 or an error.
pub fn done(value: c_int) -> io::Result<()> {
    result(value as isize).map(|_| ())
}

/// Sets an option whose value is a number.
pub fn set_option(
    socket: &impl std::os::fd::AsFd,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    set_option_bytes(socket, level, name, &value.to_ne_bytes())
}

pub fn set_option_bytes(
    socket: &impl std::os::fd::AsFd,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: an open descriptor, and as many readable bytes as the length says.
    done(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })
}

/// Reads an option into as many bytes as are asked for.
pub fn option_bytes<const N: usize>(
    socket: &impl std::os::fd::AsFd,
    level: c_int,
    name: c_int,
) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut len = N as libc::socklen_t;
    // SAFETY: an open descriptor, and as many writable bytes as the length says.
    done(unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    })?;
    Ok(value)
}

/// The reading and the writing end of a pipe.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [0; 2];
    // SAFETY: room for two descriptors.
    done(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just gave these descriptors to us alone.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// A file in memory with these bytes, at its beginning.
pub fn file_of(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: a terminated string.
    let fd = result(unsafe { libc::memfd_create(c"traffic".as_ptr(), libc::MFD_CLOEXEC) } as isize)?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    let file = unsafe { File::from_raw_fd(fd as RawFd) };
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
    Ok(file)
}

/// Moves up to `len` bytes between a pipe and something else.
pub fn splice(
    from: &impl std::os::fd::AsFd,
    to: &impl std::os::fd::AsFd,
    len: usize,
    flags: libc::c_uint,
) -> io::Result<usize> {
    // SAFETY: open descriptors; without offsets, the files' own positions are used.
    result(unsafe {
        libc::splice(
            from.as_fd().as_raw_fd(),
            ptr::null_mut(),
            to.as_fd().as_raw_fd(),
            ptr::null_mut(),
            len,
            flags,
        )
    })
}

/// Waits until one of the events happens.
pub fn wait_for(socket: &impl std::os::fd::AsFd, events: libc::c_short) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid entry.
    result(unsafe { libc::poll(&raw mut poll, 1, -1) } as isize).map(|_| ())
}

/// A message of these parts, neither address nor control data.
pub fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    // Its type differs between C libraries.
    message.msg_iovlen = parts.len() as _;
    message
}

pub fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

pub fn part_mut(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}
