//! What every scene is played with: addresses, the choices, and how both sides speak.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::apart::{Apart, apart};
use crate::bytes::{Payload, Random};
use crate::talk::{End, Sign, Talk, Told, ends_of};

/// What the capture watches.
pub const PORTS: &str = "19092-19093";

/// How a client and its server address each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    /// IPv4 by sockets for IPv6.
    Mapped,
}

impl Family {
    pub(super) const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Mapped => "IPv4 mapped",
        }
    }

    pub(super) fn domain(self) -> Domain {
        if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 }
    }

    /// Where the server listens.
    pub(super) fn listen_at(self) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::from(([127, 0, 0, 1], 19092)),
            Self::V6 => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 19092)),
            Self::Mapped => SocketAddr::from(([0_u16; 8], 19093)),
        }
    }

    /// Where the client connects to.
    pub(super) fn server(self) -> SocketAddr {
        match self {
            Self::V4 | Self::V6 => self.listen_at(),
            Self::Mapped => SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1], 19093)),
        }
    }

    pub(super) fn socket(self) -> io::Result<Socket> {
        Socket::new(self.domain(), Type::STREAM, Some(Protocol::TCP))
    }

    pub(super) fn listener(self) -> Result<Socket> {
        self.listener_of(Protocol::TCP)
    }

    pub(super) fn listener_of(self, protocol: Protocol) -> Result<Socket> {
        let listener = Socket::new(self.domain(), Type::STREAM, Some(protocol))?;
        listener.set_reuse_address(true)?;
        if self == Self::Mapped {
            listener.set_only_v6(false)?;
        }
        listener.bind(&self.listen_at().into())?;
        listener.listen(128)?;
        Ok(listener)
    }

    /// A socket connected to the family's server.
    pub(super) fn connect(self) -> Result<Socket> {
        let socket = self.socket()?;
        socket.connect(&self.server().into())?;
        Ok(socket)
    }
}

/// The stage: random choices, and where what was said is reported.
pub struct Stage {
    pub(super) random: Random,
    pub(super) short: bool,
    /// Packets are lost and come late.
    pub(super) lossy: bool,
}

impl Stage {
    pub fn new(seed: u64, short: bool, lossy: bool) -> Self {
        Self { random: Random::new(seed), short, lossy }
    }

    /// Bytes of their own.
    pub(super) fn payload(&mut self, len: usize) -> Payload {
        Payload { seed: self.random.next(), len }
    }

    pub(super) fn tell(&self, talk: Talk) -> Result<()> {
        say(&Told::Talk(talk))
    }

    pub(super) fn lacks(&self, what: &str, why: impl ToString) -> Result<()> {
        say(&Told::Lacks { what: what.into(), why: why.to_string() })
    }
}

fn say(told: &Told) -> Result<()> {
    println!("{}", serde_json::to_string(told)?);
    Ok(())
}

/// A server in a process of its own, that accepts one connection and does this with it.
pub(super) fn server(listener: &Socket, work: impl FnOnce(&Socket) -> Result<()>) -> Result<Apart<End>> {
    apart(|| {
        let socket = listener.accept()?.0;
        let end = End::of(&socket)?;
        work(&socket).context("server")?;
        Ok(end)
    })
}

/// Reads these bytes, and nothing after them.
pub(super) fn expect(mut socket: &Socket, payload: Payload) -> Result<()> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let sent = payload.bytes();
    let same = bytes.iter().zip(&sent).take_while(|(received, sent)| received == sent).count();
    ensure!(
        bytes == sent,
        "{} bytes were received where {} were sent, the first {same} of them",
        bytes.len(),
        sent.len()
    );
    Ok(())
}

/// Answers the client's bytes with the server's, each side to its end.
pub(super) fn answer(socket: &Socket, to_broker: Payload, to_client: Payload) -> Result<()> {
    expect(socket, to_broker)?;
    let mut writer = socket;
    writer.write_all(&to_client.bytes())?;
    socket.shutdown(std::net::Shutdown::Write)?;
    Ok(())
}

/// Sends the client's bytes, ends that direction, and reads the server's.
pub(super) fn ask(socket: &Socket, to_broker: Payload, to_client: Payload) -> Result<()> {
    let mut writer = socket;
    writer.write_all(&to_broker.bytes())?;
    socket.shutdown(std::net::Shutdown::Write)?;
    expect(socket, to_client)
}

/// Plays and reports a connection of one question and one answer; `connect` opens it.
pub(super) fn one(
    stage: &mut Stage,
    name: String,
    sign: Sign,
    listener: &Socket,
    len: usize,
    connect: impl FnOnce(&[u8]) -> Result<(Socket, usize)>,
) -> Result<()> {
    let (to_broker, to_client) = (stage.payload(len), stage.payload(len));
    let answering = server(listener, |socket| answer(socket, to_broker, to_client))?;
    // What went with the opening already.
    let bytes = to_broker.bytes();
    let (socket, sent) = connect(&bytes).with_context(|| name.clone())?;
    let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
    let mut writer = &socket;
    writer.write_all(&bytes[sent..])?;
    socket.shutdown(std::net::Shutdown::Write)?;
    // Both ends are waited for: the failure of one may well be the other's reason.
    let (received, server) = (expect(&socket, to_client), answering.join());
    let server = server.with_context(|| name.clone())?;
    received.with_context(|| name.clone())?;
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign })
}
