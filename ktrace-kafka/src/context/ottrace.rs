//! OT trace, of Lightstep and the OpenTracing basic tracers
//! (<https://opentelemetry.io/docs/specs/otel/context/api-propagators/#propagators-distribution>).

use super::read::{Read, Values};
use super::text::{sampled, span_id, text, trace_id};

/// `ot-tracer-traceid` (16 hex digits, the low half, or all 32), `ot-tracer-spanid`,
/// `ot-tracer-sampled`.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    match (values.get(0), values.get(1)) {
        (None, None) => Read::Nothing,
        (Some(trace), Some(span)) => {
            let flags = values.get(2).and_then(|value| sampled(text(value)));
            Read::ids(trace_id(text(trace)), span_id(text(span)), flags)
        }
        _ => Read::Malformed,
    }
}
