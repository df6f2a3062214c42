//! What a connection tells of transactions.

use std::collections::HashSet;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::api;
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Event, Head, Operation};

use super::at::MAX_ID_BYTES;
use super::listener::Listener;
use super::shared::Shared;
use super::told::Told;
use crate::hop::attempts::{Before, Message, Place, may_follow};
use crate::hop::transactions::{Producer, State, Transaction};
use crate::hop::{Hop, Kind, Topic, identity, shown};

/// Partitions of one connection that are followed, and producers.
const MAX_PARTITIONS: usize = 1024;

/// Partitions of an exchange from which a client reads elsewhere than it has: past it nothing of the exchange is followed, as each means to
/// look through what waits.
const MAX_LOST: u32 = 256;

/// Names all messages of a producer in a partition.
const NO_SEQUENCE: i32 = -1;

/// An attempt to send a message.
pub(super) struct Attempt {
    pub before: Before,
    /// It has failed, and another may follow.
    pub pending: Option<Box<Message>>,
}

/// What became of the transaction of the message before: neighbours are most often of one.
#[derive(Default)]
pub(super) struct Ended {
    /// With when the message was acknowledged, and the number of what was known.
    last: Option<(Arc<Transaction>, u64, u64, State)>,
}

impl Ended {
    pub fn of(&mut self, shared: &Shared, transaction: &Arc<Transaction>, acked_ns: u64) -> State {
        let number = shared.transactions.version();
        if let Some((known, ns, of, state)) = &self.last
            && Arc::ptr_eq(known, transaction)
            && (*ns, *of) == (acked_ns, number)
        {
            return *state;
        }
        let state = shared.transactions.read(|known| known.of_sent(&transaction.producer, acked_ns));
        self.last = Some((Arc::clone(transaction), acked_ns, number, state));
        state
    }
}

impl Attempt {
    /// When the first of them began.
    pub fn start_ns(&self, head: &Head<'_>) -> u64 {
        if self.before.attempts > 0 { self.before.start_ns } else { head.request_start_ns }
    }
}

