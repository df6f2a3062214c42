//! What brokers refuse that brings no message is shown as a hop of its own, once in a while, and
//! always counted.

use ktrace_kafka as kafka;
use ktrace_kafka::CoordinatorKind;
use ktrace_kafka::protocol::api::{Api, key};
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use ktrace_kafka::{Event, Head};

use super::Listener;
use crate::hop::groups::{self, Reader};
use crate::hop::refusal::{Operation, PATIENCE_NS, Refusal};
use crate::hop::{Hop, Kind, Passage, Topic, identity};
use crate::worker::connection::cursor::named;
use crate::worker::deliveries::MAX_ID_BYTES;
use crate::worker::refused::Count;

/// What is refused, beside the exchange that says so.
#[derive(Clone, Copy, Default)]
struct What<'a> {
    topic: Option<kafka::Topic<'a>>,
    /// −1 for none, or all.
    partition: i32,
    /// From where a fetch goes on; −1 if unknown.
    offset: i64,
    group_id: Option<&'a str>,
    error: i16,
}

impl<'a> What<'a> {
    /// Of an event that bears an error.
    fn of(event: &Event<'a>) -> Option<Self> {
        let none = Self { partition: -1, offset: -1, ..Self::default() };
        Some(match *event {
            Event::Refused { topic, partition, offset, group_id, error } => {
                Self { topic, partition: partition.unwrap_or(-1), offset, group_id, error }
            }
            Event::Coordinator { kind, key, error, .. } => {
                let group_id = (kind == CoordinatorKind::Group).then_some(key);
                Self { group_id, error, ..none }
            }
            Event::Member(member) => Self { group_id: Some(member.group_id), error: member.error, ..none },
            // All partitions of a group are most often refused together.
            Event::Position { group_id, error, .. } => Self { group_id: Some(group_id), error, ..none },
            Event::LogOffset { topic, partition, error, .. }
            | Event::TransactionPartition { topic, partition, error, .. } => {
                Self { topic: Some(topic), partition, error, ..none }
            }
            Event::TransactionGroup { group_id, error, .. } => {
                Self { group_id: Some(group_id), error, ..none }
            }
            Event::Producer { error, .. }
            | Event::TransactionEnd { error, .. }
            | Event::Sasl { error, .. } => Self { error, ..none },
            _ => return None,
        })
        .filter(|what| what.error != 0)
    }
}

impl Listener<'_> {
    /// The broker asks the client to wait.
    pub(super) fn makes_wait(&mut self, head: &Head<'_>, throttle_ms: u32) {
        self.state.throttle_ms = throttle_ms;
        if let Some(api) = Api::of(head.api_key)
            && let Some(count) = self.stages.both_ends.count(self.id, Count::Throttled(api.name, throttle_ms))
        {
            self.world.shared.counts.add(count);
        }
    }

    /// A request of a client was refused, in part or as a whole, and is shown as what it should
    /// have brought: a message sent, a commit, an acknowledgement.
    pub(super) fn count_refused(&mut self, head: &Head<'_>, error: i16) {
        // What is left unanswered was not refused.
        let is_refused =
            head.response.is_some() && error::outcome(Purpose::of(head.api_key), error) != Outcome::Success;
        if is_refused
            && let Some(api) = Api::of(head.api_key)
            && let Some(count) = self.stages.both_ends.count(self.id, Count::Refused(api.name, error))
        {
            self.world.shared.counts.add(count);
        }
    }

    /// Something is refused that brings no message.
    pub(super) fn refused(&mut self, head: &Head<'_>, event: &Event<'_>) {
        let Some(what) = What::of(event) else { return };
        if self.has_found_other_end() {
            return;
        }
        let (Some(api), Some(response)) = (Api::of(head.api_key), head.response) else { return };
        self.count_refused(head, what.error);
        let purpose = Purpose::of(head.api_key);
        let patience_ns = match error::outcome(purpose, what.error) {
            Outcome::Success | Outcome::Ordinary => return,
            Outcome::Retry if purpose == Purpose::Other => PATIENCE_NS,
            Outcome::Retry | Outcome::Failure => 0,
        };
        let id;
        let kind = identity::refused_hash(identity::Refused {
            api_key: head.api_key,
            error: what.error,
            topic: match what.topic {
                Some(kafka::Topic::Name(name)) => name.as_bytes(),
                Some(kafka::Topic::Id(of)) => {
                    id = of.to_be_bytes();
                    &id
                }
                None => &[],
            },
            partition: what.partition,
            group: what.group_id.unwrap_or_default(),
        });
        let end_ns = response.end_ns;
        let Some(count) = self.state.refusals.refused(kind, patience_ns, end_ns) else { return };
        let place = identity::refusal_hash(kind, head.correlation_id, response.seq);
        let derived = identity::refusal_trace_id(place);
        if !self.world.keeps_failed(derived) {
            return;
        }
        let topic = match what.topic {
            Some(topic) => self.world.topic(topic),
            None => Topic::Named(self.world.topics.named("")),
        };
        let reader = self.reader_of(head, &what, &topic);
        let operation = match purpose {
            Purpose::Fetch => Operation::Poll,
            _ => Operation::Request(api.name),
        };
        let refusal = Refusal { operation, count, throttle_ms: self.state.throttle_ms, place };
        let hop = Hop {
            parties: self.parties_of(&reader),
            topic,
            passage: Passage {
                offset: None,
                error: what.error,
                start_ns: head.request_start_ns,
                end_ns,
                ..Passage::settling(Kind::Refused(refusal.into()), what.partition, 0, derived)
            },
        };
        self.pass(hop);
    }

    /// For whom the request was: as the exchange says, or as is known of who reads the partition.
    fn reader_of(&mut self, head: &Head<'_>, what: &What<'_>, topic: &Topic) -> Reader {
        if let Some(group) = what.group_id {
            let is_kept = (1..=MAX_ID_BYTES).contains(&group.len());
            return if is_kept { Reader::Group(group.into()) } else { Reader::Unknown };
        }
        let (key::FETCH, Some(of)) = (head.api_key, what.topic) else { return Reader::Unknown };
        let at = named(of, topic, what.partition);
        let mut asked = groups::FetchFrom { at, ns: head.request_start_ns, offset: what.offset };
        self.state.client.reader(self.id, topic, &mut asked, &self.world.shared)
    }
}
