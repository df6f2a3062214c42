//! Chains: a process reads a message and writes another because of it, and no header says so.
//!
//! A cause is reported only where there is evidence. Of all messages that the process is known to
//! have read (`REMEMBERED_NS`), exactly one has the same key; it came within [`WINDOW_NS`] before
//! the process sent this one; and earlier messages to the same topic had such a cause, too.
//!
//! Nothing is reported of a process that also writes to the topic on its own, that reads the same
//! key again and again, or that changes keys; nor while it is not known what the process has read.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ktrace_kafka::context::{SpanId, TraceId};

use super::store::{Bound, Bounded, Store, drop_evicted, part_of};
use crate::seen::Process;
use crate::span::Resource;

/// How old a cause may be. Longer than most processing takes; with a wider window a key is more
/// often ambiguous.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// How long a message is remembered. Outside the window it is not reported as a cause, but makes
/// another one with its key ambiguous: the process may be late.
const REMEMBERED_NS: u64 = 600_000_000_000;

/// Before a cause is reported for a topic, this many messages to it in a row must have had a
/// candidate, one or several. The number doubles, up to the second constant, each time that one had
/// none: a process that writes on its own soon needs thousands.
const FIRST_STREAK: u32 = 16;
const LONGEST_STREAK: u32 = 4096;

/// Of the last [`FIRST_STREAK`] messages this many must have had exactly one candidate: where keys
/// are few, some message has any of them by chance.
const LEAST_CLEAR: u32 = 12;

/// Messages of one process that are remembered, and of all processes. When exceeded, the oldest of
/// the process that gets more are dropped.
const MAX_READS: usize = 64 << 10;
const MAX_READS_IN_ALL: usize = 256 << 10;

/// What a message takes, about, with its place among those of its key.
const READ_BYTES: usize = 112;

/// Processes that are followed: as many as the agent reads of `/proc`.
const MAX_PROCESSES: usize = 8192;

/// What a process takes beside its messages and its topics' names, about.
const PROCESS_BYTES: usize = 512;

/// Topics of one process whose streaks are known. Of one that is evicted the proof begins anew.
const MAX_TOPICS: usize = 1024;

/// Messages of one key that are looked through for a cause. Behind more of them the cause counts as
/// ambiguous, so that a key read again and again costs no more.
const MAX_LATER: usize = 8;

/// A process that has not written for this long since it was first seen, or since it last wrote,
/// only reads: what it reads is no longer remembered.
const SILENT_NS: u64 = 120_000_000_000;
const IDLE_NS: u64 = 3_600_000_000_000;

/// How often old messages are expired.
const EXPIRE_NS: u64 = 10_000_000_000;

/// The `poll` span that caused a process to send a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// A message that a process read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// See [`key`].
    pub key: u64,
    /// The id of its `send` span: distinguishes it from others of its key, also from a copy in
    /// another topic. One message may be read twice.
    pub message: SpanId,
    /// When its delivery ended, in nanoseconds since 1970.
    pub end_ns: u64,
    /// `None` where the span is not shown, or not known.
    pub cause: Option<Cause>,
}

/// The hash by which keys are compared; `None` for a record without a key.
#[must_use]
pub fn key(bytes: Option<&[u8]>) -> Option<u64> {
    bytes.filter(|bytes| !bytes.is_empty()).map(xxhash_rust::xxh3::xxh3_64)
}

#[derive(Debug)]
struct Remembered {
    read: Read,
    /// The number of the previous message with the same key.
    before: Option<u64>,
}

/// How many messages to a topic in a row had a candidate for their cause.
#[derive(Clone, Copy, Debug)]
struct Streak {
    hits: u32,
    needed: u32,
    /// A bit for each of the last 32, the newest lowest: whether there was exactly one candidate.
    clear: u32,
}

impl Streak {
    fn is_proof(self) -> bool {
        let last = self.clear & ((1 << FIRST_STREAK) - 1);
        self.hits >= self.needed && last.count_ones() >= LEAST_CLEAR
    }