impl Listener<'_> {
    /// What tells how transactions end.
    pub(super) fn of_a_transaction(&mut self, head: &Head<'_>, event: &Event<'_>) {
        if let Event::Producer { error: 0, .. } = event {
            self.writes(head.end_ns());
        }
        match *event {
            Event::TransactionEnd { transaction, committed, error: 0 } => {
                let producer = self.producer(transaction.producer_id);
                self.coordinates(&producer);
                let state = State::ended(committed);
                let asked_ns = head.request_start_ns;
                self.told.shared.transactions.update(|known| known.end(&producer, asked_ns, state));
                self.end_commits(&producer, state);
            }
            // It begins anew: whatever it had begun is aborted, or was ended elsewhere.
            Event::Producer { transactional_id: Some(_), producer_id, error: 0, .. }
                if head.api_key == api::key::INIT_PRODUCER_ID =>
            {
                let producer = self.producer(producer_id);
                self.coordinates(&producer);
                self.may_have_ended(&producer, head.request_start_ns);
            }
            Event::TransactionPartition { transaction, error: 0, .. }
            | Event::TransactionGroup { transaction, error: 0, .. } => {
                let producer = self.producer(transaction.producer_id);
                self.coordinates(&producer);
            }
            Event::Marker { topic, partition, producer_id, offset, commits, .. } => {
                self.marker((topic, partition), producer_id, offset, State::ended(commits));
            }
            _ => {}
        }
    }

    /// A producer speaks of its transactions on this connection.
    fn coordinates(&mut self, producer: &Producer) {
        if self.peer.producers.len() < MAX_PARTITIONS && !self.peer.producers.contains(producer) {
            self.peer.producers.push(producer.clone());
        }
    }

    fn may_have_ended(&mut self, producer: &Producer, now_ns: u64) {
        self.told.shared.transactions.update(|known| known.end(producer, now_ns, State::Unknown));
        self.end_commits(producer, State::Unknown);
    }

    /// The offsets that it has committed count, or not.
    fn end_commits(&mut self, producer: &Producer, state: State) {
        // The other end of the connection tells of them.
        if self.peer.search.is_superfluous() {
            return;
        }
        for commit in self.told.shared.commits.take(producer) {
            self.settle_commit(commit, Some(state));
        }
    }

    /// A marker decides the messages before it that this very connection brought: between them and it, it brought all.
    fn marker(
        &mut self,
        (topic, partition): (kafka::Topic<'_>, i32),
        producer_id: i64,
        offset: i64,
        state: State,
    ) {
        let known = self.told.topic(topic);
        let place = match topic {
            kafka::Topic::Id(id) => Topic::Id(id),
            kafka::Topic::Name(_) => known.clone(),
        };
        let topic = known;
        let state = if self.goes_on(&place, partition, offset) { state } else { State::Unknown };
        self.read_to(place, partition, offset.saturating_add(1));
        if self.peer.markers.len() >= MAX_PARTITIONS {
            self.apply_markers();
        }
        self.peer.markers.entry((topic, partition, producer_id)).or_default().push((offset, state));
    }

    /// What the markers of the exchanges at hand decide.
    pub(super) fn apply_markers(&mut self) {
        if self.peer.markers.is_empty() {
            return;
        }
        #[expect(clippy::mutable_key_type, reason = "topics are compared by name or id alone")]
        let markers = std::mem::take(&mut self.peer.markers);
        self.wait_with_others();
        // Neighbours are most often of one transaction.
        let mut last = None;
        let mut decide = |hop: &mut Hop| {
            let Hop { topic, passage, .. } = hop;
            if let (Kind::Delivered { .. }, Some((transaction, known @ State::Open)), Some(offset)) =
                (&passage.kind, &mut passage.transaction, passage.offset)
                && let Some(markers) = {
                    let of = (&*topic, passage.partition, transaction.producer.id);
                    match &last {
                        Some((known, markers)) if is_of(known, of) => *markers,
                        _ => {
                            let of = (of.0.clone(), of.1, of.2);
                            let found = markers.get(&of);
                            last = Some((of, found));
                            found
                        }
                    }
                }
                && let Some((_, state)) = markers.get(markers.partition_point(|(at, _)| *at <= offset))
            {
                *known = *state;
            }
        };
        self.peer.search.tell(&mut decide);
        let Told { late_runs, topics, shared, .. } = &mut *self.told;
        late_runs.learn(self.id, self.peer.late_until_ns, |id| topics.of(&shared.topics, id));
        late_runs.tell(self.id, self.peer.late_until_ns, &mut decide);
        if !self.told.waiting.is_empty() {
            let partitions: HashSet<i32> = markers.keys().map(|(_, partition, _)| *partition).collect();
            self.told.waiting.tell(self.id, |partition| partitions.contains(&partition), decide);
            self.told.release(Some(self.told.now_ns));
        }
    }

    /// Whether nothing lies between what the connection has brought of a partition and this offset.
    fn goes_on(&self, topic: &Topic, partition: i32, offset: i64) -> bool {
        let place = (topic.clone(), partition);
        offset >= 0 && self.peer.read_to.get(&place).is_some_and(|end| offset <= *end)
    }

    fn read_to(&mut self, topic: Topic, partition: i32, offset: i64) {
        let place = (topic, partition);
        if let Some(end) = self.peer.read_to.get_mut(&place) {
            *end = offset.max(*end);
            return;
        }
        if self.peer.read_to.len() >= MAX_PARTITIONS {
            self.lost_sight(|_| true);
            self.peer.read_to.clear();
        }
        self.peer.read_to.insert(place, offset);
    }

    /// A consumer that reads uncommitted messages is here.
    pub(super) fn reads(&mut self, partition: &kafka::Partition<'_>, batch: &Batch<'_>) {
        let Operation::Fetch { fetch_offset, read_committed: false, .. } = partition.operation else {
            return;
        };
        if self.peer.read_to.is_empty() && !batch.is_transactional() {
            return;
        }
        let Some(at) = &mut self.peer.at else { return };
        if at.batch.replace(batch.base_offset) == Some(batch.base_offset) {
            return;
        }
        let topic = at.topic.clone();
        // As the wire names it: a name may come later.
        let place = at.id.map_or_else(|| topic.clone(), Topic::Id);
        let end = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta)).saturating_add(1);
        // It may have gone elsewhere.
        if !self.goes_on(&place, partition.index, fetch_offset)
            && self.peer.read_to.remove(&(place.clone(), partition.index)).is_some()
        {
            self.peer.lost = self.peer.lost.saturating_add(1);
            match self.peer.lost {
                ..MAX_LOST => {
                    self.lost_sight(|hop| hop.topic == topic && hop.passage.partition == partition.index);
                }
                MAX_LOST => self.lost_sight(|_| true),
                _ => {}
            }
        }
        self.read_to(place, partition.index, end);
    }

    /// What was to come on this connection may have been missed.
    pub(super) fn lost_sight(&mut self, is_among: impl Fn(&Hop) -> bool) {
        self.apply_markers();
        let lose = |hop: &mut Hop| {
            if matches!(hop.passage.transaction, Some((_, State::Open)))
                && matches!(hop.passage.kind, Kind::Delivered { .. })
                && is_among(hop)
                && let Some((_, state)) = &mut hop.passage.transaction
            {
                *state = State::Unknown;
            }
        };
        self.wait_with_others();
        self.peer.search.tell(lose);
        self.told.late_runs.tell(self.id, self.peer.late_until_ns, lose);
        self.told.waiting.tell(self.id, |_| true, lose);
    }

    /// Bytes of the connection are missing: ends of transactions may be among them.
    pub(super) fn missed_ends(&mut self) {
        self.lost_sight(|_| true);
        self.peer.read_to.clear();
        let producers = std::mem::take(&mut self.peer.producers);
        for producer in &producers {
            self.may_have_ended(producer, self.told.now_ns);
        }
        self.peer.producers = producers;
    }

    pub(super) fn producer(&mut self, id: i64) -> Producer {
        Producer { cluster: self.peer.cluster(&self.told.shared), id }
    }

    /// The transaction of a message.
    pub(super) fn transaction(
        &mut self,
        operation: Operation<'_>,
        batch: &Batch<'_>,
        error: i16,
    ) -> Option<(Arc<Transaction>, State)> {
        // To members of share groups no markers come.
        if !batch.is_transactional() || matches!(operation, Operation::ShareFetch { .. }) {
            return None;
        }
        let is_sent = matches!(operation, Operation::Produce { .. });
        if error != 0 && !(is_sent && is_acked(error)) {
            return None;
        }
        let state = match operation {
            // Aborted messages do not come to it.
            Operation::Fetch { read_committed: true, .. } => State::Committed,
            Operation::Fetch { .. } if self.peer.lost >= MAX_LOST => State::Unknown,
            _ => State::Open,
        };
        let known = self.peer.at.as_ref().and_then(|at| at.transaction.as_ref());
        if let Some(known) = known.filter(|known| known.producer.id == batch.producer_id) {
            return Some((Arc::clone(known), state));
        }
        let transactional_id = match operation {
            Operation::Produce { transactional_id, .. } => {
                transactional_id.filter(|id| id.len() <= MAX_ID_BYTES).map(Into::into)
            }
            _ => None,
        };
        let producer = self.producer(batch.producer_id);
        let transaction = Arc::new(Transaction { producer, transactional_id });
        if let Some(at) = &mut self.peer.at {
            at.transaction = Some(Arc::clone(&transaction));
        }
        Some((transaction, state))
    }

    /// A batch is acknowledged. Where several rings are read, a failed attempt to send it may lie in one that is read later.
    fn acked(&mut self, head: &Head<'_>, partition: i32, batch: &Batch<'_>) {
        if batch.producer_id < 0 || batch.base_sequence < 0 || !self.told.shared.is_read_by_several() {
            return;
        }
        let producer = self.producer(batch.producer_id);
        let Some(topic) = self.peer.at.as_ref().map(|at| shown(&at.topic)) else { return };
        let of = Message::numbered(&producer, batch.producer_epoch, NO_SEQUENCE, &topic.name, partition);
        let last = batch.base_sequence.wrapping_add(batch.last_offset_delta) & i32::MAX;
        self.told.shared.attempts.acked(of, last, head.request_start_ns);
    }

    /// Which attempt to send a message this is.
    pub(super) fn attempt(
        &mut self,
        head: &Head<'_>,
        (partition, error): (i32, i16),
        batch: &Batch<'_>,
        record: &Record<'_>,
    ) -> Attempt {
        let is_acked = is_acked(error);
        if is_acked && record.offset_delta == 0 {
            self.acked(head, partition, batch);
        }
        let is_first = is_acked && !self.peer.at.as_ref().is_some_and(|at| at.may_be_sent_again);
        // Else the other end of the connection tells of it too.
        if is_first || self.peer.search.is_superfluous() {
            return Attempt { before: Before::default(), pending: None };
        }
        let topic = self.peer.at.as_ref().map(|at| shown(&at.topic));
        let topic = topic.as_ref().map_or("", |topic| &*topic.name);
        let mut numbered = None;
        let message = if batch.producer_id >= 0 && batch.base_sequence >= 0 {
            let sequence = batch.base_sequence.wrapping_add(record.offset_delta) & i32::MAX;
            let producer = self.producer(batch.producer_id);
            let of =
                |sequence| Message::numbered(&producer, batch.producer_epoch, sequence, topic, partition);
            numbered = Some((of(NO_SEQUENCE), sequence));
            of(sequence)
        } else {
            // Without an offset; a batch may be put together anew.
            let derived = identity::derived_trace_id(
                partition,
                -1,
                record.timestamp_ms,
                record.key,
                record.value_len(),
            );
            let context = record.context.context.map(|context| context.trace_id.to_bytes());
            let alike = |nth| {
                Message::alike(derived.to_bytes(), context, head.client_id.unwrap_or_default(), topic, nth)
            };
            let nth = self.peer.at.as_mut().map_or(0, |at| at.nth(alike(0)));
            alike(nth)
        };
        let attempts = &self.told.shared.attempts;
        if is_acked {
            return Attempt { before: attempts.sent(message), pending: None };
        }
        let place = Place::new(topic, partition);
        let before = attempts.failed(message, place, head.request_start_ns, head.end_ns());
        if let Some((of, sequence)) = numbered
            && attempts.was_acked_later(of, sequence, head.request_start_ns)
        {
            attempts.sent(message);
        }
        Attempt { before, pending: may_follow(error, batch.count).then(|| message.into()) }
    }
}

/// Whether a message was written, now or by an attempt before.
fn is_acked(error: i16) -> bool {
    error::outcome(Purpose::Produce, error) == Outcome::Success
}

/// Whether markers of this place and producer are those.
fn is_of(known: &(Topic, i32, i64), (topic, partition, producer_id): (&Topic, i32, i64)) -> bool {
    (known.1, known.2) == (partition, producer_id) && known.0 == *topic
}
