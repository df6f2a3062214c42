//! Jaeger: `uber-trace-id`
//! (<https://www.jaegertracing.io/docs/1.76/client-libraries/#propagation-format>).

use super::hex;
use super::read::{Read, Values};
use super::text::{padded_span_id, padded_trace_id, text};

/// `<trace id>:<span id>:<parent>:<flags>` in hex, leading zeros left out or not. The colons may be
/// percent-encoded, as Jaeger's text maps for HTTP do. The parent is deprecated and not looked at.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(text(values.get(0).unwrap_or_default())).unwrap_or(Read::Malformed)
}

fn parse<'a>(value: &[u8]) -> Option<Read<'a>> {
    let encoded = !value.contains(&b':');
    let mut fields = value.split(|&byte| byte == if encoded { b'%' } else { b':' });
    let trace = fields.next()?;
    let mut next = || {
        let field = fields.next()?;
        if encoded { field.strip_prefix(b"3A").or_else(|| field.strip_prefix(b"3a")) } else { Some(field) }
    };
    let (span, _parent, flags) = (next()?, next()?, next()?);
    // Sampled is bit 0, as in W3C's flags; the others are Jaeger's own.
    let flags = u8::try_from(hex::number(flags)?).ok()? & 1;
    fields.next().is_none().then(|| Read::ids(padded_trace_id(trace), padded_span_id(span), Some(flags)))
}
