//! When messages were sent, noted where that is seen, and asked for where they are delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::Head;
use ktrace_kafka::record::{Batch, Record};

use super::at::At;
use super::listener::Listener;
use super::told::Told;
use crate::hop::appends::{self, Append, Cluster, Found, LogKey, Number, Request, Sent, Sought};
use crate::hop::{Kind, Passage, Topic, shown};

/// Partitions of a connection's requests that wait for their responses; past it the oldest is taken for one that does not, and of
/// one request the others are.
pub(super) const MAX_ASKED: usize = 4096;

/// What one of them takes with its log, which others may have forgotten.
const ASKED_BYTES: usize = 384;

/// Logs that a connection remembers; most clients write to and read fewer partitions of a broker.
const MAX_LOOKED_UP: usize = 32;

/// What a connection's requests and its records at hand tell.
#[derive(Default)]
pub(super) struct Asked {
    /// In their order, by the request's sequence number.
    waiting: VecDeque<(u32, appends::Shared)>,
    /// So many of them, from the first on, wait no longer.
    answered: usize,
    logs: Logs,
}

impl Asked {
    /// What it takes, about.
    pub(super) fn held_bytes(&self) -> usize {
        let places = self.waiting.capacity().saturating_mul(size_of::<(u32, appends::Shared)>());
        places.saturating_add(self.waiting.len().saturating_mul(ASKED_BYTES))
    }
}

/// Those that the connection's client has written to or read last.
#[derive(Default)]
struct Logs {
    looked_up: Vec<LookedUp>,
    /// Looked up for this cluster, when what is known of logs had this number.
    cluster: Option<Arc<str>>,
    number: u64,
}

struct LookedUp {
    topic: Topic,
    /// As the wire names it, where that is an id.
    id: Option<u128>,
    partition: i32,
    log: Option<appends::Shared>,
}

/// Of the records at hand.
pub(super) struct Delay {
    log: appends::Shared,
    /// What was sent, as far as it is one behind the other.
    append: Option<Append>,
    /// What was found of what was delivered.
    found: Found,
}

impl Listener<'_> {
    /// A request is on its way to a partition.
    pub(super) fn asks(&mut self, head: &Head<'_>, topic: kafka::Topic<'_>, partition: i32) {
        if self.peer.search.has_found() {
            return;
        }
        if !self.has_room(head.request_seq) {
            return;
        }
        let known = self.told.topic(topic);
        let Some(log) = self.log(&known, id(topic), partition, true) else { return };
        let request = Request { connection: self.id, seq: head.request_seq };
        log.asked(request, head.request_start_ns);
        self.peer.asked.waiting.push_back((head.request_seq, log));
    }

    /// Whether there is room for one more partition of a request: the oldest of an earlier one makes it.
    fn has_room(&mut self, request_seq: u32) -> bool {
        let Asked { waiting, answered, .. } = &mut self.peer.asked;
        if waiting.len() < MAX_ASKED {
            return true;
        }
        let Some((seq, log)) = waiting.pop_front_if(|(seq, _)| *seq != request_seq) else { return false };
        *answered = answered.saturating_sub(1);
        self.told.shared.appends.answered(&log, Request { connection: self.id, seq });
        true
    }

    /// An exchange is told: requests up to this one wait no longer.
    pub(super) fn answers(&mut self, head: &Head<'_>) {
        let Asked { waiting, answered, .. } = &mut self.peer.asked;
        if let Some(at) = waiting.iter().rposition(|(seq, _)| *seq == head.request_seq) {
            *answered = (*answered).max(at.saturating_add(1));
        }
    }

    /// What was appended by requests that wait no longer is noted, so they can be forgotten.
    pub(super) fn answered(&mut self) {
        let Asked { waiting, answered, .. } = &mut self.peer.asked;
        for (seq, log) in waiting.drain(..std::mem::take(answered).min(waiting.len())) {
            self.told.shared.appends.answered(&log, Request { connection: self.id, seq });
        }
    }

    /// Nothing more is answered, as far as anybody waits for it.
    pub(super) fn answers_nothing(&mut self) {
        self.peer.asked.answered = self.peer.asked.waiting.len();
        self.answered();
        self.peer.asked.waiting = VecDeque::new();
    }

    /// Of the records at hand, those that are sent, or those that are read where somebody of this host writes.
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
        // With several workers, another one may be about to see that somebody writes.
        let is_made = is_sent || self.told.shared.is_read_by_several();
        if !is_made && self.told.shared.appends.is_empty() {
            return None;
        }
        let (cluster, number) = (self.peer.cluster(&self.told.shared), self.told.shared.appends.logs());
        let Logs { looked_up, cluster: of, number: then } = &mut self.peer.asked.logs;
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
        let appends = &self.told.shared.appends;
        let known = if is_sent { None } else { appends.find([place.clone(), before]) };
        let log = known.or_else(|| is_made.then(|| appends.of(&place)));
        if let (Some(log), Some(id)) = (&log, id) {
            self.told.shared.appends.log_is(log, id);
        }
        let looked_up = &mut self.peer.asked.logs.looked_up;
        if looked_up.len() >= MAX_LOOKED_UP {
            looked_up.clear();
        }
        looked_up.push(LookedUp { topic: topic.clone(), id, partition, log: log.clone() });
        log
    }

    /// Where a partition's log is noted: now, and before its cluster was known.
    fn places(&self, topic: &Topic, cluster: Option<Arc<str>>, partition: i32) -> [LogKey; 2] {
        let topic = Arc::clone(&shown(topic).name);
        let nameless = Cluster::Of(self.peer.ends.broker);
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
        let Some(At { delay: Some(Delay { append, .. }), .. }) = &mut self.peer.at else { return };
        let goes_on =
            append.as_mut().is_some_and(|append| append.takes(record.offset, record.timestamp_ms, start_ns));
        if !goes_on {
            self.begins(head, batch, record, start_ns);
        }
    }

    /// It is the first of an append.
    #[cold]
    fn begins(&mut self, head: &Head<'_>, batch: &Batch<'_>, record: &Record<'_>, start_ns: u64) {
        let Some(At { delay: Some(Delay { log, append, .. }), .. }) = &mut self.peer.at else { return };
        let number = (batch.producer_id >= 0 && batch.base_sequence >= 0).then(|| Number {
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            sequence: batch.base_sequence.wrapping_add(record.offset_delta) & i32::MAX,
        });
        let times = start_ns..head.end_ns();
        let new = Append::new(record.offset, record.timestamp_ms, number, times);
        if let Some(over) = append.replace(new) {
            self.told.shared.appends.append(log, over);
        }
    }
}

