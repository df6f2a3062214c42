//! Hops: one message seen at one place, what names it, and how it is shown as a span. Pure.
//!
//! ```text
//!  record ─▶ Hop ─▶ (waits for its topic's name) ─▶ Span
//!             │
//!             ├ identity   trace and span ids that any agent would give it
//!             ├ groups     which group its consumer is a member of
//!             └ topics     names of topic ids
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod groups;
pub mod identity;
pub mod numbered;
pub mod sampling;
mod show;
pub mod topics;
mod waiting;

use std::sync::Arc;

use ktrace_kafka::context::{SpanId, TraceId};

use crate::export::Resource;
pub use topics::TopicName;
pub use waiting::Waiting;

/// A topic, its name known or still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    Named(Arc<TopicName>),
    /// Known by id alone (KIP-516).
    Id(u128),
}

/// What happened to the message here.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A producer sent it.
    Produced {
        /// As the request asked: −1 (all), 0 or 1.
        acks: i16,
    },
    /// A consumer got it.
    Delivered {
        group: Option<Arc<str>>,
        /// Messages behind this one that the consumer could have, `None` where the broker did not tell.
        lag: Option<i64>,
        delivery: identity::Delivery,
    },
}

/// The trace that the message's headers name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub format: &'static str,
    pub trace_id: TraceId,
    /// The span that sent it; `None` where the headers name the trace alone.
    pub span_id: Option<SpanId>,
    pub state: Option<Arc<str>>,
    /// Spans of other traces that less preferred formats name.
    pub others: Box<[Other]>,
}

/// A span that a less preferred format names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    pub format: &'static str,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// A client as the broker sees it: behind a translation of addresses that is not its own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its IP address as text, shared by the hops of a connection.
    pub address: Arc<str>,
    pub port: u16,
}

/// One message seen at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    pub kind: Kind,
    pub topic: Topic,
    pub partition: i32,
    /// `None` where the broker gave none (acks=0, or an error).
    pub offset: Option<i64>,
    /// The record's, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bytes of the value, `None` for a tombstone.
    pub value_len: Option<usize>,
    pub context: Option<Context>,
    /// The trace id that both sides can tell without any header.
    pub derived: TraceId,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    pub client_id: Option<Arc<str>>,
    pub cluster_id: Option<Arc<str>>,
    /// Its IP address as text, shared by the hops of a connection.
    pub broker_address: Arc<str>,
    pub broker_port: u16,
    /// Where the hop was seen at the broker's end: the client.
    pub client: Option<Client>,
    /// Bytes of its connection are missing right before it.
    pub truncated: bool,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
    pub resource: Arc<Resource>,
}

impl Hop {
    /// The trace that the hop belongs to.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.context.as_ref().map_or(self.derived, |context| context.trace_id)
    }
}
