//! When messages were sent, noted where that is seen, and asked for where they are delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::Head;
use ktrace_kafka::record::{Batch, Record};

use super::Listener;
use crate::hop::appends::{self, Append, Cluster, Found, LogKey, Number, Request, Sent};
use crate::hop::{Topic, shown};
use crate::losses::Reason;
use crate::worker::connection::cursor::PartitionCursor;
use crate::worker::connection::in_flight::{Delay, InFlight, Logs, LookedUp, MAX_ASKED, MAX_LOOKED_UP};

impl Listener<'_> {
    /// A request is on its way to a partition.
    pub(super) fn asks(&mut self, head: &Head<'_>, topic: kafka::Topic<'_>, partition: i32) {
        if self.has_found_other_end() {
            return;
        }
        if !self.has_room(head.request_seq) {
            return;
        }
        let known = self.world.topic(topic);
        let Some(log) = self.log(&known, id(topic), partition, true) else { return };
        let request = Request { connection: self.id, seq: head.request_seq };
        log.asked(request, head.request_start_ns);
        self.state.in_flight.waiting.push_back((head.request_seq, log));
    }

    /// Whether there is room for one more partition of a request: the oldest of an earlier one
    /// makes it.
    fn has_room(&mut self, request_seq: u32) -> bool {
        let InFlight { waiting, answered, .. } = &mut self.state.in_flight;
        if waiting.len() < MAX_ASKED {
            return true;
        }
        let Some((seq, log)) = waiting.pop_front_if(|(seq, _)| *seq != request_seq) else { return false };
        *answered = answered.saturating_sub(1);
        self.world.shared.appends.answered(&log, Request { connection: self.id, seq });
        true
    }

    /// An exchange is whole: requests up to this one wait no longer.
    pub(super) fn answers(&mut self, head: &Head<'_>) {
        let InFlight { waiting, answered, .. } = &mut self.state.in_flight;
        if let Some(at) = waiting.iter().rposition(|(seq, _)| *seq == head.request_seq) {
            *answered = (*answered).max(at.saturating_add(1));
        }
    }

    /// What was appended by requests that wait no longer is noted, so they can be forgotten.
    pub(in crate::worker) fn answered(&mut self) {
        let InFlight { waiting, answered, .. } = &mut self.state.in_flight;
        for (seq, log) in waiting.drain(..std::mem::take(answered).min(waiting.len())) {
            self.world.shared.appends.answered(&log, Request { connection: self.id, seq });
        }
    }

    /// No request of the connection is answered any more.
    pub(in crate::worker) fn answers_nothing(&mut self) {
        self.state.in_flight.answered = self.state.in_flight.waiting.len();
        self.answered();
        self.state.in_flight.waiting = VecDeque::new();
    }

    /// Where it is noted when the messages of a partition were sent; of such as are read, only
    /// where a process of this host writes there.
    pub(super) fn delay(
        &mut self,
        topic: &Topic,
        of: kafka::Topic<'_>,
        partition: i32,
        is_sent: bool,
    ) -> Option<Delay> {
        let log = self.log(topic, id(of), partition, is_sent)?;
        Some(Delay { log, append: None, found: Found::default() })
    }

    fn log(
        &mut self,
        topic: &Topic,
        id: Option<u128>,
        partition: i32,
        is_sent: bool,
    ) -> Option<appends::Shared> {
        // With several workers, another one may be about to see a request that writes there.
        let is_made = is_sent || self.world.shared.is_read_by_several();
        if !is_made && self.world.shared.appends.is_empty() {
            return None;
        }
        let (cluster, number) =
            (self.state.client.cluster(&self.world.shared), self.world.shared.appends.logs());
        let Logs { looked_up, cluster: of, number: then } = &mut self.state.in_flight.logs;
        if (*then, &*of) != (number, &cluster) {
            (*then, *of) = (number, cluster.clone());
            looked_up.clear();
        }
        let is_it = |one: &&LookedUp| one.partition == partition && one.id == id && one.topic == *topic;
        if let Some(LookedUp { log, .. }) = looked_up.iter().find(is_it)
            && (log.is_some() || !is_made)
        {
            return log.clone();
        }
        let [place, before] = self.places(topic, cluster, partition);
        let appends = &self.world.shared.appends;
        let known = if is_sent { None } else { appends.find([place.clone(), before]) };
        let log = known.or_else(|| is_made.then(|| appends.of(&place)));
        if let (Some(log), Some(id)) = (&log, id) {
            self.world.shared.appends.log_is(log, id);
        }
        let looked_up = &mut self.state.in_flight.logs.looked_up;
        if looked_up.len() >= MAX_LOOKED_UP {
            looked_up.clear();
        }
        looked_up.push(LookedUp { topic: topic.clone(), id, partition, log: log.clone() });
        log
    }

    /// Where a partition's log is noted: now, and before its cluster was known.
    fn places(&self, topic: &Topic, cluster: Option<Arc<str>>, partition: i32) -> [LogKey; 2] {
        let topic = Arc::clone(&shown(topic).name);
        let nameless = Cluster::Of(self.state.client.ends.broker);
        let cluster = cluster.map_or_else(|| nameless.clone(), Cluster::Named);
        [
            LogKey { cluster, topic: Arc::clone(&topic), partition },
            LogKey { cluster: nameless, topic, partition },
        ]
    }

    /// A message was appended.
    #[inline]
    pub(super) fn appended(
        &mut self,
        head: &Head<'_>,
        batch: &Batch<'_>,
        record: &Record<'_>,
        start_ns: u64,
    ) {
        let Some(PartitionCursor { delay: Some(Delay { append, .. }), .. }) = &mut self.state.cursor else {
            return;
        };
        let goes_on =
            append.as_mut().is_some_and(|append| append.takes(record.offset, record.timestamp_ms, start_ns));
        if !goes_on {
            self.begins(head, batch, record, start_ns);
        }
    }

    /// It is the first of an append.
    #[cold]
    fn begins(&mut self, head: &Head<'_>, batch: &Batch<'_>, record: &Record<'_>, start_ns: u64) {
        let Some(PartitionCursor { delay: Some(Delay { log, append, .. }), .. }) = &mut self.state.cursor
        else {
            return;
        };
        let number = (batch.producer_id >= 0 && batch.base_sequence >= 0).then(|| Number {
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            sequence: batch.base_sequence.wrapping_add(record.offset_delta) & i32::MAX,
        });
        let times = start_ns..head.end_ns();
        let new = Append::new(record.offset, record.timestamp_ms, number, times);
        if let Some(over) = append.replace(new) {
            self.world.shared.appends.append(log, over);
        }
    }
}

impl Listener<'_> {
    /// When a message that is shown was sent, which came with the response that ended at this time.
    #[inline(always)]
    pub(super) fn sent(&mut self, record: &Record<'_>, delivered_ns: u64) -> Sent {
        let Some(delay) = self.state.cursor.as_mut().and_then(|at| at.delay.as_mut()) else {
            return Sent::Unknown;
        };
        let sent = delay.sent(record, delivered_ns, self.world.now_ns, &self.world.shared);
        if delay.found.is_forgotten() {
            self.world.losses.lose(Reason::AppendForgotten);
        }
        sent
    }
}

fn id(topic: kafka::Topic<'_>) -> Option<u128> {
    match topic {
        kafka::Topic::Id(id) => Some(id),
        kafka::Topic::Name(_) => None,
    }
}
