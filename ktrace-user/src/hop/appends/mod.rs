//! What producers of this host appended to logs, and when. A delivery on the same host then has an
//! end-to-end latency measured on one clock.
//!
//! ```text
//!  request ──────────────────▶ response (offsets) ─▶ Append ─▶ Log ─▶ delivery: since the request's first byte
//!     └─ until then: one that may have brought what is delivered meanwhile
//! ```

mod log;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::store::{Bound, Bounded, Store, part_of};
use crate::seen::ConnectionId;
pub use log::Log;

/// Logs that are kept.
const MAX_LOGS: usize = 64 << 10;

/// Appends of all logs together. When exceeded, each log drops the older half of its own: what is
/// delivered next is most often what was appended last, in whichever log.
const MAX_IN_ALL: usize = 128 << 10;

/// What a log and an append take, about.
const LOG_BYTES: usize = 256;
const APPEND_BYTES: usize = 72;

/// Names the log of a partition that a process of this host writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogKey {
    pub cluster: Cluster,
    /// Its name, or its id as Kafka prints it.
    pub topic: Arc<str>,
    pub partition: i32,
}

/// The cluster that a topic belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cluster {
    Named(Arc<str>),
    /// The cluster of this broker, whose name is not known yet.
    Of(SocketAddr),
}

/// Identifies a message of an idempotent producer. The broker gives a retry of a message that had
/// arrived the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
}

/// Consecutive messages that one request appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    offsets: Range<i64>,
    /// The least and the greatest of their timestamps, in milliseconds since 1970. A new log under
    /// the old name has others.
    oldest_ms: i64,
    newest_ms: i64,
    /// The first message's.
    number: Option<Number>,
    /// The request's first byte, in nanoseconds since 1970; the first attempt's, where there were
    /// several.
    start_ns: u64,
    /// The response's last byte.
    end_ns: u64,
}

impl Append {
    /// An append of one message.
    #[must_use]
    pub fn new(offset: i64, timestamp_ms: i64, number: Option<Number>, during: Range<u64>) -> Self {
        let (offsets, Range { start: start_ns, end: end_ns }) = (offset..offset.saturating_add(1), during);
        Self { offsets, oldest_ms: timestamp_ms, newest_ms: timestamp_ms, number, start_ns, end_ns }
    }

    /// Adds the next message. Returns false if it is not of this append: not the next offset, or of
    /// another request.
    #[inline]
    pub fn takes(&mut self, offset: i64, timestamp_ms: i64, start_ns: u64) -> bool {
        let goes_on = offset == self.offsets.end && start_ns == self.start_ns && offset < i64::MAX;
        if goes_on {
            self.offsets.end = offset.saturating_add(1);
            self.oldest_ms = self.oldest_ms.min(timestamp_ms);
            self.newest_ms = self.newest_ms.max(timestamp_ms);
        }
        goes_on
    }
}

/// A Produce request that is pending: its response has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub connection: ConnectionId,
    pub seq: u32,
}

/// When a message was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// No process of this host is known to have sent it.
    #[default]
    Unknown,
    /// The first byte of the request that brought it, in nanoseconds since 1970.
    At(u64),
    /// A pending request to this log may turn out to have brought it.
    Sought(Shared),
}

/// A look-up of the append that brought a delivered message.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    pub offset: i64,
    /// The last byte of its delivery.
    pub delivered_ns: u64,
    pub now_ns: Option<u64>,
    /// Several workers read rings, so the one that sees the producer may be behind.
    pub several: bool,
    /// Where the last look-up ended ([`Found::place`]): the next append is the likely one.
    pub after: usize,
}

/// The answer to a look-up. It holds for a range of offsets, so neighbours need none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    offsets: Range<i64>,
    what: What,
    place: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Append { oldest_ms: i64, newest_ms: i64, start_ns: u64 },
    Nothing,
    Forgotten,
    Sought,
}

impl Default for Found {
    /// Holds for no offset.
    fn default() -> Self {
        Self { offsets: 0..0, what: What::Nothing, place: 0 }
    }
}

impl Found {
    /// Whether the answer holds for this offset.
    #[must_use]
    #[inline]
    pub fn is_of(&self, offset: i64) -> bool {
        self.offsets.contains(&offset)
    }