    fn goes_on(&mut self, is_clear: bool) {
        self.hits = self.hits.saturating_add(1);
        self.clear = self.clear << 1 | u32::from(is_clear);
    }

    fn ends(&mut self) {
        if self.hits >= self.needed {
            self.needed = self.needed.saturating_mul(2).min(LONGEST_STREAK);
        }
        (self.hits, self.clear) = (0, 0);
    }
}

#[derive(Debug)]
struct Reads {
    /// In the order in which they were read; the first one has the number `first`.
    known: VecDeque<Remembered>,
    first: u64,
    /// The number of the newest of each key.
    newest: HashMap<u64, u64>,
    by_topic: Bounded<Arc<str>, Streak>,
    /// When the process was first seen to read, and when it last wrote.
    since_ns: u64,
    wrote_ns: Option<u64>,
    /// Until then its messages may be caused by one that was not captured.
    unsure_ns: u64,
    /// It was evicted from the store; messages are no longer counted, so none is kept.
    is_over: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            known: VecDeque::new(),
            first: 0,
            newest: HashMap::new(),
            by_topic: Bounded::new(Bound::entries(MAX_TOPICS)),
            since_ns: 0,
            wrote_ns: None,
            unsure_ns: 0,
            is_over: false,
        }
    }
}

/// What one process reads and writes.
#[derive(Debug, Default)]
pub struct Chain {
    has_read: AtomicBool,
    /// It is known to only read, so what it reads is not remembered.
    only_reads: AtomicBool,
    reads: Mutex<Reads>,
}

/// A chain, shared by the connections of its process.
pub type Shared = Arc<Chain>;

impl Reads {
    fn get(&self, number: u64) -> Option<&Remembered> {
        self.known.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, read: Read) {
        let number = self.first.saturating_add(self.known.len() as u64);
        let before = self.newest.insert(read.key, number);
        self.known.push_back(Remembered { read, before });
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.known.pop_front() else { return };
        if self.newest.get(&oldest.read.key) == Some(&self.first) {
            self.newest.remove(&oldest.read.key);
        }
        self.first = self.first.saturating_add(1);
    }

    fn forget_before(&mut self, time_ns: u64) {
        while self.known.front().is_some_and(|known| known.read.end_ns < time_ns) {
            self.forget_oldest();
        }
    }

    /// The only message with this key that had been read at this time, if it is in the window;
    /// `Err` where there are several.
    fn one(&self, key: u64, sent_ns: u64) -> Result<Option<&Read>, ()> {
        let since_ns = sent_ns.saturating_sub(WINDOW_NS);
        let mut found: Option<&Read> = None;
        let mut next = self.newest.get(&key).copied();
        let mut looked = 0_usize;
        while let Some(Remembered { read, before }) = next.and_then(|number| self.get(number)) {
            next = *before;
            looked = looked.saturating_add(1);
            if looked > MAX_LATER {
                return Err(());
            }
            if read.end_ns > sent_ns {
                continue;
            }
            match found {
                Some(found) if found.message != read.message => return Err(()),
                // The newest delivery of it.
                Some(_) => {}
                None => found = Some(read),
            }
        }
        Ok(found.filter(|read| read.end_ns >= since_ns))
    }
}

