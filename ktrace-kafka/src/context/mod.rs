//! Trace context in record headers.

pub mod id;

pub use id::{SpanId, TraceId};
