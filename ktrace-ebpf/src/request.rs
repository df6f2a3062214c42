//! Kafka told from everything else, by the first bytes of a request.
//!
//! ```text
//!  size (int32)  api key (int16)  version (int16)  correlation id (int32)  client id (int16 length, text)
//! ```
//!
//! The agent judges again, and better: what it does not take for Kafka it refuses. Here a few comparisons have to do.

/// Bytes that are looked at.
pub const HEAD: usize = 16;

/// Kafka's keys are below this one: 4.3 goes up to 92, and adds a few a year.
const KEYS: u8 = 112;
/// No API has as many versions; Fetch has most, 18.
const VERSIONS: u8 = 32;
/// `socket.request.max.bytes` is 100 MiB unless it was changed.
const MAX_SIZE: u32 = 100 << 20;
/// Longer ones are not believed.
const MAX_CLIENT_ID: u32 = 1024;

/// Whether these bytes may begin a request.
#[inline(always)]
pub fn is_plausible(head: &[u8; HEAD]) -> bool {
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    // ControlledShutdown 0 alone has no client id, and is 8 bytes long.
    if !is_start(&[head[0], head[1], head[2], head[3]]) || head[4] != 0 || head[5] >= KEYS {
        return false;
    }
    if head[6] != 0 || head[7] >= VERSIONS {
        return false;
    }
    let client_id = u16::from_be_bytes([head[12], head[13]]);
    if client_id == u16::MAX || client_id == 0 {
        return size >= 10;
    }
    u32::from(client_id) <= MAX_CLIENT_ID
        && u32::from(client_id) + 10 <= size
        && head[14] >= 0x20
        && head[14] != 0x7f
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

/// Whether a TLS record of a connection that was there before begins so: application data, version 3.3 (RFC 8446, section 5.1).
#[inline(always)]
pub fn is_tls_data(start: &[u8; 4]) -> bool {
    start[0] == 23 && start[1] == 3 && start[2] == 3
}
