//! Trace context in record headers: which keys, which formats, which comes first.
//!
//! A format is one line in `table.rs`: its name, its header keys, and the function that reads their
//! values. A family of formats has a file. Users add keys of their own with [`Wanted::Key`]. Keys
//! match in any case of letters, but Kafka's are case-sensitive: a key as its tracer writes it wins
//! over one in another case. Of a repeated key the last value counts, as in Java's `lastHeader`; a
//! value that cannot be read counts as none, as W3C has it, so that one before it is used. The
//! loser is kept where it names another trace: some clients go on with the first value.

mod b3;
mod base64;
mod binary;
mod cloud;
mod datadog;
mod decimal;
mod extractor;
mod found;
mod hex;
mod id;
mod instana;
mod jaeger;
mod newrelic;
mod ottrace;
mod pair;
mod pinpoint;
mod read;
mod sentry;
mod skywalking;
mod slots;
mod table;
mod text;
mod w3c;
mod xray;

#[cfg(test)]
mod tests;

pub use extractor::{Extractor, Wanted, WantedError};
pub use found::{Formats, Found, TraceContext};
pub use id::{SpanId, TraceId};
pub use slots::Slots;

use table::TABLE;

/// The names of all formats, in the order in which they are preferred.
pub fn formats() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|format| format.name)
}

/// The header keys of all formats, as their tracers write them.
pub fn keys() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|format| format.keys.iter().copied())
}
