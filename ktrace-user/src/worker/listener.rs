//! Hops of what a connection tells.

use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Operation, Partition, Sink};

use super::losses;
use super::peer::{Peer, StandIns};
use super::shared::Shared;
use super::twins::Place;
use crate::capture::{ConnectionId, Side};
use crate::hop::sampling::Sampling;
use crate::hop::topics::Topics;
use crate::hop::{Context, Hop, Key, Kind, Other, Passage, Topic, Waiting, identity};

/// A longer group id is not kept.
const MAX_GROUP_BYTES: usize = 1024;

/// Hops that a worker holds while it seeks the other ends of their connections; past it they go out at once.
const MAX_SOUGHT_HOPS: usize = 64 << 10;

/// What the connections of a worker share.
pub(super) struct Told {
    pub shared: Arc<Shared>,
    /// Both ends of a connection may be seen.
    pub both: bool,
    pub topics: Topics,
    /// Hops wait for topics' names that were unknown when what is known of topics had this number.
    pub topics_number: u64,
    pub stand_ins: StandIns,
    pub waiting: Waiting,
    /// Hops held while the other ends of their connections are sought.
    pub sought_hops: usize,
    /// What the user wants.
    pub sampling: Sampling,
    /// What the CPU limit leaves of that.
    pub within_cpu: Sampling,
    /// Hops bear their records' keys.
    pub keys: bool,
    pub own_losses: losses::Own,
    pub sink: Box<dyn FnMut(Hop) + Send>,
}

impl Told {
    /// Whether a topic that is waited for has been named, by whichever worker.
    pub fn has_news(&mut self) -> bool {
        let number = self.shared.topics.number();
        if self.topics_number == number {
            return false;
        }
        self.topics_number = number;
        let Self { waiting, topics, shared, .. } = self;
        waiting.topics().any(|id| topics.of(&shared.topics, id).is_some())
    }

    pub fn release(&mut self, now_ns: Option<u64>) {
        let Self { waiting, topics, shared, sink, .. } = self;
        waiting.release(|id| topics.of(&shared.topics, id), now_ns, sink);
    }

    fn pass(&mut self, id: ConnectionId, hop: Hop) {
        if let Some(hop) = self.waiting.pass(id, hop.passage.end_ns, hop) {
            (self.sink)(hop);
        }
    }

    fn topic(&mut self, topic: kafka::Topic<'_>) -> Topic {
        match topic {
            kafka::Topic::Name(name) => Topic::Named(self.topics.named(name)),
            kafka::Topic::Id(id) => {
                self.topics.of(&self.shared.topics, id).map_or(Topic::Id(id), Topic::Named)
            }
        }
    }
}

/// Makes hops of what a connection tells.
pub(super) struct Listener<'x> {
    pub id: ConnectionId,
    pub peer: &'x mut Peer,
    pub told: &'x mut Told,
}

impl Listener<'_> {
    /// The broker's end looks again for the client's, for the last time where `now_ns` is `None`.
    pub fn turn(&mut self, now_ns: Option<u64>) {
        let (held, done) = self.peer.search.turn(&self.told.shared.twins, now_ns);
        self.told.sought_hops = self.told.sought_hops.saturating_sub(done);
        for hop in held {
            self.told.pass(self.id, hop);
        }
    }

    fn pass(&mut self, hop: Hop) {
        let now_ns = hop.passage.end_ns;
        match self.peer.search.hold(hop, now_ns) {
            Some(hop) => self.told.pass(self.id, hop),
            None => {
                self.told.sought_hops = self.told.sought_hops.saturating_add(1);
                if self.told.sought_hops > MAX_SOUGHT_HOPS {
                    self.turn(None);
                }
            }
        }
    }

    fn group(&mut self, group: &str) {
        if !group.is_empty() && group.len() <= MAX_GROUP_BYTES {
            self.peer.names_group(group, &self.told.shared);
        }
    }
}

fn other(context: &kafka::context::TraceContext<'_>) -> Option<Other> {
    Some(Other { format: context.format, trace_id: context.trace_id, span_id: context.span_id? })
}

