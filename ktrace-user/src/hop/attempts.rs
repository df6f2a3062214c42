//! Messages that a producer sends more than once: until one attempt succeeds, the failed ones are
//! no messages of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::identity::{self, SequencePlace};
use super::store::Store;
use super::transactions::Producer;
use super::versioned::Versioned;

/// A message that may be sent again, the same in every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message(u128);

impl Message {
    /// Of an idempotent producer: its sequence number in a partition names a message.
    #[must_use]
    pub fn numbered(
        producer: &Producer,
        producer_epoch: i16,
        sequence: i32,
        topic: &str,
        partition: i32,
    ) -> Self {
        let (cluster, producer_id) = (producer.cluster.as_deref().unwrap_or_default(), producer.id);
        let place = SequencePlace { cluster, topic, partition, producer_id, producer_epoch, sequence };
        Self(identity::sequence_hash(place))
    }

    /// Of any other: what is known of it, and which of those alike in its request it is. `derived`
    /// is its derived trace id without an offset.
    #[must_use]
    pub fn alike(derived: [u8; 16], context: Option<[u8; 16]>, client: &str, topic: &str, nth: u32) -> Self {
        let mut state = Xxh3Default::new();
        state.update(b"like");
        state.update(&derived);
        state.update(&context.unwrap_or_default());
        state.update(&(client.len() as u64).to_be_bytes());
        state.update(client.as_bytes());
        state.update(topic.as_bytes());
        state.update(&nth.to_be_bytes());
        Self(state.digest128())
    }
}

/// Where messages with failed attempts were to go. A message is sent again to the same partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u64);

impl Place {
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self(xxh3_64(topic.as_bytes()).wrapping_add(u64::from(partition.cast_unsigned())))
    }
}

/// Messages with failed attempts that are kept; over the limit the oldest is forgotten.
const MAX_MESSAGES: usize = 64 << 10;

/// A message that was not sent again is forgotten after this: producers give up after two minutes
/// by default (`delivery.timeout.ms`).
const PATIENCE_NS: u64 = 150_000_000_000;

/// What came before an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Failed attempts.
    pub attempts: u32,
    /// When the first of them began.
    pub start_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    before: Before,
    /// So many of them were followed by another.
    followed: u32,
}

/// How far a producer has come in a partition.
#[derive(Clone, Copy, Debug)]
struct Acked {
    /// The sequence number of the last message that was acknowledged.
    sequence: i32,
    /// When it was sent.
    start_ns: u64,
}

/// Producers in partitions whose last sequence number is kept; over the limit those of long ago are
/// forgotten.
const MAX_ACKED: usize = 16 << 10;

/// What a message and a producer in a partition take, about.
const MESSAGE_BYTES: usize = 128;
const ACKED_BYTES: usize = 64;

/// Rings are read so much apart at most.
const APART_NS: u64 = 2_000_000_000;

#[derive(Debug, Default)]
struct Failed {
    by_message: HashMap<Message, Known>,
    order: VecDeque<(Message, Place, u64)>,
    /// Where they were to go, and how many there.
    places: HashMap<Place, usize>,
    /// By what names the messages of a producer in a partition, with no sequence number.
    acked: HashMap<Message, Acked>,
    /// Those that had to make room.
    forgotten: u64,
}

/// Failed attempts by message, and how far producers have come. One for all workers.
#[derive(Debug, Default)]
pub struct Attempts {
    failed: Versioned<Failed>,
    /// How many there are, for who need not lock to know that there are none.
    len: AtomicUsize,
}

/// Java's client sends a batch that is too large again in parts, if it has several records
/// (`Sender.completeBatch`); librdkafka and franz-go hand the error to the application.
const MESSAGE_TOO_LARGE: i16 = 10;

/// Whether a producer may send a batch with this number of records again after this error.
#[must_use]
pub fn may_follow(code: i16, records: i32) -> bool {
    error::outcome(Purpose::Produce, code) == Outcome::Retry || (code == MESSAGE_TOO_LARGE && records > 1)
}

