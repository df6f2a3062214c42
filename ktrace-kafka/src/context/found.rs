//! What was found in a record's headers.

use super::id::{SpanId, TraceId};

/// What a record's headers say of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The format's name in the table, or `key:NAME`; with `-hash` at its end where the format's
    /// trace id is not of 16 bytes and `trace_id` is the XXH3-128 of its text.
    pub format: &'static str,
    /// The trace.
    pub trace_id: TraceId,
    /// The span that sent the message; `None` where only the trace is named.
    pub span_id: Option<SpanId>,
    /// W3C trace flags (bit 0: sampled), where the format has them.
    pub flags: Option<u8>,
    /// W3C `tracestate`.
    pub state: Option<&'a str>,
}

/// The outcome of a look into a record's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// The first format, in the order of preference, that was there and could be read.
    pub context: Option<TraceContext<'a>>,
    /// What less preferred formats, and values under the same keys, say where they name another
    /// trace, in the order of preference. Hashed ids are not compared and not here: they always
    /// differ.
    pub others: &'a [TraceContext<'a>],
    /// The formats whose keys were there, but whose values could not be read.
    pub malformed: Formats,
}

/// A set of an extractor's formats; [`Extractor::names`](super::Extractor::names) lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats(pub(super) u64);

impl Formats {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
}
