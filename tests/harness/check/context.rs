//! The trace context that a message's headers carry, read independently of the agent: only the
//! styles that the tests' own clients write, without leniency.

use crate::truth::Line;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// 32 lower-case hex digits.
    pub trace_id: String,
    /// 16 lower-case hex digits.
    pub span_id: String,
}

/// Plain pairs of keys, trace id and span id.
const PAIRS: [(&str, &str); 4] = [
    ("X-B3-TraceId", "X-B3-SpanId"),
    ("trace_id", "span_id"),
    ("traceId", "spanId"),
    ("trace-id", "span-id"),
];

/// `traceparent` goes before `b3`, `b3` before the pairs.
#[must_use]
pub fn of(line: &Line) -> Option<Context> {
    if let Some(value) = line.header("traceparent") {
        let mut parts = value.split('-').skip(1);
        return Some(Context { trace_id: parts.next()?.into(), span_id: parts.next()?.into() });
    }
    if let Some(value) = line.header("b3") {
        let mut parts = value.split('-');
        return Some(Context { trace_id: parts.next()?.into(), span_id: parts.next()?.into() });
    }
    PAIRS.iter().find_map(|(trace, span)| {
        Some(Context { trace_id: line.header(trace)?.into(), span_id: line.header(span)?.into() })
    })
}
