//! Distinguishes Kafka from everything else, by the first bytes of a request.
//!
//! ```text
//!  size (int32)  api key (int16)  version (int16)  correlation id (int32)  client id (int16 length, text)
//! ```
//!
//! The agent judges again, and better: what it does not take for Kafka it refuses. Here a few
//! comparisons have to do.

/// Bytes that are looked at.
pub const HEAD: usize = 16;

/// Kafka's keys are below this one: 4.3 goes up to 92, and adds a few a year.
const KEYS: u8 = 112;
/// No API has as many versions; Fetch has most, 18.
const VERSIONS: u8 = 32;
/// `socket.request.max.bytes` is 100 MiB unless it was changed.
const MAX_SIZE: u32 = 100 << 20;
/// Longer ones are not believed in the middle of a connection.
const MAX_CLIENT_ID: u32 = 1024;

/// Whether these bytes may begin a request in the middle of a connection, where they may be
/// anything.
#[inline(always)]
pub fn is_plausible(head: &[u8; HEAD]) -> bool {
    let Some(client_id) = client_id(head) else { return false };
    client_id == 0 || (client_id <= MAX_CLIENT_ID && head[14] >= 0x20 && head[14] != 0x7f)
}

/// Whether they may begin the first request of a connection. A client id may be any bytes, and the
/// agent sees all of it.
#[inline(always)]
pub fn may_begin(head: &[u8; HEAD]) -> bool {
    client_id(head).is_some()
}

/// How long the client id is, where all else may be a request's.
#[inline(always)]
fn client_id(head: &[u8; HEAD]) -> Option<u32> {
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    // ControlledShutdown 0 alone has no client id, and is 8 bytes long.
    if !is_start(&[head[0], head[1], head[2], head[3]]) || head[4] != 0 || head[5] >= KEYS {
        return None;
    }
    if head[6] != 0 || head[7] >= VERSIONS {
        return None;
    }
    let length = u16::from_be_bytes([head[12], head[13]]);
    let length = if length == u16::MAX { 0 } else { u32::from(length) };
    (length <= i16::MAX as u32 && length + 10 <= size).then_some(length)
}

/// The same by the size alone.
#[inline(always)]
pub fn is_start(size: &[u8; 4]) -> bool {
    let size = u32::from_be_bytes(*size);
    (8..=MAX_SIZE).contains(&size)
}

/// Whether a TLS handshake begins so: record type 22, version 3.x.
#[inline(always)]
pub fn is_tls_hello(start: &[u8; 4]) -> bool {
    start[0] == 22 && start[1] == 3 && start[2] <= 4
}

/// Whether a TLS record of a connection that was there before begins so: application data, version
/// 3.3 (RFC 8446, section 5.1).
#[inline(always)]
pub fn is_tls_data(start: &[u8; 4]) -> bool {
    start[0] == 23 && start[1] == 3 && start[2] == 3
}

/// Whether a client says something to a proxy before its first request, by its first bytes: SOCKS 5
/// (RFC 1928) and 4, HTTP CONNECT (RFC 9110, section 9.3.6), the PROXY protocol's two versions. The
/// agent reads it.
#[inline(always)]
pub fn is_preface(start: &[u8; 8], len: u32) -> bool {
    match start {
        [4, 1, ..] => len >= 9,
        [5, ..] => is_socks5(start[1], len),
        b"CONNECT "
        | [b'P', b'R', b'O', b'X', b'Y', b' ', ..]
        | [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51] => true,
        _ => false,
    }
}

/// Ten ways to authenticate are registered, and clients offer one to three.
const MAX_METHODS: u8 = 16;

/// Whether a SOCKS 5 greeting has this length: version, number of methods, methods. The server
/// answers before more is sent.
#[inline(always)]
pub fn is_socks5(methods: u8, len: u32) -> bool {
    (1..=MAX_METHODS).contains(&methods) && len == u32::from(methods) + 2
}
