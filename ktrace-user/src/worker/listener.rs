//! Hops of what a connection tells.

use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::protocol::api;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Operation, Partition, Sink};

use super::chained::LateSends;
use super::late_runs::LateRuns;
use super::losses;
use super::peer::{Peer, StandIns};
use super::pending_commits::LateCommits;
use super::shared::Shared;
use super::transactional::{Attempt, Ended};
use super::twins::Place;
use crate::capture::{ConnectionId, Side};
use crate::hop::sampling::{Exceptions, Sampling};
use crate::hop::topics::Topics;
use crate::hop::transactions::State;
use crate::hop::uncommitted::{Due, Uncommitted};
use crate::hop::{Context, Hop, Key, Kind, Other, Passage, Topic, Verdict, Waiting, identity};

/// Hops that a worker holds while it seeks the other ends of their connections; past it they go out at once.
const MAX_SOUGHT_HOPS: usize = 64 << 10;

/// What the connections of a worker share.
pub(super) struct Told {
    /// The time of the event at hand.
    pub now_ns: u64,
    pub shared: Arc<Shared>,
    /// Both ends of a connection may be seen.
    pub both: bool,
    pub topics: Topics,
    pub ended: Ended,
    /// Hops wait for what was unknown when what is known of topics, transactions and attempts had these numbers.
    pub numbers: [u64; 3],
    pub stand_ins: StandIns,
    pub waiting: Waiting,
    /// Commits that wait for what other workers read.
    pub late: LateCommits,
    /// So do messages that were sent.
    pub late_sends: LateSends,
    /// Messages that wait for that.
    pub late_runs: LateRuns,
    /// Messages of share groups that were not acknowledged yet.
    pub acquired: usize,
    /// Hops held while the other ends of their connections are sought.
    pub sought_hops: usize,
    /// What the user wants.
    pub sampling: Sampling,
    pub exceptions: Exceptions,
    /// Hops bear their records' keys.
    pub keys: bool,
    /// Chains are followed.
    pub infer: bool,
    /// What is not committed in time is told, and nothing else.
    pub uncommitted: Option<Arc<Uncommitted>>,
    pub own_losses: losses::Own,
    pub sink: Box<dyn FnMut(Hop) + Send>,
}

impl Told {
    /// Whether something that is waited for may have come, from whichever worker.
    pub fn has_news(&mut self) -> bool {
        let Shared { topics, transactions, attempts, .. } = &*self.shared;
        let numbers = [topics.number(), transactions.number(), attempts.number()];
        if self.numbers == numbers {
            return false;
        }
        let before = std::mem::replace(&mut self.numbers, numbers);
        if before[1..] != numbers[1..] {
            return !self.waiting.is_empty();
        }
        let Self { waiting, topics, shared, .. } = self;
        waiting.topics().any(|id| topics.of(&shared.topics, id).is_some())
    }

    pub fn release(&mut self, now_ns: Option<u64>) {
        let Self { waiting, topics, ended, shared, own_losses, sink, .. } = self;
        // While it waited the limits may have become stricter.
        let give = |hop: Hop| {
            if own_losses.is_within(&shared.within, hop.passage.trace_id()) {
                sink(hop);
            }
        };
        waiting.release(|hop| judge(hop, topics, ended, shared), now_ns, give);
    }

    /// Tells of what was not committed in time.
    pub fn give_uncommitted(&mut self, now_ns: u64) {
        let Some(uncommitted) = &self.uncommitted else { return };
        let Due { hops, left_out } = uncommitted.due(now_ns);
        self.own_losses.left_out = self.own_losses.left_out.saturating_add(left_out);
        hops.into_iter().for_each(&mut self.sink);
    }

    /// Tells all workers' losses what is new of this one's.
    pub fn tell_losses(&mut self, counters: &kafka::Counters) {
        self.own_losses.ask(&self.shared);
        let early = self.waiting.take_early();
        self.own_losses.shown_early = self.own_losses.shown_early.saturating_add(early);
        self.own_losses.tell(&self.shared.losses, counters, self.waiting.unnamed());
    }

    pub fn pass(&mut self, id: ConnectionId, mut hop: Hop) {
        if hop.waits() && judge(&mut hop, &mut self.topics, &mut self.ended, &self.shared) == Verdict::Drop {
            return;
        }
        if let Some(hop) = self.waiting.pass(id, hop.passage.end_ns, hop) {
            (self.sink)(hop);
        }
    }

    /// Whether what a group has done with messages of a trace is shown.
    pub fn keeps(&mut self, trace_id: TraceId) -> bool {
        self.uncommitted.is_some() || (self.sampling.keeps(trace_id) && self.is_within(trace_id))
    }

    /// Whether the agent's limits leave room for it; else it is counted.
    pub fn is_within(&mut self, trace_id: TraceId) -> bool {
        self.own_losses.is_within(&self.shared.within, trace_id)
    }

    /// Whether a message is shown.
    fn keeps_message(
        &mut self,
        trace_id: TraceId,
        head: &Head<'_>,
        partition: &Partition<'_>,
        record: &Record<'_>,
    ) -> bool {
        let wanted = if self.exceptions == Exceptions::default() {
            None
        } else {
            let since_ns = match partition.operation {
                Operation::Produce { .. } => Some(head.request_start_ns),
                _ => u64::try_from(record.timestamp_ms).ok().and_then(|ms| ms.checked_mul(1_000_000)),
            };
            let took_ns = since_ns.map(|since| head.end_ns().saturating_sub(since));
            let flags = record.context.context.and_then(|context| context.flags);
            self.exceptions.decide(flags, took_ns, partition.error != 0)
        };
        wanted.unwrap_or_else(|| self.sampling.keeps(trace_id)) && self.is_within(trace_id)
    }

