//! What the producers of this host have appended to logs, and when: so that a delivery on this host tells how long its message was
//! under way, on one clock.
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

/// Appends of all logs together. When exceeded, each log drops the older half of its own: what is delivered next is most often
/// what was appended last, in whichever log.
const MAX_IN_ALL: usize = 128 << 10;

/// What a log and an append take, about.
const LOG_BYTES: usize = 256;
const APPEND_BYTES: usize = 72;

/// A partition, as somebody of this host writes to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogKey {
    pub cluster: Cluster,
    /// Its name, or its id as Kafka prints it.
    pub topic: Arc<str>,
    pub partition: i32,
}

/// Whose topic it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cluster {
    Named(Arc<str>),
    /// That of a broker which nobody has named.
    Of(SocketAddr),
}

/// What the broker knows a message again by that an idempotent producer sends again though it had arrived: it gives it the same
/// offset then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
}

/// Messages that one request has brought, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    offsets: Range<i64>,
    /// Of their timestamps, in milliseconds since 1970: another log's differ.
    oldest_ms: i64,
    newest_ms: i64,
    /// Of the first message.
    number: Option<Number>,
    /// The request's first byte; of the first attempt, where there were several.
    start_ns: u64,
    /// The response's last.
    end_ns: u64,
}

impl Append {
    /// Of one message, whose request and response passed in this time.
    #[must_use]
    pub fn new(offset: i64, timestamp_ms: i64, number: Option<Number>, during: Range<u64>) -> Self {
        let (offsets, Range { start: start_ns, end: end_ns }) = (offset..offset.saturating_add(1), during);
        Self { offsets, oldest_ms: timestamp_ms, newest_ms: timestamp_ms, number, start_ns, end_ns }
    }

    /// Takes the message behind the last one. Returns whether it is of the same append.
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

/// A request that waits for its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub connection: ConnectionId,
    pub seq: u32,
}

/// When a message was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// As far as this host has seen, by nobody.
    #[default]
    Unknown,
    /// The first byte of the request that brought it, in nanoseconds since 1970.
    At(u64),
    /// Whoever writes to this log may yet turn out to have sent it.
    Sought(Shared),
}

/// What is looked for: when it is as late as `now_ns`, or for the last time.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    pub offset: i64,
    /// The last byte of its delivery.
    pub delivered_ns: u64,
    pub now_ns: Option<u64>,
    /// Others read what producers send, and may be behind.
    pub several: bool,
    /// Most often it is behind what was found in this place.
    pub after: usize,
}

/// What is known of these offsets.
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
    /// Of none.
    fn default() -> Self {
        Self { offsets: 0..0, what: What::Nothing, place: 0 }
    }
}

impl Found {
    /// Whether it tells of this offset.
    #[must_use]
    #[inline]
    pub fn is_of(&self, offset: i64) -> bool {
        self.offsets.contains(&offset)
    }

    /// Where it was found.
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    /// Whether it was known and had to make room.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.what == What::Forgotten
    }

    /// When a message was sent that has this timestamp.
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

/// A log, shared by those who write to it and those who read it.
pub type Shared = Arc<Log>;

/// What was appended to all logs, as all workers know it. The log that was looked up least recently is evicted first: workers look
/// their logs up again whenever [`Self::logs`] has changed, so those in use stay.
#[derive(Debug)]
pub struct Appends {
    by_place: Mutex<Bounded<LogKey, Shared>>,
    /// Appends of all logs.
    len: AtomicUsize,
    max_len: AtomicUsize,
    /// Of what somebody waits for.
    changes: AtomicU64,
    /// How often a log came or went.
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

    /// The number of changes so far that somebody has waited for.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The number of changes so far of what logs there are.
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

    /// The log of a partition that is read, if a process of this host writes to it: the first of these places.
    #[must_use]
    pub fn find(&self, places: impl IntoIterator<Item = LogKey>) -> Option<Shared> {
        let mut by_place = self.by_place();
        places.into_iter().find_map(|place| by_place.get(&place).cloned())
    }

    /// Whether nobody has written anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logs() == 0
    }

    /// A log is that of the topic with this id.
    pub fn log_is(&self, log: &Log, id: u128) {
        let (before, after) = log.is(id);
        self.weigh(before, after);
    }

    /// A response told what was appended.
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

    /// A request waits no longer.
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
