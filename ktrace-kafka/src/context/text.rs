//! Text in header values: trimmed, and read as ids and sampling decisions.

use super::hex;
use super::id::{SpanId, TraceId};

/// A value as the text formats mean it: without blanks around it, and without the quotes that JSON
/// header mappers add, or what AMQP puts before it.
#[inline]
pub fn text(value: &[u8]) -> &[u8] {
    // Nearly all values are: a letter or a digit at either end.
    if let (Some(first), Some(last)) = (value.first(), value.last())
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
    {
        return value;
    }
    unquoted(of_amqp(value).unwrap_or(value).trim_ascii())
}

/// A string, symbol or binary in AMQP 1.0's encoding: a type, and a length of one byte or of four.
/// Azure Event Hubs hands what AMQP clients have sent as application properties over to Kafka's
/// clients like that.
pub fn of_amqp(value: &[u8]) -> Option<&[u8]> {
    let (len, text) = match value {
        [0xa0 | 0xa1 | 0xa3, len, text @ ..] => (usize::from(*len), text),
        [0xb0 | 0xb1 | 0xb3, l0, l1, l2, l3, text @ ..] => {
            (usize::try_from(u32::from_be_bytes([*l0, *l1, *l2, *l3])).ok()?, text)
        }
        _ => return None,
    };
    (text.len() == len).then_some(text)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// A trace id of 32 hex digits, or of 16 and then padded on the left.
pub fn trace_id(text: &[u8]) -> Option<TraceId> {
    if text.len() == 16 {
        let low: [u8; 8] = hex::decode(text)?;
        return TraceId::new(u128::from(u64::from_be_bytes(low)).to_be_bytes());
    }
    TraceId::new(hex::decode(text)?)
}

/// A span id of 16 hex digits.
pub fn span_id(text: &[u8]) -> Option<SpanId> {
    SpanId::new(hex::decode(text)?)
}

/// A trace id of 1 to 32 hex digits.
pub fn padded_trace_id(text: &[u8]) -> Option<TraceId> {
    TraceId::new(hex::number(text)?.to_be_bytes())
}

/// A span id of 1 to 16 hex digits, or of more zeros before them.
pub fn padded_span_id(text: &[u8]) -> Option<SpanId> {
    SpanId::new(u64::try_from(hex::number(text)?).ok()?.to_be_bytes())
}

/// A sampling decision as W3C's flags.
pub fn sampled(text: &[u8]) -> Option<u8> {
    match text {
        b"1" | b"true" => Some(1),
        b"0" | b"false" => Some(0),
        _ => None,
    }
}
