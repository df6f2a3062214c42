//! Ways to begin: other kinds of TCP, payload on the SYN, sequence numbers that wrap, IPv6 with
//! extension headers, larger packets, a port used again.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libc::c_int;
use socket2::{Protocol, Socket, Type};

use super::stage::{Family, Stage, answer, expect, one, server};
use crate::apart::apart;
use crate::talk::{End, Sign, Talk, ends_of};
use crate::{call, interface};

/// `TCP_REPAIR` and its kin, of `include/uapi/linux/tcp.h`.
const TCP_REPAIR: c_int = 19;
const TCP_REPAIR_QUEUE: c_int = 20;
const TCP_QUEUE_SEQ: c_int = 21;
const TCP_SEND_QUEUE: c_int = 2;

/// `IPV6_DSTOPTS` and `IPV6_HOPOPTS`, of `include/uapi/linux/in6.h`.
const IPV6_HOPOPTS: c_int = 54;
const IPV6_DSTOPTS: c_int = 59;

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    for family in Family::ALL {
        wrap(stage, family).context("sequence numbers that wrap")?;
        multipath(stage, family).context("MPTCP")?;
        fast_open(stage, family).context("Fast Open")?;
        reuse(stage, family).context("a port used again")?;
    }
    extension_headers(stage).context("extension headers")?;
    if !stage.lossy {
        big_packets(stage).context("big TCP")?;
    }
    Ok(())
}

/// A client whose sequence numbers begin shortly before 2^32.
fn wrap(stage: &mut Stage, family: Family) -> Result<()> {
    let listener = family.listener()?;
    let name = format!("sequence numbers that wrap, {}", family.name());
    one(stage, name, Sign::Nothing, &listener, 30_000, |_| {
        let socket = family.socket()?;
        for (name, value) in [
            (TCP_REPAIR, 1),
            (TCP_REPAIR_QUEUE, TCP_SEND_QUEUE),
            (TCP_QUEUE_SEQ, (u32::MAX - 10_000).cast_signed()),
            (TCP_REPAIR, 0),
        ] {
            call::set_option(&socket, libc::IPPROTO_TCP, name, value)?;
        }
        socket.connect(&family.server().into())?;
        Ok((socket, 0))
    })
}

fn multipath(stage: &mut Stage, family: Family) -> Result<()> {
    let protocol = Protocol::from(libc::IPPROTO_MPTCP);
    if let Err(error) = Socket::new(family.domain(), Type::STREAM, Some(protocol)) {
        return stage.lacks(&format!("MPTCP, {}", family.name()), error);
    }
    let listener = family.listener_of(protocol)?;
    let name = format!("MPTCP, {}", family.name());
    one(stage, name, Sign::OtherSockets, &listener, 100_000, |_| {
        let socket = Socket::new(family.domain(), Type::STREAM, Some(protocol))?;
        socket.connect(&family.server().into())?;
        Ok((socket, 0))
    })
}

/// Payload on the SYN, by a call that connects and sends, and by a connect that waits for the first
/// write.
fn fast_open(stage: &mut Stage, family: Family) -> Result<()> {
    // Both ends, also without a cookie of an earlier connection
    // (`Documentation/networking/ip-sysctl.rst`, tcp_fastopen).
    if let Err(error) = std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543") {
        return stage.lacks("Fast Open", error);
    }
    let listener = family.listener()?;
    call::set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    let mut on_syn = true;
    for deferred in [false, true] {
        let name = format!("Fast Open{}, {}", if deferred { " by write" } else { "" }, family.name());
        // Whether the kernel did it is known only then, so it is tried first.
        let (to_broker, to_client) = (stage.payload(9_000), stage.payload(9_000));
        let answering = server(&listener, |socket| answer(socket, to_broker, to_client))?;
        // In a process that has never used io_uring: what the kernel does late for that (a task work, 5.10
        // and 6.1) may interrupt the call while it waits for the connection. The call then starts
        // again, and the bytes that went with the SYN are sent once more.
        let asking = apart(|| {
            let socket = family.socket()?;
            let bytes = to_broker.bytes();
            let sent = if deferred {
                call::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
                socket.connect(&family.server().into())?;
                socket.send(&bytes[..500])?
            } else {
                let flags = libc::MSG_FASTOPEN;
                socket.send_to_with_flags(&bytes[..500], &family.server().into(), flags)?
            };
            let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
            let mut writer = &socket;
            writer.write_all(&bytes[sent..])?;
            socket.shutdown(std::net::Shutdown::Write)?;
            expect(&socket, to_client).context("client")?;
            // tcpi_options of tcp_info; the bit says that the SYN's data was acknowledged.
            const SYN_DATA: u8 = 32;
            let told: [u8; 8] = call::option_bytes(&socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
            Ok((sent, client, ends, told[5] & SYN_DATA != 0))
        })?;
        // Both ends are waited for: the failure of one may well be the other's reason.
        let (asked, answered) = (asking.join(), answering.join());
        let server = answered.with_context(|| name.clone())?;
        let (sent, client, ends, taken) = asked.with_context(|| name.clone())?;
        on_syn &= taken;
        let sign = if taken { Sign::SynData(sent) } else { Sign::Nothing };
        stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign })?;
    }
    if !on_syn && !stage.lossy {
        stage.lacks("Fast Open", "the SYN's payload was not taken")?;
    }
    Ok(())
}

