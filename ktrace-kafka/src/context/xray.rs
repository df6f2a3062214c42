//! AWS X-Ray: `X-Amzn-Trace-Id`
//! (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).

use super::hex;
use super::id::TraceId;
use super::read::{Read, Values};
use super::text::{sampled, span_id, text};

/// `Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=<0, 1 or ?>`, in any order; other fields are
/// passed over. A front end that has no span of its own writes no parent.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let (mut trace, mut span, mut flags) = (None, None, None);
    for field in text(values.get(0).unwrap_or_default()).split(|&byte| byte == b';') {
        let field = field.trim_ascii();
        if let Some(value) = field.strip_prefix(b"Root=") {
            trace = root(value);
        } else if let Some(value) = field.strip_prefix(b"Parent=") {
            span = Some(span_id(value));
        } else if let Some(value) = field.strip_prefix(b"Sampled=") {
            flags = sampled(value);
        }
    }
    match (trace, span) {
        (None, _) | (_, Some(None)) => Read::Malformed,
        (Some(trace_id), span) => Read::Context { trace_id, span_id: span.flatten(), flags, state: None },
    }
}

/// The time in seconds and a random part, together the trace id.
fn root(value: &[u8]) -> Option<TraceId> {
    let mut parts = value.strip_prefix(b"1-")?.split(|&byte| byte == b'-');
    let time: [u8; 4] = hex::decode(parts.next()?)?;
    let random: [u8; 12] = hex::decode(parts.next()?)?;
    let mut bytes = [0; 16];
    for (byte, part) in bytes.iter_mut().zip(time.into_iter().chain(random)) {
        *byte = part;
    }
    if parts.next().is_some() { None } else { TraceId::new(bytes) }
}
