//! B3: one header or several (<https://github.com/openzipkin/b3-propagation>).

use super::read::{Read, Values};
use super::text::{sampled, span_id, text, trace_id};

/// `<trace id>-<span id>[-<sampling>[-<parent>]]`, or the sampling flag alone.
pub fn read_single<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let value = text(values.get(0).unwrap_or_default());
    if matches!(value, b"0" | b"1" | b"d") {
        return Read::Nothing;
    }
    let mut fields = value.split(|&byte| byte == b'-');
    let trace = fields.next().and_then(trace_id);
    let span = fields.next().and_then(span_id);
    let flags = match fields.next() {
        None => None,
        Some(b"0") => Some(0),
        Some(b"1" | b"d") => Some(1),
        Some(_) => return Read::Malformed,
    };
    // The parent is not needed, but nothing may come after it.
    let parent_is_fine = fields.next().is_none_or(|parent| span_id(parent).is_some());
    if !parent_is_fine || fields.next().is_some() {
        return Read::Malformed;
    }
    Read::ids(trace, span, flags)
}

/// `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`, `X-B3-Flags`.
pub fn read_multi<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let (trace, span) = match (values.get(0), values.get(1)) {
        (None, None) => return Read::Nothing,
        (Some(trace), Some(span)) => (trace_id(text(trace)), span_id(text(span))),
        _ => return Read::Malformed,
    };
    let debug = values.get(3).map(text) == Some(b"1");
    let flags = if debug { Some(1) } else { values.get(2).and_then(|value| sampled(text(value))) };
    Read::ids(trace, span, flags)
}
