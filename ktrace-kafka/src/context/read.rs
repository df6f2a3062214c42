//! What a format makes of the values of its header keys.

use xxhash_rust::xxh3::xxh3_128;

use super::id::{SpanId, TraceId};

/// Header keys looked for at once: a bit each.
pub const SLOTS: usize = 64;

/// What a format makes of the values of its keys.
pub enum Read<'a> {
    Context {
        trace_id: TraceId,
        span_id: Option<SpanId>,
        flags: Option<u8>,
        state: Option<&'a str>,
    },
    /// A trace id that is a hash, and the format's name for that.
    Hashed {
        format: &'static str,
        trace_id: TraceId,
        span_id: Option<SpanId>,
        flags: Option<u8>,
    },
    /// Legal, but it names no trace (b3's lone sampling flag).
    Nothing,
    Malformed,
}

impl Read<'_> {
    /// A format that has both ids or none.
    pub fn ids(trace: Option<TraceId>, span: Option<SpanId>, flags: Option<u8>) -> Self {
        match (trace, span) {
            (Some(trace_id), Some(span_id)) => {
                Self::Context { trace_id, span_id: Some(span_id), flags, state: None }
            }
            _ => Self::Malformed,
        }
    }
}

/// Reads the values of a format's keys.
pub type ReadFn = for<'a> fn(&Values<'_, 'a>) -> Read<'a>;

/// The longest value that is read, in bytes: SkyWalking's limit, the highest that a format sets.
pub const MAX_VALUE_BYTES: usize = 2048;

/// The last value of each key of a format, in the table's order of keys.
pub struct Values<'s, 'a> {
    pub slots: &'s [&'a [u8]; SLOTS],
    pub present: u64,
    pub first: u32,
}

impl<'a> Values<'_, 'a> {
    /// The value of the format's key `index`. One that is too long is given as an empty one, which
    /// no format knows: it is malformed where it is needed, and missing where it is not.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&'a [u8]> {
        let slot = self.first.wrapping_add(index);
        if self.present.wrapping_shr(slot) & 1 == 0 {
            return None;
        }
        let value = *self.slots.get(usize::try_from(slot).ok()?)?;
        Some(if value.len() > MAX_VALUE_BYTES { &[] } else { value })
    }
}

/// A trace whose id is not of 16 bytes: XXH3-128 with seed 0 of the id's text, big endian, so that
/// all agents name it alike.
pub fn hashed<'a>(
    format: &'static str,
    text: &[u8],
    span_id: Option<SpanId>,
    flags: Option<u8>,
) -> Option<Read<'a>> {
    let trace_id = TraceId::new(xxh3_128(text).to_be_bytes())?;
    Some(Read::Hashed { format, trace_id, span_id, flags })
}
