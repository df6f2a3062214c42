//! What was said: the truth that the capture is held against.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::bytes::Payload;

/// A line of the talking process.
#[derive(Serialize, Deserialize)]
pub enum Told {
    Talk(Talk),
    /// Something that this kernel cannot do.
    Lacks {
        what: String,
        why: String,
    },
}

/// One connection, from its beginning to its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Talk {
    pub name: String,
    /// Addresses of client and server, v4-mapped ones as IPv4.
    pub ends: (SocketAddr, SocketAddr),
    pub client: End,
    pub server: End,
    pub to_broker: Payload,
    pub to_client: Payload,
    pub sign: Sign,
}

/// What the capture has to show beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    Nothing,
    /// A packet with RST, by the client or by the server.
    Reset {
        by_client: bool,
    },
    /// Bytes of payload on the SYN.
    SynData(usize),
    /// The cookies are of other sockets than those that carry the bytes (MPTCP): found by
    /// addresses.
    OtherSockets,
    /// A packet of more than 64 KiB.
    BigPacket,
}

/// One end: the socket and the process that connected or accepted it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct End {
    pub cookie: u64,
    pub pid: u32,
}

impl End {
    /// Of a socket that this process has connected or accepted.
    pub fn of(socket: &Socket) -> Result<Self> {
        Ok(Self { cookie: socket.cookie()?, pid: std::process::id() })
    }
}

/// Addresses of the socket and its peer, v4-mapped ones as IPv4.
pub fn ends_of(client: &Socket) -> Result<(SocketAddr, SocketAddr)> {
    let canonical = |address: socket2::SockAddr| {
        let address = address.as_socket().context("no address")?;
        anyhow::Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    Ok((canonical(client.local_addr()?)?, canonical(client.peer_addr()?)?))
}
