//! Hops of what a connection tells.

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::api;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Operation, Partition, Sink};

use super::peer::Peer;
use super::told::Told;
use super::transactional::Attempt;
use super::twins::Place;
use crate::hop::appends::Sent;
use crate::hop::{Context, Hop, Key, Kind, Other, Passage, identity};
use crate::seen::{ConnectionId, Side};

/// Hops that a worker holds while it seeks the other ends of their connections; past it they go out at once.
const MAX_SOUGHT_HOPS: usize = 64 << 10;

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
        for count in self.peer.search.take_counts() {
            self.told.shared.counts.add(count);
        }
        for hop in held {
            self.told.pass(self.id, hop);
        }
    }

    /// A response names a broker: TLS connections to it may be opened.
    fn names_broker(&self, host: &str, port: i32) {
        let pid = self.peer.holder().map_or(0, |owner| owner.pid);
        self.told.shared.brokers.named(pid, host, port);
    }

    /// A commit may be among what was missed.
    pub(super) fn missed_commits(&mut self) {
        if let Some(uncommitted) = &self.told.uncommitted {
            uncommitted.missed(self.peer.resource(&mut self.told.stand_ins));
        }
    }

    #[inline]
    pub(super) fn pass(&mut self, hop: Hop) {
        // Most need not wait, and each way in and out again is a copy.
        if !hop.waits() && !self.peer.search.is_superfluous() && !self.told.waiting.holds(self.id) {
            (self.told.sink)(hop);
            return;
        }
        let now_ns = hop.passage.end_ns;
        match self.peer.search.hold(hop, now_ns) {
            Some(hop) => self.told.pass(self.id, hop),
            None => {
                self.told.sought_hops = self.told.sought_hops.saturating_add(1);
                if self.told.sought_hops > MAX_SOUGHT_HOPS {
                    self.told.own_losses.shown_early = self.told.own_losses.shown_early.saturating_add(1);
                    self.turn(None);
                }
            }
        }
    }
}

fn other(context: &kafka::context::TraceContext<'_>) -> Option<Other> {
    Some(Other { format: context.format, trace_id: context.trace_id, span_id: context.span_id? })
}