impl Chain {
    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what the process reads need not be added: a process that does not write is not part
    /// of a chain.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.only_reads.load(Ordering::Relaxed)
    }

    /// Whether the process is known to have read anything. Before that none of its messages can
    /// have a known cause.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    /// The process writes, or is about to.
    pub fn writes(&self, now_ns: u64) {
        let mut reads = self.lock();
        reads.wrote_ns = reads.wrote_ns.max(Some(now_ns));
        if self.only_reads.swap(false, Ordering::Relaxed) {
            reads.unsure_ns = now_ns.saturating_add(WINDOW_NS);
        }
    }

    /// The process has read messages before this time that were not captured.
    pub fn missed(&self, now_ns: u64) {
        let mut reads = self.lock();
        reads.unsure_ns = reads.unsure_ns.max(now_ns.saturating_add(WINDOW_NS));
    }

    /// The process sends a message. Returns its cause, if there is evidence for one. A retry (not
    /// `is_first`) does not count as evidence.
    #[must_use]
    pub fn sends(&self, topic: &Arc<str>, key: Option<u64>, sent_ns: u64, is_first: bool) -> Option<Cause> {
        let mut reads = self.lock();
        reads.wrote_ns = reads.wrote_ns.max(Some(sent_ns));
        let is_sure = sent_ns >= reads.unsure_ns;
        // `Some(Some(_))`: one candidate; `Some(None)`: several; `None`: none.
        let found = match key.map(|key| reads.one(key, sent_ns)) {
            Some(Ok(Some(read))) => Some(Some(read.cause)),
            Some(Err(())) => Some(None),
            Some(Ok(None)) | None => None,
        };
        let new = || Streak { hits: 0, needed: FIRST_STREAK, clear: 0 };
        let streak = reads.by_topic.get_or_insert(topic, 0, new, drop_evicted);
        let is_proven = streak.is_proof();
        match found {
            _ if !is_first => {}
            Some(one) => streak.goes_on(one.is_some()),
            None => streak.ends(),
        }
        found.flatten().flatten().filter(|_| is_proven && is_sure)
    }
}

/// A process whose chain is known.
#[derive(Debug)]
struct Followed {
    /// When the process was started, in clock ticks since boot: another with its number was started
    /// later. 0 where that is not known.
    started: u64,
    /// Identifies the process where its start is not known. Not otherwise: what is read of a
    /// process anew has another, and connections opened before must stay in one chain with later
    /// ones.
    resource: Arc<Resource>,
    chain: Shared,
}

/// The chains of all processes of this host. A process with connections is never evicted: its chain
/// is in use.
#[derive(Debug)]
pub struct Chains {
    by_pid: Mutex<Bounded<u32, Followed>>,
    /// Messages of all processes.
    held: AtomicUsize,
    max_held: AtomicUsize,
    /// Messages evicted though they may still have caused something.
    evicted: AtomicU64,
    expired_ns: AtomicU64,
}

impl Default for Chains {
    fn default() -> Self {
        Self {
            by_pid: Mutex::new(Bounded::new(Bound::entries(MAX_PROCESSES))),
            held: AtomicUsize::new(0),
            max_held: AtomicUsize::new(MAX_READS_IN_ALL),
            evicted: AtomicU64::new(0),
            expired_ns: AtomicU64::new(0),
        }
    }
}

impl Chains {
    fn by_pid(&self) -> MutexGuard<'_, Bounded<u32, Followed>> {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain of a process, known or new. `None` where its number is not known (0), or all that
    /// may be followed have connections.
    pub fn of(&self, process: &Process) -> Option<Shared> {
        let Process { pid, start_time: started, ref resource, .. } = *process;
        if pid == 0 {
            return None;
        }
        let is_it = |known: &Followed| {
            (started != 0 && known.started == started) || Arc::ptr_eq(&known.resource, resource)
        };
        let mut by_pid = self.by_pid();
        // The number may be another process's by now.
        match by_pid.get(&pid) {
            Some(known) if is_it(known) => return Some(Arc::clone(&known.chain)),
            Some(_) => self.end(by_pid.remove(&pid)),
            None => {}
        }
        let is_unused = |of: &Followed| Arc::strong_count(&of.chain) == 1;
        if !by_pid.evict_unless(is_unused, |_, of| self.end(Some(of))) {
            return None;
        }
        let chain = Shared::default();
        let followed = Followed { started, resource: Arc::clone(resource), chain: Arc::clone(&chain) };
        by_pid.insert(pid, followed, 0, drop_evicted);
        Some(chain)
    }

    /// A chain was evicted or replaced.
    fn end(&self, followed: Option<Followed>) {
        if let Some(Followed { chain, .. }) = followed {
            let mut reads = chain.lock();
            self.weigh(reads.known.len(), 0);
            *reads = Reads { is_over: true, ..Reads::default() };
            chain.has_read.store(false, Ordering::Relaxed);
        }
    }

