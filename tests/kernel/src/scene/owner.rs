//! Who holds a socket: forked workers, processes that were given it, threads, processes that share
//! a port.

use std::io::{IoSlice, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, MsgHdr, Socket, Type};

use super::stage::{Family, Stage, answer, ask, expect, server};
use crate::apart::{Apart, apart};
use crate::call;
use crate::talk::{End, Sign, Talk, ends_of};

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    for family in Family::ALL {
        forked(stage, family).context("a forked worker")?;
        passed(stage, family).context("a passed descriptor")?;
        threads(stage, family).context("threads")?;
        shared_port(stage, family).context("a shared port")?;
    }
    Ok(())
}

/// The first half is sent by who connected, the second by its fork.
fn forked(stage: &mut Stage, family: Family) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(30_000), stage.payload(10_000));
    let listener = family.listener()?;
    let serving = server(&listener, |socket| answer(socket, to_broker, to_client))?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    let mut writer = &socket;
    let bytes = to_broker.bytes();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    writer.write_all(first)?;
    apart(|| {
        let mut writer = &socket;
        writer.write_all(second)?;
        socket.shutdown(Shutdown::Write)?;
        Ok(())
    })?
    .join()?;
    expect(&socket, to_client)?;
    let server = serving.join()?;
    let name = format!("a forked worker, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

/// Another process than the one that connected is given the socket (SCM_RIGHTS), and only it sends.
fn passed(stage: &mut Stage, family: Family) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(30_000), stage.payload(10_000));
    let listener = family.listener()?;
    let serving = server(&listener, |socket| answer(socket, to_broker, to_client))?;
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    let working: Apart<()> = apart(|| ask(&given(&far)?, to_broker, to_client))?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    give(&near, socket.as_raw_fd())?;
    drop(socket);
    working.join()?;
    let server = serving.join()?;
    let name = format!("a passed descriptor, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

/// Room for a control message of one descriptor.
type Control = [u64; 4];

fn give(through: &Socket, descriptor: RawFd) -> Result<()> {
    let mut control: Control = [0; 4];
    // Set field by field, since some C libraries have padding in it.
    // SAFETY: integers alone, so all-zero bytes are valid.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    // SAFETY: arithmetic.
    header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) } as _;
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: the header is at the beginning of room that is aligned and large enough for it and a
    // descriptor.
    let control = unsafe {
        let at = control.as_mut_ptr().cast::<libc::cmsghdr>();
        at.write(header);
        libc::CMSG_DATA(at).cast::<RawFd>().write_unaligned(descriptor);
        let used = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), used)
    };
    through.sendmsg(&MsgHdr::new().with_buffers(&[IoSlice::new(b"x")]).with_control(control), 0)?;
    Ok(())
}

fn given(through: &Socket) -> Result<Socket> {
    let mut control: Control = [0; 4];
    let mut byte = [0];
    let mut parts = [call::part_mut(&mut byte)];
    let mut message = call::message(&mut parts);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: an open descriptor, and a message with room for a byte and a descriptor.
    call::result(unsafe { libc::recvmsg(through.as_raw_fd(), &raw mut message, 0) })?;
    // SAFETY: the message that was just received.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    ensure!(!header.is_null(), "no descriptor came");
    // SAFETY: what follows the header of SCM_RIGHTS is a descriptor that the kernel just gave to us
    // alone.
    Ok(unsafe { Socket::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) })
}

/// Connected, and accepted, by threads that are not their process's first.
fn threads(stage: &mut Stage, family: Family) -> Result<()> {
    const COUNT: usize = 8;
    let payloads: Vec<_> = (0..COUNT).map(|_| (stage.payload(40_000), stage.payload(40_000))).collect();
    let listener = family.listener()?;
    // A first word of four bytes says which connection is whose.
    let serving = apart(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..COUNT)
                .map(|_| {
                    scope.spawn(|| -> Result<(usize, End)> {
                        let socket = listener.accept()?.0;
                        let end = End::of(&socket)?;
                        let mut reader = &socket;
                        let mut bytes = Vec::new();
                        reader.read_to_end(&mut bytes)?;
                        let which = payloads.iter().position(|(question, _)| question.bytes() == bytes);
                        let which = which.context("other bytes were received than were sent")?;
                        let mut writer = &socket;
                        writer.write_all(&payloads[which].1.bytes())?;
                        Ok((which, end))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().ok().context("panicked")?)
                .collect::<Result<Vec<_>>>()
        })
    })?;
    let clients: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = payloads
            .iter()
            .map(|&(question, reply)| {
                scope.spawn(move || -> Result<_> {
                    let socket = family.connect()?;
                    let told = (End::of(&socket)?, ends_of(&socket)?);
                    ask(&socket, question, reply)?;
                    Ok(told)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok().context("panicked")?).collect::<Result<_>>()
    })?;
    let servers = serving.join()?;
    for (which, ((client, ends), (to_broker, to_client))) in clients.into_iter().zip(payloads).enumerate() {
        let (_, server) = *servers.iter().find(|(other, _)| *other == which).context("not served")?;
        let name = format!("thread {which}, {}", family.name());
        stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })?;
    }
    Ok(())
}

/// Two servers listen at the same port (SO_REUSEPORT); the kernel chooses.
fn shared_port(stage: &mut Stage, family: Family) -> Result<()> {
    let count = if stage.short { 3 } else { 10 };
    for turn in 0..count {
        let (to_broker, to_client) = (stage.payload(1_000), stage.payload(1_000));
        let listeners = [(); 2].map(|()| -> Result<Socket> {
            let listener = family.socket()?;
            listener.set_reuse_address(true)?;
            listener.set_reuse_port(true)?;
            listener.bind(&family.listen_at().into())?;
            listener.listen(8)?;
            Ok(listener)
        });
        let [one, other] = listeners;
        let listeners = [one?, other?];
        let (near, far) = call::pipe()?;
        // Whoever is not chosen ends when the client has closed the pipe.
        let servers = listeners.each_ref().map(|listener| {
            apart(|| -> Result<Option<End>> {
                let mut waiting = [&near.as_raw_fd(), &listener.as_raw_fd()].map(|fd| libc::pollfd {
                    fd: *fd,
                    events: libc::POLLIN,
                    revents: 0,
                });
                // Only the client's process is to have the pipe's other end.
                // SAFETY: this process never uses the descriptor.
                unsafe { libc::close(far.as_raw_fd()) };
                // SAFETY: two valid entries.
                call::result(unsafe { libc::poll(waiting.as_mut_ptr(), 2, -1) } as isize)?;
                if waiting[1].revents == 0 {
                    return Ok(None);
                }
                let socket = listener.accept()?.0;
                let end = End::of(&socket)?;
                answer(&socket, to_broker, to_client)?;
                Ok(Some(end))
            })
        });
        drop(listeners);
        let socket = family.connect()?;
        let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
        ask(&socket, to_broker, to_client)?;
        drop(far);
        let [one, other] = servers;
        let server = one?.join()?.or(other?.join()?).context("neither served")?;
        let name = format!("a shared port, turn {turn}, {}", family.name());
        stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })?;
    }
    Ok(())
}