impl Sink for Listener<'_> {
    fn sends(&mut self, head: &Head<'_>, topic: kafka::Topic<'_>, partition: i32) {
        self.asks(head, topic, partition);
    }

    fn exchange(&mut self, head: &Head<'_>) {
        if self.told.both
            && let Some(place) = Place::of(head, self.peer.exchanges)
        {
            let twins = &self.told.shared.twins;
            match self.peer.side {
                Side::Client => twins.note(place, head.end_ns()),
                Side::Broker => {
                    let superfluous = self.peer.search.at(place, twins, head.end_ns());
                    self.told.sought_hops = self.told.sought_hops.saturating_sub(superfluous);
                }
            }
        }
        // On a new connection clients ask for versions before they fetch, or count from 0: this one has begun before.
        let fetches = matches!(head.api_key, api::key::FETCH | api::key::SHARE_FETCH);
        if self.peer.exchanges == 0 && fetches && head.correlation_id > 1 {
            self.misses(head.end_ns());
        }
        if head.api_key == api::key::PRODUCE {
            self.answers(head);
        }
        self.peer.exchange(head.client_id);
    }

    fn throttled(&mut self, head: &Head<'_>, throttle_ms: u32) {
        self.makes_wait(head, throttle_ms);
    }

    fn missed(&mut self, bytes: u64) {
        self.peer.missed.gap(bytes);
        self.misses(self.told.now_ns);
        self.missed_commits();
        self.missed_ends();
    }

    fn event(&mut self, head: &Head<'_>, event: &kafka::Event<'_>) {
        self.refused(head, event);
        match *event {
            kafka::Event::Software { name, version } => self.peer.software(name, version),
            kafka::Event::Cluster { id } => self.peer.names_cluster(id, &self.told.shared),
            kafka::Event::Broker { host, port, .. } => self.names_broker(host, port),
            kafka::Event::Topic { id, name } => self.told.topics.learn(&self.told.shared.topics, id, name),
            kafka::Event::TransactionEnd { .. }
            | kafka::Event::Marker { .. }
            | kafka::Event::Producer { .. }
            | kafka::Event::TransactionPartition { .. }
            | kafka::Event::TransactionGroup { .. } => {
                self.of_a_transaction(head, event);
            }
            kafka::Event::Coordinator { host, port, error: 0, .. } => {
                self.names_broker(host, port);
                self.of_a_group(head, event);
            }
            _ => self.of_a_group(head, event),
        }
    }

    fn record(&mut self, head: &Head<'_>, partition: &Partition<'_>, batch: &Batch<'_>, record: &Record<'_>) {
        if self.peer.search.has_found() {
            return;
        }
        if !self.peer.at.as_ref().is_some_and(|at| at.is(head, partition)) {
            self.arrive(head, partition);
        }
        self.reads(partition, batch);
        let mut is_looked_at = false;
        if let Some(at) = &mut self.peer.at {
            if let Some(part) = at.late.as_mut().and_then(|late| late.part()) {
                self.told.wait_for_reader(part);
            }
            at.pass(record.offset);
            is_looked_at = !at.watch.passes();
        }
        let is_own = is_looked_at && self.is_own(partition, record);
        let offset = (record.offset >= 0).then_some(record.offset);
        let derive = || match offset {
            Some(offset) => identity::derived_trace_id(
                partition.index,
                offset,
                record.timestamp_ms,
                record.key,
                record.value_len(),
            ),
            None => identity::lone_trace_id(
                partition.index,
                head.request_seq,
                head.correlation_id,
                record.timestamp_ms,
                record.offset_delta,
            ),
        };
        let is_sent = matches!(partition.operation, Operation::Produce { .. });
        let attempt = is_sent.then(|| self.attempt(head, (partition.index, partition.error), batch, record));
        let sent_ns = attempt.as_ref().map(|attempt| attempt.start_ns(head));
        if let (Some(sent_ns), Some(_)) = (sent_ns, offset) {
            self.appended(head, batch, record, sent_ns);
        }
        // Of what is not shown, nothing is found out that is not needed to tell so.
        let (trace_id, derived) = match record.context.context {
            Some(context) => (context.trace_id, None),
            None => {
                let derived = derive();
                (derived, Some(derived))
            }
        };
        let sought = attempt.as_ref().and_then(|attempt| self.seeks(head, attempt, record));
        let (backlog, delay) = match &mut self.peer.at {
            Some(at) => (at.backlog, at.delay.as_mut()),
            None => (None, None),
        };
        let is_catching_up =
            backlog.is_some_and(|of| of.has(record.offset, record.timestamp_ms, head.end_ns()));
        if is_own || !self.told.keeps_message(trace_id, head, (partition, is_catching_up), record, delay) {
            match sought {
                Some(sought) => self.caused(sought, None),
                None if !is_sent => self.read(head, record, || derived.unwrap_or_else(derive), None),
                None => {}
            }
            return;
        }
        let transaction = self.transaction(partition.operation, batch, partition.error);
        let response = head.response;
        let sent = match response {
            Some(response) if !is_sent => self.sent(record, response.end_ns),
            _ => Sent::Unknown,
        };
        // Whoever has sent it may have set its timestamp to any time.
        let is_newer = match sent {
            Sent::At(ns) => backlog.is_some_and(|of| !of.may_have(ns)),
            _ => false,
        };
        let Some(at) = &mut self.peer.at else { return };
        let (kind, start_ns, end_ns) = match partition.operation {
            Operation::Produce { acks, .. } => {
                let Some(Attempt { before, pending }) = attempt else { return };
                let attempt = before.attempts.saturating_add(1);
                let start_ns = sent_ns.unwrap_or(head.request_start_ns);
                let throttle_ms = self.peer.throttle_ms;
                (Kind::Produced { acks, attempt, pending, throttle_ms }, start_ns, head.end_ns())
            }
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
                let (times, is_behind) = at.times(partition.operation);
                (
                    Kind::Delivered {
                        lag,
                        delivery,
                        times,
                        is_behind,
                        is_uncommitted: false,
                        is_catching_up: is_catching_up && !is_newer,
                        sent,
                        throttle_ms: self.peer.throttle_ms,
                    },
                    response.start_ns,
                    response.end_ns,
                )
            }
        };
        let (topic, parties) = (at.topic.clone(), at.parties.clone());
        let derived = derived.unwrap_or_else(derive);
        let hop = Hop {
            parties: parties.unwrap_or_else(|| self.parties()),
            topic,
            passage: Passage {
                kind,
                partition: partition.index,
                offset,
                timestamp_ms: record.timestamp_ms,
                key: if self.told.keys { record.key.map(Key::new) } else { None },
                value_len: record.value_len(),
                context: record.context.context.map(|context| Context {
                    format: context.format,
                    trace_id: context.trace_id,
                    span_id: context.span_id,
                    state: context.state.map(Into::into),
                    others: record.context.others.iter().filter_map(other).collect(),
                }),
                transaction,
                cause: None,
                derived,
                error: partition.error,
                truncated: self.peer.missed.show(),
                start_ns,
                end_ns,
            },
        };
        if !is_sent {
            self.read(head, record, || derived, Some(&hop));
        }
        if let Some(late) = self.peer.at.as_mut().and_then(|at| at.late.as_mut()) {
            late.take(hop);
            return;
        }
        self.open(partition.operation, &hop);
        match sought {
            Some(sought) => self.caused(sought, Some(hop)),
            None => self.pass(hop),
        }
    }
}
