//! From Events to Spans: the pipeline of one ring or one capture file.
//!
//! ```text
//!  Event ─▶ connection table ─▶ ktrace_kafka::Connection ─▶ Listener ─▶ Hop ─▶ Waiting ─▶ Span
//! ```
//!
//! A worker owns its connections; no lock lies on the way of the bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::context::{Extractor, Wanted, WantedError};
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Limits, Operation, Partition, Push, Scratch, Sink};

use crate::capture::{ConnectionId, Direction, Ends, Event, Segment};
use crate::export::{Resource, Span, Value};
use crate::hop::groups::{Groups, Speaker};
use crate::hop::sampling::Sampling;
use crate::hop::topics::Topics;
use crate::hop::{Context, Hop, Kind, Other, Topic, TopicName, Waiting, identity};
use crate::process::Process;

/// What the pipeline is told by the user.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// Trace header formats in the order in which they are tried; empty: all known. `key:NAME` is a user's own.
    pub context: Vec<String>,
    /// Which traces are shown.
    pub sampling: Sampling,
}

/// What a worker has seen, as the summary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    pub segments: u64,
    pub bytes: u64,
    pub frames: u64,
    pub exchanges: u64,
    pub batches: u64,
    pub records: u64,
    /// What did not become spans, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// What could not be read, by reason.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Of `malformed.context`, those of each format.
    pub malformed_contexts: BTreeMap<&'static str, u64>,
}

/// A closed connection is kept for this long: what was on its way may still pass.
const LINGER_NS: u64 = 5_000_000_000;

/// A client that has sent its FIN is taken for closed after this, should nobody tell: kernels before 5.9 do not.
const HALF_CLOSED_NS: u64 = 60_000_000_000;

/// Segments that came before one which is missing are given up after this, where no acknowledgement tells (acks=0).
const HOLE_NS: u64 = 10_000_000_000;

/// Connections at once, as many as the kernel source remembers. Past it, those that were silent longest are forgotten;
/// should they speak again, they are read from their next whole exchange on.
const MAX_CONNECTIONS: usize = 128 << 10;

/// Bytes of frames, requests and early segments that all connections together hold. Past it, the one that takes more gives
/// back what it holds.
const MAX_HELD_BYTES: usize = 512 << 20;

/// Brokers whose cluster is remembered.
const MAX_BROKERS: usize = 16 << 10;

/// A longer group id is not kept.
const MAX_GROUP_BYTES: usize = 1024;

/// How often connections and waiting hops are looked through.
const SWEEP_NS: u64 = 250_000_000;

/// One connection, and what its hops share.
struct Connection {
    kafka: kafka::Connection,
    peer: Peer,
    /// When it was last heard of.
    last_ns: u64,
    /// By its process, or by both sides' FIN.
    closed: bool,
    /// By an RST, unless data has followed.
    reset: bool,
    /// Who has sent a FIN: (client, broker).
    fin: (bool, bool),
}

/// Who speaks on a connection, and as whom.
struct Peer {
    ends: Ends,
    broker_address: Arc<str>,
    owner: Option<Arc<Process>>,
    client_id: Option<Arc<str>>,
    cluster_id: Option<Arc<str>>,
    /// The group that was named on this very connection: many clients ask for records where they ask for their group.
    /// `Some(None)` where there were several.
    group: Option<Option<Arc<str>>>,
    /// Of the client id where the process is not known.
    stand_in: Option<Arc<Resource>>,
}

/// See the module.
pub struct Worker {
    connections: HashMap<ConnectionId, Connection>,
    scratch: Scratch,
    told: Told,
    totals: Totals,
    swept_ns: u64,
    held_bytes: usize,
}

/// What the connections of a worker share.
struct Told {
    topics: Topics,
    groups: Groups,
    clusters: HashMap<std::net::SocketAddr, Arc<str>>,
    waiting: Waiting,
    /// A topic that is waited for has been named.
    named: bool,
    sampling: Sampling,
    /// The topic of the last record; that of the next is nearly always the same.
    last_topic: Option<Arc<TopicName>>,
    sink: Box<dyn FnMut(Span)>,
}

