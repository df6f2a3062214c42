//! Network interfaces of this network namespace.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

/// Sets an interface up.
pub fn up(name: &str) -> Result<()> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, io::Error::last_os_error());
    // SAFETY: the kernel just gave this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: an open descriptor and a valid request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) };
    ensure!(result == 0, io::Error::last_os_error());
    Ok(())
}

/// Puts this thread, and the processes that it starts from now on, into a network namespace of its
/// own, with loopback.
pub fn own_namespace() -> Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("no network namespace of its own");
    }
    up("lo")
}

/// Whether packets can be lost and reordered here: netem is often a module, and not everywhere
/// there.
pub fn has_netem() -> Result<()> {
    // In a thread, whose namespace goes with it.
    std::thread::spawn(|| {
        own_namespace()?;
        lose_and_reorder("lo")
    })
    .join()
    .ok()
    .context("panicked")?
}

/// Of the packets that leave the interface, 5 % are lost, and 20 % overtake the others, which take
/// 5 ms.
pub fn lose_and_reorder(name: &str) -> Result<()> {
    /// `TCA_NETEM_REORDER`, of `include/uapi/linux/pkt_sched.h`.
    const REORDER: u16 = 3;
    /// `TC_H_ROOT`.
    const ROOT: u32 = u32::MAX;
    /// In ticks of 64 ns (`PSCHED_SHIFT`).
    const DELAY: u32 = 5_000_000 >> 6;
    /// Packets that may wait.
    const LIMIT: u32 = 1000;
    let percent = |share: u32| u32::MAX / 100 * share;
    // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
    let mut options = words(&[DELAY, LIMIT, percent(5), 0, 0, 0]);
    // struct tc_netem_reorder: probability, correlation
    options.extend(attribute(REORDER, &words(&[percent(20), 0])));
    // struct tcmsg: family and padding, interface, handle, parent, info
    let mut body = words(&[0, index(name)?, 0, ROOT, 0]);
    body.extend(attribute(libc::TCA_KIND, b"netem\0"));
    body.extend(attribute(libc::TCA_OPTIONS, &options));
    request(libc::RTM_NEWQDISC, libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)?;
    Ok(())
}

/// Lets packets of the interface be larger than 64 KiB.
pub fn big_packets(name: &str, v4: bool) -> Result<()> {
    // IFLA_GSO_MAX_SIZE, IFLA_GRO_MAX_SIZE and their kin for IPv4, of `include/uapi/linux/if_link.h`.
    let attributes: [u16; 2] = if v4 { [63, 64] } else { [41, 58] };
    const LARGEST: u32 = 190_000;
    // struct ifinfomsg: family, type, index, flags, change
    let mut body = words(&[0, index(name)?, 0, 0]);
    for kind in attributes {
        body.extend(attribute(kind, &words(&[LARGEST])));
    }
    request(libc::RTM_NEWLINK, libc::NLM_F_ACK, &body)?;
    // A kernel that does not know an attribute may say yes to it.
    let link = request(libc::RTM_GETLINK, 0, &words(&[0, index(name)?, 0, 0]))?;
    let set = attribute(attributes[0], &words(&[LARGEST]));
    ensure!(link.windows(set.len()).any(|window| window == set), "not known");
    Ok(())
}

fn index(name: &str) -> Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: a terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, io::Error::last_os_error());
    Ok(index)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A netlink attribute, filled up to a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = value.len() as u16 + 4;
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a request to the kernel's routing netlink, and gives its answer, or the error in there.
fn request(kind: u16, flags: libc::c_int, body: &[u8]) -> Result<Vec<u8>> {
    // SAFETY: no pointers.
    let socket =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    ensure!(socket >= 0, io::Error::last_os_error());
    // SAFETY: the kernel just gave this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let flags = (flags | libc::NLM_F_REQUEST) as u32;
    // struct nlmsghdr: length, type and flags, number, port
    let mut message = words(&[16 + body.len() as u32, u32::from(kind) | flags << 16, 1, 0]);
    message.extend_from_slice(body);
    // SAFETY: an open descriptor, and as many readable bytes as the length says.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    ensure!(sent >= 0, io::Error::last_os_error());
    let mut reply = vec![0_u8; 16_384];
    // SAFETY: an open descriptor, and as many writable bytes as the length says.
    let received = unsafe { libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
    ensure!(received >= 20, "the kernel's answer is short");
    // Behind the header an error number, 0 for none.
    let error = i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]);
    if u16::from_ne_bytes([reply[4], reply[5]]) == libc::NLMSG_ERROR as u16 {
        ensure!(error == 0, io::Error::from_raw_os_error(-error));
    }
    reply.truncate(received.unsigned_abs());
    Ok(reply)
}
