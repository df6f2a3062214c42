//! Hops: one message seen at one place, what names it, and how it is shown as a span. Pure.
//!
//! ```text
//!  record ─▶ Hop ─▶ (the worker's stages) ─▶ Hops, a sink's queue ─▶ Span
//!             │
//!             ├ identity   trace and span ids that any agent would give it
//!             ├ groups     which member of which group its consumer is
//!             ├ progress   how often it was delivered, and what a commit covers
//!             ├ uncommitted  what it has not committed in time
//!             ├ acknowledge  what members of share groups do with it
//!             ├ attempts   how often it was sent
//!             ├ chains     which message made its process send it
//!             ├ appends    when it was sent, of what is delivered
//!             ├ transactions  what became of its transaction
//!             ├ own        whether it carries ktrace's own telemetry
//!             ├ deadline   how long it waits for any of this
//!             ├ stamp      whether its record's timestamp can be one
//!             ├ refusal    how often what a broker refuses is shown
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

pub mod acknowledge;
pub mod appends;
pub mod attempts;
pub mod chains;
pub mod deadline;
pub mod groups;
mod hops;
pub mod identity;
mod key;
pub mod own;
pub mod progress;
pub mod refusal;
pub mod sampling;
mod show;
pub mod stamp;
pub mod store;
pub mod topics;
pub mod transactions;
pub mod uncommitted;
pub mod versioned;

use std::sync::Arc;

use ktrace_kafka::context::{SpanId, TraceId};
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};

use crate::span::Resource;
use acknowledge::Acknowledgement;
use appends::Sent;
use chains::Cause;
use groups::Reader;
pub use hops::{HopRef, Hops};
pub use key::Key;
use refusal::{Operation, Refusal};
pub use show::shown;
use stamp::Stamp;
pub use topics::TopicName;
use transactions::{State, Transaction};

/// A topic, its name known or still to come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Named(Arc<TopicName>),
    /// Known by id alone (KIP-516).
    Id(u128),
}

/// What happened to the message here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A producer has sent it.
    Produced {
        /// As the request asked: −1 (all), 0 or 1.
        acks: i16,
        /// The number of this attempt, from 1.
        attempt: u32,
        /// It has failed, and another attempt may follow.
        pending: Option<Box<attempts::Message>>,
        /// How long its producer has to wait by its quota, in milliseconds.
        throttle_ms: u32,
    },
    /// A consumer has fetched it.
    Delivered {
        /// Messages after this one that the consumer could read; `None` where the broker did not
        /// say.
        lag: Option<i64>,
        delivery: identity::Delivery,
        /// The number of this delivery to its group, from 1; `None` where that is not known.
        times: Option<u32>,
        /// Later messages of the partition were delivered to the group before, and this one was
        /// not.
        is_behind: bool,
        /// Its group has not committed it for too long: see [`uncommitted`].
        is_uncommitted: bool,
        /// It was in the log before its consumer began to read it there.
        is_catching_up: bool,
        /// When it was sent.
        sent: Sent,
        /// How long its consumer has to wait by its quota, in milliseconds.
        throttle_ms: u32,
    },
    /// A group has committed the offset after it.
    Committed(Box<Commit>),
    /// A share group's member has acknowledged it, or the last of a few.
    Acknowledged(Box<Acknowledgement>),
    /// Not a message: a broker has refused a client's request.
    Refused(Box<Refusal>),
}

/// A commit of a group's offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub covered: progress::Covered,
    /// How long the client has to wait by its quota, in milliseconds.
    pub throttle_ms: u32,
    /// Hashed into its span id, with the topic: see [`identity::commit_hash`].
    pub place: u64,
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
    /// Its IP address as text.
    pub address: Arc<str>,
    pub port: u16,
}

/// The client and the broker of a hop. Hops of a connection share one as long as nothing of it
/// changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Parties {
    pub client_id: Option<Arc<str>>,
    /// The consumer that the client reads for.
    pub reader: Reader,
    pub cluster_id: Option<Arc<str>>,
    /// Its IP address as text.
    pub broker_address: Arc<str>,
    pub broker_port: u16,
    /// The client's address, where the hop was captured at the broker's end.
    pub client: Option<Client>,
    pub resource: Arc<Resource>,
}

/// What a hop does not share with its neighbours: the message as it passed, its times and its
/// outcome. Hops of one exchange share their [`Parties`] and [`Topic`], so queues hold these once
/// for a run of passages ([`Hops`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    pub kind: Kind,
    pub partition: i32,
    /// `None` where the broker gave none (acks=0, or an error).
    pub offset: Option<i64>,
    /// The record's, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The record's, where the user asks for keys.
    pub key: Option<Key>,
    /// Bytes of the value, `None` for a tombstone.
    pub value_len: Option<usize>,
    pub context: Option<Context>,
    /// The transaction that it is a part of, and what became of it.
    pub transaction: Option<(Arc<Transaction>, State)>,
    /// The delivery that caused its producer to send it, where no header names one.
    pub cause: Option<Box<Cause>>,
    /// The trace id that both ends derive without any header: see [`identity`].
    pub derived: TraceId,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// Bytes of its connection are missing right before it.
    pub truncated: bool,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
}

