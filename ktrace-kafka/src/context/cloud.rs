//! Google Cloud: `x-cloud-trace-context`
//! (<https://cloud.google.com/trace/docs/trace-context#legacy-http-header>).

use super::decimal;
use super::id::SpanId;
use super::read::{Read, Values};
use super::text::{text, trace_id};

/// `<trace id, 32 hex>/<span id, decimal>;o=<options>`; the span and the options may be missing.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(text(values.get(0).unwrap_or_default())).unwrap_or(Read::Malformed)
}

fn parse<'a>(value: &[u8]) -> Option<Read<'a>> {
    let mut halves = value.splitn(2, |&byte| byte == b';');
    let mut ids = halves.next()?.splitn(2, |&byte| byte == b'/');
    let trace_id = ids.next().filter(|digits| digits.len() == 32).and_then(trace_id)?;
    let span_id = match ids.next() {
        None => None,
        Some(span) => Some(SpanId::new(decimal::unsigned(span)?.to_be_bytes())?),
    };
    let flags = match halves.next() {
        None => None,
        // Bit 0 is "sampled", as in W3C's flags.
        Some(options) => Some(u8::from(decimal::unsigned(options.strip_prefix(b"o=")?)? & 1 == 1)),
    };
    Some(Read::Context { trace_id, span_id, flags, state: None })
}