    /// The index of the append, for [`Sought::after`].
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    /// Whether the append was evicted.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.what == What::Forgotten
    }

    /// When the message with this timestamp was sent. A timestamp outside the append's range is of
    /// another log.
    #[must_use]
    #[inline(always)]
    pub fn sent(&self, timestamp_ms: i64, log: &Shared) -> Sent {
        match self.what {
            What::Append { oldest_ms, newest_ms, start_ns }
                if (oldest_ms..=newest_ms).contains(&timestamp_ms) =>
            {
                Sent::At(start_ns)
            }
            What::Sought => Sent::Sought(Arc::clone(log)),
            What::Append { .. } | What::Nothing | What::Forgotten => Sent::Unknown,
        }
    }
}

/// A log, shared by the connections that write to it and those that read it.
pub type Shared = Arc<Log>;

/// The appends of all logs, shared by all workers. The log looked up least recently is evicted
/// first. Workers look their logs up again whenever [`Self::logs`] has changed, so logs in use
/// stay.
#[derive(Debug)]
pub struct Appends {
    by_place: Mutex<Bounded<LogKey, Shared>>,
    /// Appends of all logs.
    len: AtomicUsize,
    max_len: AtomicUsize,
    /// Changes that pending deliveries wait for.
    changes: AtomicU64,
    /// How often a log was added.
    logs: AtomicU64,
}

impl Default for Appends {
    fn default() -> Self {
        Self {
            by_place: Mutex::new(Bounded::new(Bound::entries(MAX_LOGS))),
            len: AtomicUsize::new(0),
            max_len: AtomicUsize::new(MAX_IN_ALL),
            changes: AtomicU64::new(0),
            logs: AtomicU64::new(0),
        }
    }
}

impl Appends {
    fn by_place(&self) -> MutexGuard<'_, Bounded<LogKey, Shared>> {
        self.by_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts changes that a pending delivery waits for. When it has not changed, nothing can be
    /// released.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Counts logs that were added. When it has not changed, a log that was looked up is still the
    /// right one.
    #[must_use]
    pub fn logs(&self) -> u64 {
        self.logs.load(Ordering::Acquire)
    }

    /// The log of a partition to which a process of this host writes, known or new.
    pub fn of(&self, place: &LogKey) -> Shared {
        let mut is_new = false;
        let new = || {
            is_new = true;
            Shared::default()
        };
        let evict = |_, evicted: Shared| self.weigh(evicted.end(), 0);
        let log = Arc::clone(self.by_place().get_or_insert(place, 0, new, evict));
        if is_new {
            self.logs.fetch_add(1, Ordering::Release);
        }
        log
    }

    /// The log of a partition that is read, by the first of these keys that is known.
    #[must_use]
    pub fn find(&self, places: impl IntoIterator<Item = LogKey>) -> Option<Shared> {
        let mut by_place = self.by_place();
        places.into_iter().find_map(|place| by_place.get(&place).cloned())
    }

    /// Whether no process of this host has written anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logs() == 0
    }

    /// The log belongs to the topic with this id. With another id than before it is a new log under
    /// the old name, and empty.
    pub fn log_is(&self, log: &Log, id: u128) {
        let (before, after) = log.is(id);
        self.weigh(before, after);
    }

    /// A response has named the offsets of an append.
    pub fn append(&self, log: &Log, append: Append) {
        let (before, after, is_awaited) = log.append(append);
        self.weigh(before, after);
        self.tell(is_awaited);
        if self.len.load(Ordering::Relaxed) > self.max_len.load(Ordering::Relaxed) {
            for (_, log) in self.by_place().iter() {
                let (before, after) = log.forget_half();
                self.weigh(before, after);
            }
        }
    }

    /// A request is no longer pending.
    pub fn answered(&self, log: &Log, request: Request) {
        self.tell(log.answered(request));
    }

    fn tell(&self, is_awaited: bool) {
        if is_awaited {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    fn weigh(&self, before: usize, after: usize) {
        if after >= before {
            self.len.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.len.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
    }
}

impl Store for Appends {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        let logs = self.by_place().len();
        vec![("partitions written to", logs), ("appends", self.len.load(Ordering::Relaxed))]
    }

    fn bytes(&self) -> usize {
        let logs = self.by_place().len().saturating_mul(LOG_BYTES);
        logs.saturating_add(self.len.load(Ordering::Relaxed).saturating_mul(APPEND_BYTES))
    }

    fn hold_at_most(&self, part: f64) {
        self.by_place().hold_at_most(part);
        self.max_len.store(part_of(MAX_IN_ALL, part), Ordering::Relaxed);
    }

    fn take_evicted(&self) -> u64 {
        self.by_place().take_evicted()
    }
}

#[cfg(test)]
mod tests;
