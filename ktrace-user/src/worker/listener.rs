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
use crate::export::Span;
use crate::hop::sampling::Sampling;
use crate::hop::topics::Topics;
use crate::hop::{Client, Context, Hop, Kind, Other, Topic, Waiting, identity};

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
    pub own_losses: losses::Own,
    pub sink: Box<dyn FnMut(Span) + Send>,
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
        waiting.release(|id| topics.of(&shared.topics, id), now_ns, |hop| sink(hop.span()));
    }

    fn pass(&mut self, id: ConnectionId, hop: Hop) {
        if let Some(hop) = self.waiting.pass(id, hop.end_ns, hop) {
            (self.sink)(hop.span());
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
        let now_ns = hop.end_ns;
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

    fn cluster(&mut self, id: &str) {
        if self.peer.cluster_id.as_deref() == Some(id) {
            return;
        }
        let id = Arc::from(id);
        self.told.shared.clusters.tell(|clusters| clusters.learn(self.peer.ends.broker, &id));
        self.peer.cluster_id = Some(id);
    }

    fn group(&mut self, head: &Head<'_>, group: &str) {
        if group.is_empty() || group.len() > MAX_GROUP_BYTES {
            return;
        }
        let client_id = self.peer.client_id(head.client_id);
        self.peer.names_group(client_id, group, &self.told.shared);
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
        self.peer.exchanges = self.peer.exchanges.saturating_add(1);
        self.peer.missed.exchange();
    }

    fn missed(&mut self, bytes: u64) {
        self.peer.missed.gap(bytes);
    }

    fn event(&mut self, head: &Head<'_>, event: &kafka::Event<'_>) {
        match *event {
            kafka::Event::Software { name, version } => self.peer.software(name, version),
            kafka::Event::Cluster { id } => self.cluster(id),
            kafka::Event::Topic { id, name } => self.told.topics.learn(&self.told.shared.topics, id, name),
            kafka::Event::Member(member) if member.state != kafka::MemberState::Leaving => {
                self.group(head, member.group_id);
            }
            kafka::Event::Committed { group_id, transaction: None, .. } => self.group(head, group_id),
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
        let client_id = self.peer.client_id(head.client_id);
        let offset = (record.offset >= 0).then_some(record.offset);
        let derived = match offset {
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
        let context = record.context.context;
        let trace_id = context.map_or(derived, |context| context.trace_id);
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
                let (group, lag) = match partition.operation {
                    Operation::Fetch { high_watermark, .. } if high_watermark >= 0 => {
                        let behind = high_watermark.saturating_sub(record.offset).saturating_sub(1);
                        (self.peer.group(&self.told.shared), Some(behind.max(0)))
                    }
                    Operation::ShareFetch { group_id: Some(group), .. } => (Some(group.into()), None),
                    _ => (self.peer.group(&self.told.shared), None),
                };
                let delivery =
                    identity::Delivery { correlation_id: head.correlation_id, response_seq: response.seq };
                (Kind::Delivered { group, lag, delivery }, response.start_ns, response.end_ns)
            }
        };
        let client = self.peer.client_address.clone();
        let hop = Hop {
            kind,
            topic: self.told.topic(partition.topic),
            partition: partition.index,
            offset,
            timestamp_ms: record.timestamp_ms,
            value_len: record.value_len,
            context: context.map(|context| Context {
                format: context.format,
                trace_id: context.trace_id,
                span_id: context.span_id,
                state: context.state.map(Into::into),
                others: record.context.others.iter().filter_map(other).collect(),
            }),
            derived,
            error: partition.error,
            client_id,
            cluster_id: self.peer.cluster(&self.told.shared),
            broker_address: Arc::clone(&self.peer.broker_address),
            broker_port: self.peer.ends.broker.port(),
            client: client.map(|address| Client { address, port: self.peer.ends.client.port() }),
            truncated: self.peer.missed.show(),
            start_ns,
            end_ns,
            resource: self.peer.resource(&mut self.told.stand_ins),
        };
        self.pass(hop);
    }
}
