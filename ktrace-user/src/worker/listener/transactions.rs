//! What a connection says of transactions: which message belongs to which, and how each ends.

use std::collections::HashSet;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::api;
use ktrace_kafka::record::Batch;
use ktrace_kafka::{Event, Head, Operation};

use super::Listener;
use super::attempts::is_acked;
use crate::hop::transactions::{Producer, State, Transaction};
use crate::hop::{Hop, Kind, Topic};
use crate::worker::connection::transactions::Left;
use crate::worker::deliveries::MAX_ID_BYTES;
use crate::worker::pending_commits::PendingCommit;
use crate::worker::stage::{Scope, When};

impl Listener<'_> {
    /// An event that says how transactions end.
    pub(super) fn of_a_transaction(&mut self, head: &Head<'_>, event: &Event<'_>) {
        if let Event::Producer { error: 0, .. } = event {
            self.writes(head.end_ns());
        }
        match *event {
            Event::TransactionEnd { transaction, committed, error: 0 } => {
                let producer = self.producer(transaction.producer_id);
                self.state.transactions.coordinates(&producer);
                let state = State::ended(committed);
                let asked_ns = head.request_start_ns;
                self.world.shared.transactions.update(|known| known.end(&producer, asked_ns, state));
                self.end_commits(&producer, state);
            }
            // It begins anew: whatever it had begun is aborted, or was ended elsewhere.
            Event::Producer { transactional_id: Some(_), producer_id, error: 0, .. }
                if head.api_key == api::key::INIT_PRODUCER_ID =>
            {
                let producer = self.producer(producer_id);
                self.state.transactions.coordinates(&producer);
                self.may_have_ended(&producer, head.request_start_ns);
            }
            Event::TransactionPartition { transaction, error: 0, .. }
            | Event::TransactionGroup { transaction, error: 0, .. } => {
                let producer = self.producer(transaction.producer_id);
                self.state.transactions.coordinates(&producer);
            }
            Event::Marker { topic, partition, producer_id, offset, commits, .. } => {
                self.marker(topic, partition, producer_id, (offset, State::ended(commits)));
            }
            _ => {}
        }
    }

    fn may_have_ended(&mut self, producer: &Producer, now_ns: u64) {
        self.world.shared.transactions.update(|known| known.end(producer, now_ns, State::Unknown));
        self.end_commits(producer, State::Unknown);
    }

    /// The offsets that it has committed count, or not.
    fn end_commits(&mut self, producer: &Producer, state: State) {
        // The other end of the connection shows them.
        if self.may_find_other_end() {
            return;
        }
        for commit in self.world.shared.commits.take(producer) {
            self.settle_commit(commit, Some(state));
        }
    }

    /// A commit counts, or does not, as its transaction has ended so: once what it covers was read,
    /// on whichever ring.
    pub(super) fn settle_commit(&mut self, commit: PendingCommit, state: Option<State>) {
        if !self.world.shared.is_read_by_several() || self.may_find_other_end() {
            if let Some(hop) = self.world.settled(commit, state) {
                self.pass(hop);
            }
            return;
        }
        let commit = PendingCommit { connection: self.id, ..commit };
        if self.stages.awaiting_rings.push(self.world.now_ns, commit, state) {
            self.stages.release(When::Full, self.world);
        }
    }

    /// A marker decides the messages before it that this very connection brought: between them and
    /// it, it brought all.
    fn marker(&mut self, of: kafka::Topic<'_>, partition: i32, producer_id: i64, marker: (i64, State)) {
        let topic = self.world.topic(of);
        let place = match of {
            kafka::Topic::Id(id) => (Topic::Id(id), partition),
            kafka::Topic::Name(_) => (topic.clone(), partition),
        };
        let (offset, state) = marker;
        let state = if self.state.transactions.goes_on(&place, offset) { state } else { State::Unknown };
        self.read_to(place, offset.saturating_add(1));
        if self.state.transactions.has_many_markers() {
            self.apply_markers();
        }
        self.state.transactions.mark(topic, partition, producer_id, (offset, state));
    }

    /// What the markers of the current exchanges decide.
    pub(super) fn apply_markers(&mut self) {
        let Some(markers) = self.state.transactions.take_markers() else { return };
        self.await_group_with_others();
        // Neighbours are most often of one transaction.
        let mut last = None;
        let decide = |hop: &mut Hop| {
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
        let partitions: HashSet<i32> = markers.keys().map(|(_, partition, _)| *partition).collect();
        let scope = Scope { connection: self.id, partitions: Some(&partitions) };
        self.stages.amend(scope, decide, self.world);
        self.stages.release(When::Amended(self.world.now_ns), self.world);
    }

    /// The connection has brought a partition up to this offset.
    fn read_to(&mut self, place: (Topic, i32), offset: i64) {
        if !self.state.transactions.advance(&place, offset) {
            self.lost_sight(|_| true);
            self.state.transactions.follow_none();
            let has_room = self.state.transactions.advance(&place, offset);
            debug_assert!(has_room, "none is followed");
        }
    }

    /// A consumer that reads uncommitted messages gets a record.
    #[inline]
    pub(super) fn reads(&mut self, partition: &kafka::Partition<'_>, batch: &Batch<'_>) {
        let Operation::Fetch { fetch_offset, read_committed: false, .. } = partition.operation else {
            return;
        };
        if self.state.transactions.follows_none() && !batch.is_transactional() {
            return;
        }
        let Some(cursor) = &mut self.state.cursor else { return };
        if cursor.batch.replace(batch.base_offset) == Some(batch.base_offset) {
            return;
        }
        let topic = cursor.topic.clone();
        // As the wire names it: a name may come later.
        let place = (cursor.id.map_or_else(|| topic.clone(), Topic::Id), partition.index);
        let end = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta)).saturating_add(1);
        // It may have gone elsewhere.
        if !self.state.transactions.goes_on(&place, fetch_offset)
            && let Some(left) = self.state.transactions.leave(&place)
        {
            match left {
                Left::Few => {
                    self.lost_sight(|hop| hop.topic == topic && hop.passage.partition == partition.index);
                }
                Left::Many => self.lost_sight(|_| true),
                Left::TooMany => {}
            }
        }
        self.read_to(place, end);
    }

    /// What was to come on this connection may have been missed.
    fn lost_sight(&mut self, is_among: impl Fn(&Hop) -> bool) {
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
        self.await_group_with_others();
        self.stages.amend(Scope { connection: self.id, partitions: None }, lose, self.world);
    }

    /// Bytes of the connection are missing: ends of transactions may be among them.
    pub(in crate::worker) fn missed_ends(&mut self) {
        self.lost_sight(|_| true);
        self.state.transactions.follow_none();
        for producer in self.state.transactions.producers() {
            self.may_have_ended(&producer, self.world.now_ns);
        }
    }

    pub(super) fn producer(&mut self, id: i64) -> Producer {
        Producer { cluster: self.state.client.cluster(&self.world.shared), id }
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
            Operation::Fetch { .. } if self.state.transactions.has_left_many() => State::Unknown,
            _ => State::Open,
        };
        let known = self.state.cursor.as_ref().and_then(|at| at.transaction.as_ref());
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
        if let Some(at) = &mut self.state.cursor {
            at.transaction = Some(Arc::clone(&transaction));
        }
        Some((transaction, state))
    }
}

/// Whether markers of this place and producer are those.
fn is_of(known: &(Topic, i32, i64), (topic, partition, producer_id): (&Topic, i32, i64)) -> bool {
    (known.1, known.2) == (partition, producer_id) && known.0 == *topic
}