impl Worker {
    /// `sink` gets every span.
    ///
    /// # Errors
    /// Names the context format that is none.
    pub fn new(options: WorkerOptions, sink: Box<dyn FnMut(Span)>) -> Result<Self, WantedError> {
        let wanted: Vec<Wanted> = options
            .context
            .iter()
            .map(|name| match name.strip_prefix("key:") {
                Some(key) => Wanted::Key(key.to_owned()),
                None => Wanted::Format(name.clone()),
            })
            .collect();
        let extractor = if wanted.is_empty() { Extractor::default() } else { Extractor::new(&wanted)? };
        Ok(Self {
            connections: HashMap::new(),
            scratch: Scratch::new(Limits::default(), extractor),
            told: Told {
                topics: Topics::default(),
                groups: Groups::default(),
                clusters: HashMap::new(),
                waiting: Waiting::default(),
                named: false,
                sampling: options.sampling,
                last_topic: None,
                sink,
            },
            totals: Totals::default(),
            swept_ns: 0,
            held_bytes: 0,
        })
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { connection, ends, owner } => self.opened(connection, ends, owner),
            Event::Segment(segment) => self.segment(&segment),
            Event::Closed { connection } => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.closed = true;
                    connection.last_ns = connection.last_ns.max(self.swept_ns);
                }
            }
            Event::Tick { time_ns } => self.tick(time_ns),
        }
    }

    /// Gives what is held to the sink.
    #[must_use]
    pub fn finish(mut self) -> Totals {
        let mut ids: Vec<_> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.forget(id);
        }
        self.told.release(None);
        let Self { mut totals, scratch: Scratch { counters, .. }, told, .. } = self;
        totals.frames = counters.frames;
        totals.exchanges = counters.exchanges;
        totals.batches = counters.batches;
        totals.records = counters.records;
        totals.lost = counters.lost().map(|(reason, count)| (reason.name(), count)).collect();
        totals.lost.insert("gap_bytes", counters.gap_bytes);
        totals.lost.insert("skipped_bytes", counters.skipped_bytes);
        totals.lost.insert("topic_unnamed", told.waiting.unnamed());
        totals.malformed = counters.malformed().map(|(reason, count)| (reason.name(), count)).collect();
        totals.malformed_contexts.clone_from(&counters.malformed_contexts);
        totals.lost.retain(|_, count| *count > 0);
        totals.malformed.retain(|_, count| *count > 0);
        totals
    }

    fn opened(&mut self, id: ConnectionId, ends: Ends, owner: Option<Arc<Process>>) {
        if let Some(known) = self.connections.get_mut(&id)
            && known.peer.ends == ends
        {
            if owner.is_some() {
                known.peer.owner = owner;
            }
            return;
        }
        // The same socket goes elsewhere: its first connection is over.
        self.forget(id);
        if self.connections.len() >= MAX_CONNECTIONS {
            self.make_room();
        }
        self.totals.connections = self.totals.connections.saturating_add(1);
        let broker_address = ends.broker.ip().to_canonical().to_string().into();
        let peer = Peer {
            ends,
            broker_address,
            owner,
            client_id: None,
            cluster_id: None,
            group: None,
            stand_in: None,
        };
        let connection = Connection {
            kafka: kafka::Connection::default(),
            peer,
            last_ns: self.swept_ns,
            closed: false,
            reset: false,
            fin: (false, false),
        };
        self.connections.insert(id, connection);
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.totals.segments = self.totals.segments.saturating_add(1);
        self.totals.bytes = self.totals.bytes.saturating_add(u64::from(segment.len));
        if segment.time_ns.saturating_sub(self.swept_ns) > SWEEP_NS {
            self.tick(segment.time_ns);
        }
        if !self.connections.contains_key(&segment.connection) {
            // Sources tell of a connection before its first segment, so this one was forgotten.
            self.opened(segment.connection, segment.ends, None);
        }
        let Some(connection) = self.connections.get_mut(&segment.connection) else { return };
        connection.last_ns = segment.time_ns;
        let direction = match segment.direction {
            Direction::ToBroker => kafka::Direction::ToBroker,
            Direction::ToClient => kafka::Direction::ToClient,
        };
        let push = Push {
            direction,
            seq: segment.seq,
            ack: segment.ack,
            syn: segment.syn,
            fin: segment.fin,
            bytes: segment.payload,
            len: segment.len,
            time_ns: segment.time_ns,
        };
        let mut listener =
            Listener { id: segment.connection, peer: &mut connection.peer, told: &mut self.told };
        let scratch = &mut self.scratch;
        weigh(&mut self.held_bytes, &mut connection.kafka, |kafka| kafka.push(scratch, push, &mut listener));
        if self.held_bytes > MAX_HELD_BYTES {
            weigh(&mut self.held_bytes, &mut connection.kafka, |kafka| kafka.shed(&mut self.scratch));
        }
        if segment.fin {
            match segment.direction {
                Direction::ToBroker => connection.fin.0 = true,
                Direction::ToClient => connection.fin.1 = true,
            }
        }
        connection.closed |= connection.fin == (true, true);
        // Data after a reset says that the reset was none: TCP checks it after it was seen here.
        connection.reset = segment.rst || (connection.reset && segment.len == 0);
        if self.told.named {
            self.told.release(Some(segment.time_ns));
        }
    }

    fn tick(&mut self, now_ns: u64) {
        // A clock that was set back begins anew.
        if now_ns >= self.swept_ns && now_ns - self.swept_ns < SWEEP_NS {
            return;
        }
        self.swept_ns = now_ns;
        let hole_ns = now_ns.saturating_sub(HOLE_NS);
        let over: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let silent_ns = now_ns.saturating_sub(connection.last_ns);
                ((connection.closed || connection.reset) && silent_ns > LINGER_NS)
                    || (connection.fin.0 && silent_ns > HALF_CLOSED_NS)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.forget(id);
        }
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| c.kafka.has_hole_since(hole_ns)) {
            let mut listener = Listener { id: *id, peer: &mut connection.peer, told: &mut self.told };
            let scratch = &mut self.scratch;
            weigh(&mut self.held_bytes, &mut connection.kafka, |kafka| {
                kafka.give_up_holes(scratch, &mut listener);
            });
        }
        self.told.release(Some(now_ns));
    }

    /// Forgets the half of the connections that was silent longest.
    fn make_room(&mut self) {
        let mut times: Vec<u64> = self.connections.values().map(|connection| connection.last_ns).collect();
        let half = times.len() / 2;
        let (_, &mut median, _) = times.select_nth_unstable(half);
        let silent: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| (connection.last_ns <= median).then_some(*id))
            .collect();
        for id in silent {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        if let Some(mut connection) = self.connections.remove(&id) {
            self.held_bytes = self.held_bytes.saturating_sub(connection.kafka.held_bytes());
            let mut listener = Listener { id, peer: &mut connection.peer, told: &mut self.told };
            connection.kafka.finish(&mut self.scratch, &mut listener);
        }
    }
}

