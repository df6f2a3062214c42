//! When messages were sent, noted where that is seen, and asked for where they are delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::Head;
use ktrace_kafka::record::{Batch, Record};

use super::at::At;
use super::listener::{Listener, Told};
use super::peer::Peer;
use crate::hop::appends::{self, Append, Cluster, Found, Number, Place, Request, Sent, Sought};
use crate::hop::{Kind, Passage, Topic, shown};

/// Partitions of a connection's requests that wait for their responses; past it the oldest is taken for one that does not.
const MAX_ASKED: usize = 4096;

/// What a connection's requests and its records at hand tell.
#[derive(Default)]
pub(super) struct Asked {
    /// In their order, by the request's sequence number.
    waiting: VecDeque<(u32, appends::Shared)>,
    /// So many of them, from the first on, wait no longer.
    answered: usize,
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
        if self.peer.search.has_found() || self.peer.is_broker(&self.told.shared) {
            return;
        }
        let known = self.told.topic(topic);
        let log = self.log_of_sent(&known, id(topic), partition);
        let request = Request { connection: self.id, seq: head.request_seq };
        log.asked(request, head.request_start_ns);
        let Asked { waiting, answered } = &mut self.peer.asked;
        waiting.push_back((head.request_seq, log));
        *answered = (*answered).max(waiting.len().saturating_sub(MAX_ASKED));
    }

    /// An exchange is told: requests up to this one wait no longer.
    pub(super) fn answers(&mut self, head: &Head<'_>) {
        let Asked { waiting, answered } = &mut self.peer.asked;
        if let Some(at) = waiting.iter().rposition(|(seq, _)| *seq == head.request_seq) {
            *answered = (*answered).max(at.saturating_add(1));
        }
    }

    /// What was appended by requests that wait no longer is noted, so they can be forgotten.
    pub(super) fn answered(&mut self) {
        let Asked { waiting, answered } = &mut self.peer.asked;
        for (seq, log) in waiting.drain(..std::mem::take(answered).min(waiting.len())) {
            self.told.shared.appends.answered(&log, Request { connection: self.id, seq });
        }
    }

    /// Nothing more is answered.
    pub(super) fn answers_nothing(&mut self) {
        self.peer.asked.answered = self.peer.asked.waiting.len();
        self.answered();
    }

    /// Of the records at hand, those that are sent, or those that are read where somebody of this host writes.
    pub(super) fn delay(
        &mut self,
        topic: &Topic,
        of: kafka::Topic<'_>,
        partition: i32,
        is_sent: bool,
    ) -> Option<Delay> {
        let log = match is_sent {
            true => Some(self.log_of_sent(topic, id(of), partition)),
            false => self.log_of_read(topic, id(of), partition),
        };
        log.map(|log| Delay { log, append: None, found: Found::default() })
    }

    fn log_of_sent(&mut self, topic: &Topic, id: Option<u128>, partition: i32) -> appends::Shared {
        let [first, _] = self.places(topic, partition);
        let (log, forgotten) = self.told.shared.appends.of(first);
        let count = &mut self.told.own_losses.append_forgotten;
        *count = count.saturating_add(forgotten);
        if let Some(id) = id {
            log.is(id);
        }
        log
    }

    fn log_of_read(&mut self, topic: &Topic, id: Option<u128>, partition: i32) -> Option<appends::Shared> {
        if self.told.shared.appends.is_empty() {
            return None;
        }
        let places = self.places(topic, partition);
        let log = self.told.shared.appends.find(places)?;
        if let Some(id) = id {
            log.is(id);
        }
        Some(log)
    }

    /// Where a partition's log is noted: now, and before its cluster was known.
    fn places(&mut self, topic: &Topic, partition: i32) -> [Place; 2] {
        let topic = Arc::clone(&shown(topic).name);
        let nameless = Cluster::Of(self.peer.ends.broker);
        let cluster = self.peer.cluster(&self.told.shared).map_or_else(|| nameless.clone(), Cluster::Named);
        [
            Place { cluster, topic: Arc::clone(&topic), partition },
            Place { cluster: nameless, topic, partition },
        ]
    }

    /// A message was appended.
    pub(super) fn appended(&mut self, batch: &Batch<'_>, record: &Record<'_>, times: (u64, u64)) {
        let Record { offset, timestamp_ms, .. } = *record;
        let Some(Delay { log, append, .. }) = self.peer.at.as_mut().and_then(|at| at.delay.as_mut()) else {
            return;
        };
        if append.as_mut().is_some_and(|append| append.takes(offset, timestamp_ms, times.0)) {
            return;
        }
        let number = (batch.producer_id >= 0 && batch.base_sequence >= 0).then(|| Number {
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            sequence: batch.base_sequence.wrapping_add(record.offset_delta) & i32::MAX,
        });
        if let Some(over) = append.replace(Append::new(offset, timestamp_ms, number, times)) {
            self.told.shared.appends.append(log, over);
        }
    }
}

impl Listener<'_> {
    /// When a message that is shown was sent, which came with the response that ended at this time.
    pub(super) fn sent(&mut self, record: &Record<'_>, delivered_ns: u64) -> Sent {
        let sent = self.told.sent(self.peer, record.offset, record.timestamp_ms, delivered_ns);
        let delay = self.peer.at.as_ref().and_then(|at| at.delay.as_ref());
        if delay.is_some_and(|delay| delay.found.is_forgotten()) {
            let count = &mut self.told.own_losses.append_forgotten;
            *count = count.saturating_add(1);
        }
        sent
    }
}

impl Told {
    /// When a message that is delivered was sent.
    pub(super) fn sent(&self, peer: &mut Peer, offset: i64, timestamp_ms: i64, delivered_ns: u64) -> Sent {
        let Some(At { delay: Some(Delay { log, found, .. }), .. }) = &mut peer.at else {
            return Sent::Unknown;
        };
        if !found.is_of(offset) {
            let several = self.shared.is_read_by_several();
            *found = log.find(Sought { offset, delivered_ns, now_ns: Some(self.now_ns), several });
        }
        found.sent(timestamp_ms, log)
    }
}

impl Delay {
    /// No more records come for now.
    pub(super) fn settle(self, told: &Told) {
        if let Some(append) = self.append {
            told.shared.appends.append(&self.log, append);
        }
    }
}

/// Looks again for who has sent a message, for the last time where `now_ns` is `None`.
pub(super) fn look_again(passage: &mut Passage, now_ns: Option<u64>, several: bool) {
    let Kind::Delivered { sent, .. } = &mut passage.kind else { return };
    let (Sent::Sought(log), Some(offset)) = (&*sent, passage.offset) else { return };
    let found = log.find(Sought { offset, delivered_ns: passage.end_ns, now_ns, several });
    *sent = found.sent(passage.timestamp_ms, log);
}

fn id(topic: kafka::Topic<'_>) -> Option<u128> {
    match topic {
        kafka::Topic::Id(id) => Some(id),
        kafka::Topic::Name(_) => None,
    }
}
