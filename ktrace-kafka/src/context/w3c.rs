//! W3C Trace Context: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>).

use super::{Read, SpanId, TraceId, Values, hex, text};

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LEN: usize = 55;

/// The longest `tracestate` that is passed on, in bytes; the specification asks for at least 512.
const MAX_STATE_BYTES: usize = 1024;

pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    // A state without a parent says nothing.
    let Some(parent) = values.get(0) else { return Read::Nothing };
    let state = values.get(1).and_then(state);
    parse(text(parent), state).unwrap_or(Read::Malformed)
}

fn state(value: &[u8]) -> Option<&str> {
    let short = Some(value).filter(|state| state.len() <= MAX_STATE_BYTES)?;
    std::str::from_utf8(text(short)).ok().filter(|state| !state.is_empty())
}

/// The id of a .NET activity under a key that has other uses too (`parent-id`, of Wolverine): a `traceparent`, or nothing.
pub fn read_perhaps<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(text(values.get(0).unwrap_or_default()), None).unwrap_or(Read::Nothing)
}

/// The id of a .NET activity (`MT-Activity-Id`, of MassTransit; `Diagnostic-Id`, of Azure's libraries): a `traceparent`, or of .NET's own hierarchical form,
/// which has no trace id of 16 bytes (<https://learn.microsoft.com/dotnet/api/system.diagnostics.activity.id>).
pub fn read_activity<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let id = text(values.get(0).unwrap_or_default());
    if id.starts_with(b"|") { Read::Nothing } else { parse(id, None).unwrap_or(Read::Malformed) }
}

/// Reads a `traceparent`.
#[inline(always)]
pub fn parse<'a>(parent: &[u8], state: Option<&'a str>) -> Option<Read<'a>> {
    let (known, more) = parent.split_first_chunk::<LEN>()?;
    // Every field has its place.
    let (version, rest) = known.split_first_chunk::<2>()?;
    let (trace, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<32>()?;
    let (span, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let flags = match rest.strip_prefix(b"-")? {
        b"01" => 1,
        b"00" => 0,
        flags => u8::from_be_bytes(hex::decode(flags)?),
    };
    if version != b"00" || !more.is_empty() {
        let [version]: [u8; 1] = hex::decode(version)?;
        let longer_is_legal = version != 0 && more.first() == Some(&b'-');
        if version == 0xff || !(more.is_empty() || longer_is_legal) {
            return None;
        }
    }
    let (trace_id, span_id) = (TraceId::new(hex::decode(trace)?)?, SpanId::new(hex::decode(span)?)?);
    Some(Read::Context { trace_id, span_id: Some(span_id), flags: Some(flags), state })
}
