//! TLS, recognised by its records: nothing inside is read.
//!
//! A connection seen from its beginning begins with a handshake record. One that is older has only
//! application data, whose records may begin anywhere in a segment; most segments of a sender begin
//! with one. No Kafka frame of less than 352 MiB begins with the same bytes, so a mere piece of a
//! value has to look so, twice.

/// Record types of TLS: change of cipher, alert, handshake, application data.
const TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// The longest record: 2¹⁴ bytes of plaintext, and what encryption may add (RFC 5246, 6.2.3).
const MAX_RECORD_BYTES: usize = (1 << 14) + 2048;

/// Segments that have to begin with records, in a connection whose beginning was not seen: one may
/// be a piece of a value by chance.
const ENOUGH: u8 = 2;

/// Whether a connection's first bytes are those of a TLS handshake: type 22, version 3.x.
pub fn is_handshake(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 3, 0..=4, ..])
}

/// Looks for TLS in a connection whose beginning was not seen.
#[derive(Default)]
pub struct Records {
    segments: u8,
}

impl Records {
    /// A segment came, or what was new of it. Returns whether enough of them were TLS.
    pub fn see(&mut self, segment: &[u8]) -> bool {
        if begins_with_data(segment) {
            self.segments = self.segments.saturating_add(1);
        }
        self.segments >= ENOUGH
    }
}

/// Whether bytes are a record of application data, and records behind it, as far as they go.
fn begins_with_data(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&23) {
        return false;
    }
    let mut rest = bytes;
    while let Some((&[kind, major, minor, high, low], body)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        if !TYPES.contains(&kind) || major != 3 || minor > 4 || len == 0 || len > MAX_RECORD_BYTES {
            return false;
        }
        match body.get(len..) {
            Some(behind) => rest = behind,
            // It goes on in the next segment.
            None => return true,
        }
    }
    // The next header may be cut.
    rest.len() < bytes.len() && rest.first().is_none_or(|kind| TYPES.contains(kind))
}
