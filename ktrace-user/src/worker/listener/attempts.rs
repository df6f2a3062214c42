//! Messages that a producer sends more than once: which attempt each is.

use ktrace_kafka::Head;
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use ktrace_kafka::record::{Batch, Record};

use super::Listener;
use crate::hop::attempts::{Before, Message, Place, may_follow};
use crate::hop::{identity, shown};

/// Names all messages of a producer in a partition.
const NO_SEQUENCE: i32 = -1;

/// An attempt to send a message.
pub(super) struct Attempt {
    pub before: Before,
    /// It has failed, and another may follow.
    pub pending: Option<Box<Message>>,
}

impl Attempt {
    /// When the first of them began.
    pub fn start_ns(&self, head: &Head<'_>) -> u64 {
        if self.before.attempts > 0 { self.before.start_ns } else { head.request_start_ns }
    }
}

impl Listener<'_> {
    /// A batch is acknowledged. Where several rings are read, a failed attempt to send it may lie
    /// in one that is read later.
    fn acked(&mut self, head: &Head<'_>, partition: i32, batch: &Batch<'_>) {
        if batch.producer_id < 0 || batch.base_sequence < 0 || !self.world.shared.is_read_by_several() {
            return;
        }
        let producer = self.producer(batch.producer_id);
        let Some(topic) = self.state.cursor.as_ref().map(|at| shown(&at.topic)) else { return };
        let of = Message::numbered(&producer, batch.producer_epoch, NO_SEQUENCE, &topic.name, partition);
        let last = batch.base_sequence.wrapping_add(batch.last_offset_delta) & i32::MAX;
        self.world.shared.attempts.acked(of, last, head.request_start_ns);
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
        let is_first = is_acked && !self.state.cursor.as_ref().is_some_and(|at| at.may_be_sent_again);
        // Where the other end of the connection may show it, that end counts.
        if is_first || self.may_find_other_end() {
            return Attempt { before: Before::default(), pending: None };
        }
        let topic = self.state.cursor.as_ref().map(|at| shown(&at.topic));
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
            let nth = self.state.cursor.as_mut().map_or(0, |at| at.nth(alike(0)));
            alike(nth)
        };
        let attempts = &self.world.shared.attempts;
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
pub(super) fn is_acked(error: i16) -> bool {
    error::outcome(Purpose::Produce, error) == Outcome::Success
}