/// Three connections with the same addresses and ports, one right after the other.
fn reuse(stage: &mut Stage, family: Family) -> Result<()> {
    let listener = family.listener()?;
    let mut from = None;
    for time in ["first", "second", "third"] {
        let (to_broker, to_client) = (stage.payload(5_000), stage.payload(5_000));
        let serving = server(&listener, |mut socket| {
            let mut received = vec![0; to_broker.len];
            socket.read_exact(&mut received)?;
            ensure!(received == to_broker.bytes(), "the server received other bytes");
            socket.write_all(&to_client.bytes())?;
            Ok(())
        })?;
        let socket = family.socket()?;
        socket.set_reuse_address(true)?;
        if let Some(address) = &from {
            socket.bind(address)?;
        }
        socket.connect(&family.server().into())?;
        from = Some(socket.local_addr()?);
        let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
        let mut writer = &socket;
        writer.write_all(&to_broker.bytes())?;
        expect(&socket, to_client)?;
        // No TIME-WAIT: the port is free at once.
        socket.set_linger(Some(Duration::ZERO))?;
        drop(socket);
        let server = serving.join()?;
        let name = format!("a port used again, {time}, {}", family.name());
        stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })?;
    }
    Ok(())
}

/// Hop-by-hop and destination options before TCP.
fn extension_headers(stage: &mut Stage) -> Result<()> {
    // The type of what follows is filled in by the kernel; then the length in units of 8 bytes beyond
    // the first; then PadN, or an option that is passed over by who does not know it (0x1e, RFC
    // 4727), as the kernel refuses more than 7 bytes of padding.
    let short: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let long: &[u8] = &[0, 1, 0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let listener = Family::V6.listener()?;
    for (what, options) in [
        ("hop-by-hop options", vec![(IPV6_HOPOPTS, short)]),
        ("destination options", vec![(IPV6_DSTOPTS, long)]),
        ("both", vec![(IPV6_HOPOPTS, long), (IPV6_DSTOPTS, short)]),
    ] {
        let name = format!("IPv6 extension headers, {what}");
        one(stage, name, Sign::Nothing, &listener, 100_000, |_| {
            let socket = Family::V6.socket()?;
            for (name, value) in options {
                call::set_option_bytes(&socket, libc::IPPROTO_IPV6, name, value)?;
            }
            socket.connect(&Family::V6.server().into())?;
            Ok((socket, 0))
        })?;
    }
    Ok(())
}

/// Packets of more than 64 KiB (Linux 5.19 for IPv6, 6.3 for IPv4).
fn big_packets(stage: &mut Stage) -> Result<()> {
    for family in [Family::V6, Family::V4] {
        if let Err(error) = interface::big_packets("lo", family == Family::V4) {
            stage.lacks(&format!("big TCP, {}", family.name()), error)?;
            continue;
        }
        let listener = family.listener()?;
        let name = format!("big TCP, {}", family.name());
        one(stage, name, Sign::BigPacket, &listener, 4 << 20, |_| {
            let socket = family.connect()?;
            socket.set_send_buffer_size(4 << 20)?;
            Ok((socket, 0))
        })?;
    }
    Ok(())
}