/// Does something to a connection, and keeps the sum of what all connections hold right.
fn weigh(held: &mut usize, kafka: &mut kafka::Connection, act: impl FnOnce(&mut kafka::Connection)) {
    let before = kafka.held_bytes();
    act(kafka);
    *held = held.saturating_sub(before).saturating_add(kafka.held_bytes());
}

impl Told {
    fn release(&mut self, now_ns: Option<u64>) {
        self.named = false;
        self.waiting.release(&self.topics, now_ns, |hop| (self.sink)(hop.span()));
    }

    fn topic(&mut self, topic: kafka::Topic<'_>) -> Topic {
        match topic {
            kafka::Topic::Name(name) => match &self.last_topic {
                Some(last) if *last.name == *name => Topic::Named(Arc::clone(last)),
                _ => {
                    let topic = self.topics.named(name);
                    self.last_topic = Some(Arc::clone(&topic));
                    Topic::Named(topic)
                }
            },
            kafka::Topic::Id(id) => self.topics.of(id).map_or(Topic::Id(id), Topic::Named),
        }
    }
}

impl Peer {
    /// Kept as long as it stays the same.
    fn client_id(&mut self, id: Option<&str>) -> Option<Arc<str>> {
        if self.client_id.as_deref() != id {
            self.client_id = id.map(Into::into);
            self.stand_in = None;
        }
        self.client_id.clone()
    }