    /// A topic as it is known by now.
    pub fn topic(&mut self, topic: kafka::Topic<'_>) -> Topic {
        match topic {
            kafka::Topic::Name(name) => Topic::Named(self.topics.named(name)),
            kafka::Topic::Id(id) => {
                self.topics.of(&self.shared.topics, id).map_or(Topic::Id(id), Topic::Named)
            }
        }
    }
}

/// Finds out what is not known of a hop yet, as far as it is known by now.
fn judge(hop: &mut Hop, topics: &mut Topics, ended: &mut Ended, shared: &Shared) -> Verdict {
    if let Topic::Id(id) = hop.topic
        && let Some(name) = topics.of(&shared.topics, id)
    {
        hop.topic = Topic::Named(name);
    }
    let passage = &mut hop.passage;
    if let (Some((transaction, state @ State::Open)), Kind::Produced { .. }) =
        (&mut passage.transaction, &passage.kind)
    {
        *state = ended.of(shared, transaction, passage.end_ns);
    }
    if let Kind::Produced { attempt, pending: Some(message), .. } = &passage.kind
        && shared.attempts.is_followed(**message, attempt.saturating_sub(1))
    {
        return Verdict::Drop;
    }
    if hop.waits() { Verdict::Wait } else { Verdict::Go }
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
    fn exchange(&mut self, head: &Head<'_>) {
        if self.told.both
            && let Some(place) = Place::of(head, self.peer.exchanges)
        {
            let twins = &self.told.shared.twins;
            match self.peer.side {
                Side::Client => twins.note(place, head.end_ns()),
                Side::Broker => {
                    let superfluous = self.peer.search.at(place, twins);
                    self.told.sought_hops = self.told.sought_hops.saturating_sub(superfluous);
                }
            }
        }
        // On a new connection clients ask for versions before they fetch, or count from 0: this one has begun before.
        let fetches = matches!(head.api_key, api::key::FETCH | api::key::SHARE_FETCH);
        if self.peer.exchanges == 0 && fetches && head.correlation_id > 1 {
            self.misses(head.end_ns());
        }
        self.peer.exchange(head.client_id);
    }

    fn missed(&mut self, bytes: u64) {
        self.peer.missed.gap(bytes);
        self.misses(self.told.now_ns);
        self.missed_commits();
        self.missed_ends();
    }

    fn event(&mut self, head: &Head<'_>, event: &kafka::Event<'_>) {
        match *event {
            kafka::Event::Software { name, version } => self.peer.software(name, version),
            kafka::Event::Cluster { id } => self.peer.names_cluster(id, &self.told.shared),
            kafka::Event::Topic { id, name } => self.told.topics.learn(&self.told.shared.topics, id, name),
            kafka::Event::TransactionEnd { .. }
            | kafka::Event::Marker { .. }
            | kafka::Event::Producer { .. }
            | kafka::Event::TransactionPartition { .. }
            | kafka::Event::TransactionGroup { .. } => {
                self.of_a_transaction(head, event);
            }
            _ => self.of_a_group(head, event),
        }
    }

    fn record(&mut self, head: &Head<'_>, partition: &Partition<'_>, batch: &Batch<'_>, record: &Record<'_>) {
        if self.peer.search.has_found() || self.peer.is_broker(&self.told.shared) {
            return;
        }
        if !self.peer.at.as_ref().is_some_and(|at| at.is(head, partition)) {
            self.arrive(head, partition);
        }
        if let Some(at) = &mut self.peer.at {
            at.pass(record.offset);
        }
        self.reads(partition, batch);
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
        let is_sent = matches!(partition.operation, Operation::Produce { .. });
        let attempt = is_sent.then(|| self.attempt(head, (partition.index, partition.error), batch, record));
        // Of what is not shown, nothing is found out that is not needed to tell so.
        let (trace_id, derived) = match record.context.context {
            Some(context) => (context.trace_id, None),
            None => {
                let derived = derive();
                (derived, Some(derived))
            }
        };
        let sought = attempt.as_ref().and_then(|attempt| self.seeks(head, attempt, record));
        if !self.told.keeps_message(trace_id, head, partition, record) {
            match sought {
                Some(sought) => self.caused(sought, None),
                None if !is_sent => self.read(head, record, || derived.unwrap_or_else(derive), None),
                None => {}
            }
            return;
        }
        let transaction = self.transaction(partition.operation, batch, partition.error);
        let response = head.response;
        let Some(at) = &mut self.peer.at else { return };
        let (kind, start_ns, end_ns) = match partition.operation {
            Operation::Produce { acks, .. } => {
                let Some(Attempt { before, pending }) = attempt else { return };
                let attempt = before.attempts.saturating_add(1);
                let start_ns = if attempt > 1 { before.start_ns } else { head.request_start_ns };
                (Kind::Produced { acks, attempt, pending }, start_ns, head.end_ns())
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
                    Kind::Delivered { lag, delivery, times, is_behind, is_uncommitted: false },
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
                value_len: record.value_len,
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
