//! Plain pairs of a trace id and a span id, and users' own keys: home-grown, without a
//! specification.

use super::id::{SpanId, TraceId};
use super::read::{Read, Values};
use super::text::{span_id, text, trace_id};
use super::{hex, w3c};

/// A trace id with, perhaps, a span id, or a `traceparent`. A span without a trace says nothing.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let Some(trace) = values.get(0) else { return Read::Nothing };
    if let Some(read) = w3c::parse(text(trace), None) {
        return read;
    }
    let Some(trace_id) = any_trace_id(trace) else { return Read::Malformed };
    Read::Context { trace_id, span_id: values.get(1).and_then(any_span_id), flags: None, state: None }
}

/// 32 or 16 hex digits, a UUID, or 16 raw bytes.
fn any_trace_id(value: &[u8]) -> Option<TraceId> {
    let digits = text(value);
    trace_id(digits).or_else(|| TraceId::new(hex::uuid(digits)?)).or_else(|| TraceId::new(raw(value)?))
}

/// 16 hex digits, or 8 raw bytes.
fn any_span_id(value: &[u8]) -> Option<SpanId> {
    span_id(text(value)).or_else(|| SpanId::new(raw(value)?))
}

/// Raw bytes: a value of this length that is not text.
fn raw<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let is_text = value.iter().all(|byte| (0x20..0x7f).contains(byte));
    value.try_into().ok().filter(|_| !is_text)
}
