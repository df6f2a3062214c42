//! Ways to go on and to end: many small rounds, silence with keep-alives, both directions at once,
//! half-closed, reset.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Socket, TcpKeepalive};

use super::stage::{Family, Stage, answer, ask, server};
use crate::bytes::Payload;
use crate::talk::{End, Sign, Talk, ends_of};

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    for family in Family::ALL {
        rounds(stage, family).context("rounds")?;
        both_at_once(stage, family).context("both at once")?;
        server_ends_first(stage, family).context("half-closed by the server")?;
        // An RST that was lost is not sent again.
        if !stage.lossy {
            reset(stage, family, true).context("reset by the client")?;
            reset(stage, family, false).context("reset by the server")?;
        }
    }
    silence(stage).context("silence")
}

fn read(mut socket: &Socket, bytes: &[u8]) -> Result<()> {
    let mut received = vec![0; bytes.len()];
    socket.read_exact(&mut received)?;
    ensure!(received == bytes, "other bytes were received than were sent");
    Ok(())
}

/// Parts of both payloads in turn, as requests and responses are.
fn turns(to_broker: Payload, to_client: Payload, each: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (to_broker, to_client) = (to_broker.bytes(), to_client.bytes());
    to_broker.chunks(each).zip(to_client.chunks(each)).map(|(a, b)| (a.to_vec(), b.to_vec())).collect()
}

fn rounds(stage: &mut Stage, family: Family) -> Result<()> {
    let count = if stage.short || stage.lossy { 20 } else { 300 };
    let (to_broker, to_client) = (stage.payload(count * 100), stage.payload(count * 100));
    let listener = family.listener()?;
    let serving = server(&listener, |mut socket| {
        socket.set_tcp_nodelay(true)?;
        for (question, answer) in turns(to_broker, to_client, 100) {
            read(socket, &question)?;
            socket.write_all(&answer)?;
        }
        Ok(())
    })?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    socket.set_tcp_nodelay(true)?;
    let mut writer = &socket;
    for (question, answer) in turns(to_broker, to_client, 100) {
        writer.write_all(&question)?;
        read(&socket, &answer)?;
    }
    let server = serving.join()?;
    let name = format!("{count} rounds, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

/// Keep-alives have a sequence number of before, and no bytes that count.
fn silence(stage: &mut Stage) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(2_000), stage.payload(2_000));
    let listener = Family::V4.listener()?;
    let serving = server(&listener, |mut socket| {
        for (question, answer) in turns(to_broker, to_client, 1_000) {
            read(socket, &question)?;
            socket.write_all(&answer)?;
        }
        Ok(())
    })?;
    let socket = Family::V4.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))?;
    let mut writer = &socket;
    for (question, answer) in turns(to_broker, to_client, 1_000) {
        thread::sleep(Duration::from_millis(2_500));
        writer.write_all(&question)?;
        read(&socket, &answer)?;
    }
    let server = serving.join()?;
    let name = "silence with keep-alives".to_owned();
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

fn both_at_once(stage: &mut Stage, family: Family) -> Result<()> {
    let len = if stage.short || stage.lossy { 50_000 } else { 1 << 20 };
    let (to_broker, to_client) = (stage.payload(len), stage.payload(len));
    let full_duplex = |socket: &Socket, out: Payload, back: Payload| -> Result<()> {
        let (out, back) = (out.bytes(), back.bytes());
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut writer = socket;
                writer.write_all(&out)
            });
            read(socket, &back)?;
            writing.join().ok().context("the writer panicked")??;
            Ok(())
        })
    };
    let listener = family.listener()?;
    let serving = server(&listener, |socket| full_duplex(socket, to_client, to_broker))?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    full_duplex(&socket, to_broker, to_client)?;
    let server = serving.join()?;
    let name = format!("both directions at once, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

fn server_ends_first(stage: &mut Stage, family: Family) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(20_000), stage.payload(3_000));
    let listener = family.listener()?;
    let serving = server(&listener, |socket| ask(socket, to_client, to_broker))?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    answer(&socket, to_client, to_broker)?;
    let server = serving.join()?;
    let name = format!("half-closed by the server, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}

/// All was received when one end closes with RST.
fn reset(stage: &mut Stage, family: Family, by_client: bool) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(7_000), stage.payload(8_000));
    let (first, last) = (to_broker.bytes(), to_broker.bytes().split_off(to_broker.len - 1));
    let first = &first[..first.len() - 1];
    let gone = |mut socket: &Socket| -> Result<()> {
        let ended = socket.read(&mut [0]);
        ensure!(ended.is_err(), "the connection was not reset: {ended:?}");
        Ok(())
    };
    let listener = family.listener()?;
    let serving = server(&listener, |mut socket| {
        read(socket, first)?;
        if by_client {
            read(socket, &last)?;
            socket.write_all(&to_client.bytes())?;
            return gone(socket);
        }
        socket.write_all(&to_client.bytes())?;
        read(socket, &last)?;
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(())
    })?;
    let socket = family.connect()?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    let mut writer = &socket;
    writer.write_all(first)?;
    if by_client {
        writer.write_all(&last)?;
        read(&socket, &to_client.bytes())?;
        socket.set_linger(Some(Duration::ZERO))?;
        drop(socket);
    } else {
        read(&socket, &to_client.bytes())?;
        writer.write_all(&last)?;
        gone(&socket)?;
    }
    let server = serving.join()?;
    let who = if by_client { "client" } else { "server" };
    let name = format!("reset by the {who}, {}", family.name());
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Reset { by_client } })
}