impl Listener<'_> {
    /// When a message that is shown was sent, which came with the response that ended at this time.
    #[inline(always)]
    pub(super) fn sent(&mut self, record: &Record<'_>, delivered_ns: u64) -> Sent {
        let Some(delay) = self.peer.at.as_mut().and_then(|at| at.delay.as_mut()) else {
            return Sent::Unknown;
        };
        let sent = delay.sent(record, delivered_ns, self.told);
        if delay.found.is_forgotten() {
            let count = &mut self.told.own_losses.append_forgotten;
            *count = count.saturating_add(1);
        }
        sent
    }
}

impl Delay {
    /// When a message that is delivered was sent.
    #[inline(always)]
    pub(super) fn sent(&mut self, record: &Record<'_>, delivered_ns: u64, told: &Told) -> Sent {
        if !self.found.is_of(record.offset) {
            self.find(record.offset, delivered_ns, told);
        }
        self.found.sent(record.timestamp_ms, &self.log)
    }

    #[cold]
    fn find(&mut self, offset: i64, delivered_ns: u64, told: &Told) {
        let (several, after) = (told.shared.is_read_by_several(), self.found.place());
        self.found =
            self.log.find(Sought { offset, delivered_ns, now_ns: Some(told.now_ns), several, after });
    }

    /// No more records come for now.
    pub(super) fn settle(self, told: &Told) {
        if let Some(append) = self.append {
            told.shared.appends.append(&self.log, append);
        }
    }
}

/// Looks again for who has sent a message, for the last time where `now_ns` is `None`.
pub(super) fn look_again(passage: &mut Passage, now_ns: Option<u64>, several: bool) {
    let Kind::Delivered { sent, is_catching_up, .. } = &mut passage.kind else { return };
    let (Sent::Sought(log), Some(offset)) = (&*sent, passage.offset) else { return };
    let found = log.find(Sought { offset, delivered_ns: passage.end_ns, now_ns, several, after: 0 });
    *sent = found.sent(passage.timestamp_ms, log);
    // Its producer was being answered when it came: it was not there before.
    *is_catching_up &= !matches!(sent, Sent::At(_));
}

fn id(topic: kafka::Topic<'_>) -> Option<u128> {
    match topic {
        kafka::Topic::Id(id) => Some(id),
        kafka::Topic::Name(_) => None,
    }
}