    /// The process has read these messages; the list is emptied.
    pub fn read(&self, chain: &Chain, read: &mut Vec<Read>) {
        let mut reads = chain.lock();
        if reads.is_over {
            read.clear();
            return;
        }
        chain.has_read.store(true, Ordering::Relaxed);
        let before = reads.known.len();
        for read in read.drain(..) {
            reads.push(read);
        }
        let newest_ns = reads.known.back().map_or(0, |known| known.read.end_ns);
        if reads.since_ns == 0 {
            reads.since_ns = newest_ns;
        }
        reads.forget_before(newest_ns.saturating_sub(REMEMBERED_NS));
        // Over the limit of all processes, this one keeps no more than it had.
        let added = reads.known.len().saturating_sub(before);
        let is_full =
            self.held.load(Ordering::Relaxed).saturating_add(added) > self.max_held.load(Ordering::Relaxed);
        let most = if is_full { before.min(MAX_READS) } else { MAX_READS };
        let excess = reads.known.len().saturating_sub(most);
        let since_ns = newest_ns.saturating_sub(WINDOW_NS);
        let mut early = 0_u64;
        for _ in 0..excess {
            let is_early = reads.known.front().is_some_and(|known| known.read.end_ns >= since_ns);
            early = early.saturating_add(is_early.into());
            reads.forget_oldest();
        }
        if early > 0 && reads.wrote_ns.is_none() {
            // It reads more than can be remembered and has never written: treated like one that has
            // been silent for long.
            *reads = Reads::default();
            chain.only_reads.store(true, Ordering::Relaxed);
            chain.has_read.store(false, Ordering::Relaxed);
            self.weigh(before, 0);
            return;
        }
        if early > 0 {
            self.evicted.fetch_add(early, Ordering::Relaxed);
            reads.unsure_ns = reads.unsure_ns.max(newest_ns.saturating_add(WINDOW_NS));
        }
        self.weigh(before, reads.known.len());
    }

    fn weigh(&self, before: usize, after: usize) {
        if after >= before {
            self.held.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
    }
}

impl Store for Chains {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("messages that may cause others", self.held.load(Ordering::Relaxed))]
    }

    fn bytes(&self) -> usize {
        let processes = self.by_pid().len().saturating_mul(PROCESS_BYTES);
        processes.saturating_add(self.held.load(Ordering::Relaxed).saturating_mul(READ_BYTES))
    }

    /// Processes as before: their number is the host's.
    fn hold_at_most(&self, part: f64) {
        self.max_held.store(part_of(MAX_READS_IN_ALL, part), Ordering::Relaxed);
    }

    fn take_evicted(&self) -> u64 {
        self.evicted.swap(0, Ordering::Relaxed)
    }

    fn expire(&self, now_ns: u64) {
        let last_ns = self.expired_ns.load(Ordering::Relaxed);
        // The clock may be set back; and no two workers have the same.
        if now_ns.abs_diff(last_ns) < EXPIRE_NS {
            return;
        }
        self.expired_ns.store(now_ns, Ordering::Relaxed);
        for (_, Followed { chain, .. }) in self.by_pid().iter() {
            let mut reads = chain.lock();
            let before = reads.known.len();
            reads.forget_before(now_ns.saturating_sub(REMEMBERED_NS));
            let is_over = match reads.wrote_ns {
                Some(wrote_ns) => now_ns.saturating_sub(wrote_ns) > IDLE_NS,
                None => reads.since_ns > 0 && now_ns.saturating_sub(reads.since_ns) > SILENT_NS,
            };
            if is_over {
                *reads = Reads::default();
                chain.has_read.store(false, Ordering::Relaxed);
                chain.only_reads.store(true, Ordering::Relaxed);
            }
            self.weigh(before, reads.known.len());
        }
    }
}

#[cfg(test)]
mod tests;
