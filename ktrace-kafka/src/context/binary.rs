//! The binary encoding of OpenCensus, which Elastic's agents write too: `00`, then fields, each an
//! id and its bytes.
//!
//! ```text
//!  00 │ 00 trace id (16) │ 01 span id (8) │ 02 flags (1)
//! ```
//!
//! <https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>,
//! <https://github.com/elastic/apm/blob/main/specs/agents/tracing-distributed-tracing.md>

use super::id::{SpanId, TraceId};
use super::read::{Read, Values};

/// All three fields, in order, and nothing after them: what both write.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(values.get(0).unwrap_or_default()).unwrap_or(Read::Malformed)
}

fn parse<'a>(value: &[u8]) -> Option<Read<'a>> {
    let (trace, rest) = value.strip_prefix(&[0, 0])?.split_first_chunk()?;
    let (span, rest) = rest.strip_prefix(&[1])?.split_first_chunk()?;
    let [2, flags] = *rest else { return None };
    Some(Read::ids(TraceId::new(*trace), SpanId::new(*span), Some(flags)))
}