    fn speaker(&self) -> Speaker {
        match &self.owner {
            Some(process) if process.pid != 0 => Speaker::Process(process.pid),
            _ => Speaker::Address(self.ends.client.ip()),
        }
    }

    /// The process's, or what its client id says of it where there is none (a capture file).
    fn resource(&mut self) -> Arc<Resource> {
        if let Some(process) = &self.owner {
            return Arc::clone(&process.resource);
        }
        let client_id = &self.client_id;
        let resource = self.stand_in.get_or_insert_with(|| {
            let name = client_id.as_deref().filter(|id| !id.is_empty()).unwrap_or("unknown_service");
            Arc::new(Resource { attributes: vec![("service.name".into(), Value::Str(name.into()))] })
        });
        Arc::clone(resource)
    }
}

fn other(context: &kafka::context::TraceContext<'_>) -> Option<Other> {
    Some(Other { format: context.format, trace_id: context.trace_id, span_id: context.span_id? })
}

/// Makes hops of what a connection tells.
struct Listener<'x> {
    id: ConnectionId,
    peer: &'x mut Peer,
    told: &'x mut Told,
}

impl Listener<'_> {
    fn cluster(&mut self, id: &str) {
        if self.told.clusters.len() >= MAX_BROKERS {
            self.told.clusters.clear();
        }
        let known = self.told.clusters.entry(self.peer.ends.broker).or_insert_with(|| id.into());
        if **known != *id {
            *known = id.into();
        }
        self.peer.cluster_id = Some(Arc::clone(known));
    }

    fn topic(&mut self, id: u128, name: &str) {
        if self.told.topics.learn(id, name) && self.told.waiting.is_for(id) {
            self.told.named = true;
        }
    }

    fn group(&mut self, head: &Head<'_>, group: &str) {
        if group.is_empty() || group.len() > MAX_GROUP_BYTES {
            return;
        }
        let client_id = self.peer.client_id(head.client_id);
        match &self.peer.group {
            None => self.peer.group = Some(Some(group.into())),
            Some(Some(known)) if **known != *group => self.peer.group = Some(None),
            Some(_) => {}
        }
        self.told.groups.learn(self.peer.speaker(), client_id, group);
    }

    /// The group for which a client fetches, as far as it is known.
    fn peer_group(&self, client_id: &Option<Arc<str>>) -> Option<Arc<str>> {
        match &self.peer.group {
            Some(group) => group.clone(),
            None => self.told.groups.of(self.peer.speaker(), client_id.clone()),
        }
    }
}

impl Sink for Listener<'_> {
    fn event(&mut self, head: &Head<'_>, event: &kafka::Event<'_>) {
        match *event {
            kafka::Event::Cluster { id } => self.cluster(id),
            kafka::Event::Topic { id, name } => self.topic(id, name),
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
        if !self.told.sampling.keeps(context.map_or(derived, |context| context.trace_id)) {
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
                        (self.peer_group(&client_id), Some(behind.max(0)))
                    }
                    Operation::ShareFetch { group_id: Some(group), .. } => (Some(group.into()), None),
                    _ => (self.peer_group(&client_id), None),
                };
                let delivery =
                    identity::Delivery { correlation_id: head.correlation_id, response_seq: response.seq };
                (Kind::Delivered { group, lag, delivery }, response.start_ns, response.end_ns)
            }
        };
        if self.peer.cluster_id.is_none() {
            self.peer.cluster_id = self.told.clusters.get(&self.peer.ends.broker).cloned();
        }
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
            cluster_id: self.peer.cluster_id.clone(),
            broker_address: Arc::clone(&self.peer.broker_address),
            broker_port: self.peer.ends.broker.port(),
            start_ns,
            end_ns,
            resource: self.peer.resource(),
        };
        if let Some(hop) = self.told.waiting.pass(self.id, end_ns, hop) {
            (self.told.sink)(hop.span());
        }
    }
}

#[cfg(test)]
mod tests;
