//! Datadog: decimal ids of 64 bits, and the trace id's high half in the tags
//! (<https://github.com/DataDog/dd-trace-java>, `DatadogHttpCodec`).

use super::id::{SpanId, TraceId};
use super::read::{Read, Values};
use super::text::text;
use super::{decimal, hex};

/// The tag with the high half of a trace id of 128 bits, 16 hex digits.
const HIGH_HALF: &[u8] = b"_dd.p.tid=";

/// `x-datadog-trace-id`, `x-datadog-parent-id`, `x-datadog-tags`, `x-datadog-sampling-priority`.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let Some(trace) = values.get(0) else {
        // The tags and the priority alone name no trace.
        return if values.get(1).is_some() { Read::Malformed } else { Read::Nothing };
    };
    let Some(low) = decimal::unsigned(text(trace)).filter(|low| *low != 0) else { return Read::Malformed };
    let high = values.get(2).and_then(high_half).unwrap_or_default();
    let span_id = match values.get(1).map(text) {
        // 0 is how Datadog says that there is no span.
        None | Some(b"0") => None,
        Some(span) => match decimal::unsigned(span).and_then(|span| SpanId::new(span.to_be_bytes())) {
            Some(span_id) => Some(span_id),
            None => return Read::Malformed,
        },
    };
    // Negative and 0 drop, positive keeps.
    let flags = values.get(3).and_then(|value| decimal::signed(text(value))).map(|p| u8::from(p > 0));
    let trace_id = TraceId::new((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
    trace_id.map_or(Read::Malformed, |trace_id| Read::Context { trace_id, span_id, flags, state: None })
}

/// Broken tags are passed over, as Datadog's own readers do: the low half is a trace id by itself.
fn high_half(tags: &[u8]) -> Option<u64> {
    let tag =
        text(tags).split(|&byte| byte == b',').find_map(|tag| tag.trim_ascii().strip_prefix(HIGH_HALF))?;
    hex::decode(tag).map(u64::from_be_bytes)
}