impl Attempts {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages with failed attempts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The number of changes so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.failed.version()
    }

    /// Whether any that is sent there may be one of them.
    #[must_use]
    pub fn are_at(&self, place: Place) -> bool {
        !self.is_empty() && self.failed.read(|failed| failed.places.contains_key(&place))
    }

    /// How many had to make room for others since this was asked last.
    pub fn take_forgotten(&self) -> u64 {
        self.failed.write_quiet(|failed| std::mem::take(&mut failed.forgotten))
    }

    /// With several rings: messages up to this sequence number were acknowledged, as sent at this
    /// time.
    pub fn acked(&self, of: Message, sequence: i32, start_ns: u64) {
        self.failed.write_quiet(|failed| {
            if failed.acked.len() >= MAX_ACKED && !failed.acked.contains_key(&of) {
                failed.acked.retain(|_, known| start_ns.saturating_sub(known.start_ns) < APART_NS);
                if failed.acked.len() >= MAX_ACKED {
                    failed.forgotten = failed.forgotten.saturating_add(failed.acked.len() as u64);
                    failed.acked.clear();
                }
            }
            let known = failed.acked.entry(of).or_insert(Acked { sequence, start_ns });
            if is_up_to(known.sequence, sequence) {
                *known = Acked { sequence, start_ns };
            }
        });
    }

    /// Whether a message that was sent at this time is among those that were acknowledged later: it
    /// was sent again, or one behind it would have been refused.
    #[must_use]
    pub fn was_acked_later(&self, of: Message, sequence: i32, start_ns: u64) -> bool {
        let is_later = |known: &Acked| is_up_to(sequence, known.sequence) && start_ns < known.start_ns;
        self.failed.read(|failed| failed.acked.get(&of).is_some_and(is_later))
    }

    /// A message is sent. Returns what came before; this attempt stands for those, too.
    pub fn sent(&self, message: Message) -> Before {
        let mut before = Before::default();
        self.failed.update(|failed| {
            let Some(known) = failed.by_message.get_mut(&message) else { return false };
            known.followed = known.before.attempts;
            before = known.before;
            true
        });
        before
    }

    /// An attempt that began at this time has failed. Gives what came before, like
    /// [`Attempts::sent`].
    pub fn failed(&self, message: Message, place: Place, start_ns: u64, now_ns: u64) -> Before {
        let mut before = Before::default();
        self.failed.update(|failed| {
            failed.forget(|_, since_ns| now_ns.saturating_sub(since_ns) > PATIENCE_NS);
            if !failed.by_message.contains_key(&message) {
                failed.forgotten =
                    failed.forgotten.saturating_add(failed.forget(|len, _| len >= MAX_MESSAGES));
            }
            let Failed { by_message, order, places, .. } = failed;
            let known = by_message.entry(message).or_insert_with(|| {
                order.push_back((message, place, now_ns));
                let count = places.entry(place).or_default();
                *count = count.saturating_add(1);
                Known { before: Before { attempts: 0, start_ns }, followed: 0 }
            });
            before = known.before;
            known.followed = before.attempts;
            known.before.attempts = before.attempts.saturating_add(1);
            self.len.store(by_message.len(), Ordering::Release);
            true
        });
        before
    }

    /// Forgets those that are not sent again.
    pub fn expire(&self, now_ns: u64) {
        if self.is_empty() {
            return;
        }
        self.failed.update(|failed| {
            failed.forget(|_, since_ns| now_ns.saturating_sub(since_ns) > PATIENCE_NS);
            self.len.store(failed.by_message.len(), Ordering::Release);
            false
        });
    }

    /// Whether another attempt has followed the one before which there were `before`.
    #[must_use]
    pub fn is_followed(&self, message: Message, before: u32) -> bool {
        self.failed
            .read(|failed| failed.by_message.get(&message).is_some_and(|known| known.followed > before))
    }
}

/// Sequence numbers go on with 0 behind the last that there is.
fn is_up_to(sequence: i32, last: i32) -> bool {
    last.wrapping_sub(sequence) & i32::MAX < 1 << 30
}

impl Failed {
    /// Forgets the oldest while `is_over` says so of their number and of the time when the oldest
    /// came. Returns how many it forgot.
    fn forget(&mut self, is_over: impl Fn(usize, u64) -> bool) -> u64 {
        let mut forgotten = 0_u64;
        while let Some((oldest, place, since_ns)) = self.order.front().copied()
            && is_over(self.order.len(), since_ns)
        {
            self.order.pop_front();
            self.by_message.remove(&oldest);
            if let Some(count) = self.places.get_mut(&place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.places.remove(&place);
                }
            }
            forgotten = forgotten.saturating_add(1);
        }
        forgotten
    }
}

