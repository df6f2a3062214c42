//! Instana, under the names that it uses in Kafka
//! (<https://github.com/instana/nodejs/blob/main/packages/core/src/tracing/constants.js>).

use super::read::{Read, Values};
use super::text::{padded_span_id, padded_trace_id, text};

/// `X_INSTANA_T`, `X_INSTANA_S`, `X_INSTANA_L_S`: hex, padded or not; the level is `0` where
/// tracing is suppressed.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let (trace, span) = match (values.get(0), values.get(1)) {
        // The level alone suppresses tracing.
        (None, None) => return Read::Nothing,
        (Some(trace), Some(span)) => (padded_trace_id(text(trace)), padded_span_id(text(span))),
        _ => return Read::Malformed,
    };
    Read::ids(trace, span, values.get(2).map(|level| u8::from(text(level) != b"0")))
}