impl Sink for Listener<'_> {
    fn exchange(&mut self, head: &Head<'_>) {
        if self.told.both
            && let Some(place) = Place::of(head, self.peer.exchanges)
        {
            let twins = &self.told.shared.twins;
            match self.peer.side {
                Side::Client => twins.note(place),
                Side::Broker => {
                    let superfluous = self.peer.search.at(place, twins);
                    self.told.sought_hops = self.told.sought_hops.saturating_sub(superfluous);
                }
            }
        }
        self.peer.exchange(head.client_id);
    }

    fn missed(&mut self, bytes: u64) {
        self.peer.missed.gap(bytes);
    }

    fn event(&mut self, _: &Head<'_>, event: &kafka::Event<'_>) {
        match *event {
            kafka::Event::Software { name, version } => self.peer.software(name, version),
            kafka::Event::Cluster { id } => self.peer.names_cluster(id, &self.told.shared),
            kafka::Event::Topic { id, name } => self.told.topics.learn(&self.told.shared.topics, id, name),
            kafka::Event::Member(member) if member.state != kafka::MemberState::Leaving => {
                self.group(member.group_id);
            }
            kafka::Event::Committed { group_id, transaction: None, .. } => self.group(group_id),
            _ => {}
        }
    }

    fn record(
        &mut self,
        head: &Head<'_>,
        partition: &Partition<'_>,
        _batch: &Batch<'_>,
        record: &Record<'_>,
    ) {
        if self.peer.search.has_found() || self.peer.is_broker(&self.told.shared) {
            return;
        }
        let offset = (record.offset >= 0).then_some(record.offset);
        let derive = || match offset {
            Some(offset) => identity::derived_trace_id(
                partition.index,
                offset,
                record.timestamp_ms,
                record.key,
                record.value_len,
            ),
            None => identity::lone_trace_id(
                partition.index,
                head.request_seq,
                head.correlation_id,
                record.timestamp_ms,
                record.offset_delta,
            ),
        };
        // Of what is not shown, nothing is found out that is not needed to tell so.
        let (trace_id, derived) = match record.context.context {
            Some(context) => (context.trace_id, None),
            None => {
                let derived = derive();
                (derived, Some(derived))
            }
        };
        if !self.told.within_cpu.keeps(trace_id) {
            if self.told.sampling.keeps(trace_id) {
                self.told.own_losses.cpu_limit = self.told.own_losses.cpu_limit.saturating_add(1);
            }
            return;
        }
        let response = head.response;
        let (kind, start_ns, end_ns) = match partition.operation {
            Operation::Produce { acks } => (
                Kind::Produced { acks },
                head.request_start_ns,
                response.map_or(head.request_end_ns, |response| response.end_ns),
            ),
            Operation::Fetch { .. } | Operation::ShareFetch { .. } => {
                let Some(response) = response else { return };
                let lag = match partition.operation {
                    Operation::Fetch { high_watermark, .. } if high_watermark >= 0 => {
                        Some(high_watermark.saturating_sub(record.offset).saturating_sub(1).max(0))
                    }
                    _ => None,
                };
                let delivery =
                    identity::Delivery { correlation_id: head.correlation_id, response_seq: response.seq };
                (Kind::Delivered { lag, delivery }, response.start_ns, response.end_ns)
            }
        };
        let hop = Hop {
            parties: self.peer.parties(partition.operation, &self.told.shared, &mut self.told.stand_ins),
            topic: self.told.topic(partition.topic),
            passage: Passage {
                kind,
                partition: partition.index,
                offset,
                timestamp_ms: record.timestamp_ms,
                key: if self.told.keys { record.key.map(Key::new) } else { None },
                value_len: record.value_len,
                context: record.context.context.map(|context| Context {
                    format: context.format,
                    trace_id: context.trace_id,
                    span_id: context.span_id,
                    state: context.state.map(Into::into),
                    others: record.context.others.iter().filter_map(other).collect(),
                }),
                derived: derived.unwrap_or_else(derive),
                error: partition.error,
                truncated: self.peer.missed.show(),
                start_ns,
                end_ns,
            },
        };
        self.pass(hop);
    }
}