impl Store for Attempts {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("failed messages", self.len()),
            ("idempotent producers", self.failed.read(|failed| failed.acked.len())),
        ]
    }

    fn bytes(&self) -> usize {
        let acked = self.failed.read(|failed| failed.acked.len());
        self.len().saturating_mul(MESSAGE_BYTES).saturating_add(acked.saturating_mul(ACKED_BYTES))
    }

    fn take_evicted(&self) -> u64 {
        self.take_forgotten()
    }

    fn expire(&self, now_ns: u64) {
        Self::expire(self, now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(sequence: i32) -> Message {
        Message::numbered(&Producer { cluster: None, id: 1 }, 0, sequence, "orders", 2)
    }

    fn place() -> Place {
        Place::new("orders", 2)
    }

    #[test]
    fn attempts_are_counted_until_one_succeeds() {
        let attempts = Attempts::default();
        let message = numbered(5);
        assert!(attempts.is_empty());
        assert_eq!(attempts.sent(message), Before::default());
        assert_eq!(attempts.failed(message, place(), 10, 20), Before { attempts: 0, start_ns: 10 });
        assert!(!attempts.is_empty() && !attempts.is_followed(message, 0));
        assert_eq!(attempts.failed(message, place(), 30, 40), Before { attempts: 1, start_ns: 10 });
        assert!(attempts.is_followed(message, 0) && !attempts.is_followed(message, 1));
        assert_eq!(attempts.sent(message), Before { attempts: 2, start_ns: 10 });
        assert!(attempts.is_followed(message, 1));
        assert_ne!(message, numbered(6));
        assert!(attempts.are_at(place()) && !attempts.are_at(Place::new("orders", 3)));
        // Given up in the end.
        attempts.expire(21 + PATIENCE_NS);
        assert!(attempts.is_empty() && !attempts.are_at(place()));
        assert_eq!(attempts.sent(message), Before::default());
        assert_eq!(attempts.take_forgotten(), 0);
    }

    #[test]
    fn what_was_acknowledged_later_was_sent_again() {
        let attempts = Attempts::default();
        let of = |id| Message::numbered(&Producer { cluster: None, id }, 0, -1, "orders", 2);
        attempts.acked(of(1), 9, 100);
        attempts.acked(of(1), 4, 300);
        let was = |sequence, start_ns| attempts.was_acked_later(of(1), sequence, start_ns);
        assert_eq!([was(9, 50), was(5, 99), was(10, 50), was(9, 100)], [true, true, false, false]);
        assert!(!attempts.was_acked_later(of(2), 9, 50));
        attempts.acked(of(3), i32::MAX, 100);
        attempts.acked(of(3), 5, 200);
        assert!(attempts.was_acked_later(of(3), i32::MAX - 3, 150) && attempts.is_empty());
    }

    /// Hostile: millions of producers.
    #[test]
    fn producers_are_bounded_and_those_forgotten_too_early_are_counted() {
        let attempts = Attempts::default();
        let count = 100_000;
        for id in 0..count {
            let of = Message::numbered(&Producer { cluster: None, id }, 0, -1, "orders", 2);
            attempts.acked(of, 1, 5);
        }
        let left = attempts.failed.read(|failed| failed.acked.len());
        assert!(left <= MAX_ACKED);
        assert_eq!(attempts.take_forgotten() + left as u64, count as u64);
    }

    #[test]
    fn messages_are_bounded_and_those_forgotten_are_counted() {
        let attempts = Attempts::default();
        for sequence in 0..2 * MAX_MESSAGES as i32 {
            attempts.failed(numbered(sequence), Place::new("orders", sequence), 0, 0);
        }
        assert_eq!(attempts.len(), MAX_MESSAGES);
        assert_eq!(attempts.sent(numbered(0)), Before::default());
        assert_eq!(attempts.failed.read(|failed| failed.places.len()), MAX_MESSAGES);
        assert_eq!([attempts.take_forgotten(), attempts.take_forgotten()], [MAX_MESSAGES as u64, 0]);
    }

    #[test]
    fn what_may_follow_is_what_clients_try_again() {
        assert!(may_follow(6, 1) && may_follow(13, 1) && may_follow(10, 2));
        assert!(!may_follow(0, 1) && !may_follow(46, 1) && !may_follow(10, 1) && !may_follow(87, 2));
    }
}