impl Passage {
    /// The passage of a commit or an acknowledgement, which is no message itself. Times and error
    /// are the caller's to set.
    #[must_use]
    pub fn settling(kind: Kind, partition: i32, offset: i64, derived: TraceId) -> Self {
        Self {
            kind,
            partition,
            offset: Some(offset),
            timestamp_ms: -1,
            key: None,
            value_len: None,
            context: None,
            transaction: None,
            cause: None,
            derived,
            error: 0,
            truncated: false,
            start_ns: 0,
            end_ns: 0,
        }
    }

    /// What it takes, in bytes, about, with its place in [`Hops`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// A row's, and a box's with the allocator's share of it.
        const BESIDE: usize = 128;
        let key = self.key.as_ref().map_or(0, Key::bytes);
        let context = self.context.as_ref().map_or(0, |context| {
            let state = context.state.as_ref().map_or(0, |state| state.len());
            size_of_val(&*context.others).saturating_add(state)
        });
        size_of::<Self>().saturating_add(BESIDE).saturating_add(key).saturating_add(context)
    }

    /// The trace that the hop belongs to.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.context.as_ref().map_or(self.derived, |context| context.trace_id)
    }

    /// Sets the cause, unless the message's headers name the cause's trace already.
    pub fn caused_by(&mut self, cause: Option<Cause>) {
        let is_news = |cause: &Cause| self.context.as_ref().is_none_or(|own| own.trace_id != cause.trace_id);
        self.cause = cause.filter(is_news).map(Box::new);
    }

    /// Sets how often it was delivered, where that is known later than the rest.
    pub fn counts(&mut self, before: progress::Before) {
        if let Kind::Delivered { times, is_behind, .. } = &mut self.kind {
            (*times, *is_behind) = (Some(before.times.saturating_add(1)), before.is_behind);
        }
    }

    /// How a client takes the error: as success, as a failure, or as one to retry.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let purpose = match &self.kind {
            Kind::Produced { .. } => Purpose::Produce,
            Kind::Delivered { .. } => Purpose::Fetch,
            Kind::Committed(_) => Purpose::Commit,
            Kind::Acknowledged(_) => Purpose::Acknowledge,
            Kind::Refused(of) if of.operation == Operation::Poll => Purpose::Fetch,
            Kind::Refused(_) => Purpose::Other,
        };
        error::outcome(purpose, self.error)
    }

    /// Whether it has an error that its client takes for one.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.error != 0 && self.outcome() != Outcome::Success
    }

    /// Its record's timestamp; [`Stamp::Missing`] for what is not a message.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        match self.kind {
            Kind::Produced { .. } | Kind::Delivered { .. } => Stamp::of(self.timestamp_ms, self.end_ns),
            Kind::Committed(_) | Kind::Acknowledged(_) | Kind::Refused(_) => Stamp::Missing,
        }
    }

    /// How long the exchange took, in nanoseconds.
    #[must_use]
    pub fn took_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// From the record's timestamp to the end of its delivery, in nanoseconds. `None` for what is
    /// not a delivery and for a record without a plausible timestamp. 0 where the timestamp lies
    /// ahead: the record's clock may be another host's.
    #[must_use]
    pub fn queue_ns(&self) -> Option<u64> {
        let Kind::Delivered { .. } = self.kind else { return None };
        Some(self.end_ns.saturating_sub(self.stamp().ns()?))
    }

    /// From the first byte of its producer's request to the end of its delivery, in nanoseconds,
    /// where both were captured on this host.
    #[must_use]
    pub fn end_to_end_ns(&self) -> Option<u64> {
        match self.kind {
            // Its last byte may come before its first; and captures of several hosts may have been
            // put together.
            Kind::Delivered { sent: Sent::At(sent_ns), .. } => {
                self.end_ns.max(self.start_ns).checked_sub(sent_ns)
            }
            _ => None,
        }
    }

    /// How late a delivered message came, in nanoseconds: on one clock where that is known, else
    /// since its timestamp. `None` for a message that its consumer catches up with: that one is
    /// old, and not late.
    #[must_use]
    pub fn late_ns(&self) -> Option<u64> {
        if self.is_catching_up() { None } else { self.end_to_end_ns().or_else(|| self.queue_ns()) }
    }

    /// Whether it was in the log before its consumer began to read it there.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        matches!(self.kind, Kind::Delivered { is_catching_up: true, .. })
    }
}

/// One message seen at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    pub parties: Arc<Parties>,
    pub topic: Topic,
    pub passage: Passage,
}

impl Hop {
    /// Whether the hop has to wait: for its topic's name, its transaction's end, its producer's
    /// response or another attempt.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.topic, Topic::Id(_))
            || (matches!(self.passage.transaction, Some((_, State::Open)))
                && !matches!(self.passage.kind, Kind::Committed(_)))
            || matches!(self.passage.kind, Kind::Delivered { sent: Sent::Sought(_), .. })
            || self.may_be_sent_again()
    }

    /// Whether its producer failed to send it, and may retry.
    #[must_use]
    pub fn may_be_sent_again(&self) -> bool {
        matches!(self.passage.kind, Kind::Produced { pending: Some(_), .. })
    }

    /// The consumer group that got the message, or has committed it.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match self.passage.kind {
            Kind::Produced { .. } => None,
            Kind::Delivered { .. } | Kind::Committed(_) | Kind::Acknowledged(_) | Kind::Refused(_) => {
                self.parties.reader.group().map(|group| &**group)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;
