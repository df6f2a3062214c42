//! Chains: a process reads a message and writes another because of it, and no header says so.
//!
//! What is told is what can be shown: of all messages that the process is known to have got ([`REMEMBERED_NS`]) exactly one has the
//! same key, it came within [`WINDOW_NS`] before the process sent this one, and what the process sent to this topic before has had
//! such a message, too. A process that writes of its own accord to the same topic, that reads a key again and again, or that
//! changes keys, is told nothing of; nor is anybody while it is not known what they got.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ktrace_kafka::context::{SpanId, TraceId};

use crate::process::Process;

/// How long a message is looked for that may have caused another.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// How long it is remembered that there was a message with a key. Beyond the window it is not told to have caused anything, but it is
/// why another with its key is no proof: the process may be late.
const REMEMBERED_NS: u64 = 600_000_000_000;

/// Before a link to a topic is told, so many sends to it had a message with their key, one or several; twice as many after each time
/// that one had none.
const FIRST_STREAK: u32 = 16;
const LONGEST_STREAK: u32 = 4096;

/// Of the last [`FIRST_STREAK`] so many had just one: where keys are few, some message has any of them.
const LEAST_CLEAR: u32 = 12;

/// Messages of one process that are remembered, and of all processes; past it the oldest are forgotten.
const MAX_READS: usize = 64 << 10;
const MAX_READS_IN_ALL: usize = 256 << 10;

/// Processes that are followed, and topics of each that it writes to.
const MAX_PROCESSES: usize = 8192;
const MAX_TOPICS: usize = 1024;

/// Messages of one key that came while one was being sent; with more it is not told what caused it.
const MAX_LATER: usize = 8;

/// What a process gets is not remembered any more when it has not written for so long since it was first seen, or since it last wrote.
const SILENT_NS: u64 = 120_000_000_000;
const IDLE_NS: u64 = 3_600_000_000_000;

/// How often what is too old is looked for.
const EXPIRE_NS: u64 = 10_000_000_000;

/// The span of a delivery that made its process send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// A message that a process got.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// See [`key`].
    pub key: u64,
    /// What tells it from others of its key, also from its twin in another topic: the id of its `send` span. One message may come
    /// twice.
    pub message: SpanId,
    /// When it was there, in nanoseconds since 1970.
    pub end_ns: u64,
    /// `None` where the span is not shown, or not known.
    pub cause: Option<Cause>,
}

/// A record's key as it is compared; `None` where there is none.
#[must_use]
pub fn key(bytes: Option<&[u8]>) -> Option<u64> {
    bytes.filter(|bytes| !bytes.is_empty()).map(xxhash_rust::xxh3::xxh3_64)
}

#[derive(Debug)]
struct Known {
    read: Read,
    /// The number of the one of the same key before it.
    before: Option<u64>,
}

/// How often what was sent to a topic had a message with its key.
#[derive(Clone, Copy, Debug)]
struct Streak {
    hits: u32,
    needed: u32,
    /// A bit for each of the last of them, the newest lowest: whether it was the only one.
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

#[derive(Debug, Default)]
struct Reads {
    /// In the order in which they were told; the first has the number `first`.
    known: VecDeque<Known>,
    first: u64,
    /// The number of the newest of each key.
    newest: HashMap<u64, u64>,
    by_topic: HashMap<Arc<str>, Streak>,
    /// When something was first told of the process, and when it last wrote.
    since_ns: u64,
    wrote_ns: Option<u64>,
    /// Until then it may send what comes of something that nobody has seen.
    unsure_ns: u64,
}

/// What one process reads and writes.
#[derive(Debug, Default)]
pub struct Chain {
    has_read: AtomicBool,
    /// What it gets is not remembered, as it does not write.
    only_reads: AtomicBool,
    reads: Mutex<Reads>,
}

/// See [`Chain`].
pub type Shared = Arc<Chain>;

impl Reads {
    fn get(&self, number: u64) -> Option<&Known> {
        self.known.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, read: Read) {
        let number = self.first.saturating_add(self.known.len() as u64);
        let before = self.newest.insert(read.key, number);
        self.known.push_back(Known { read, before });
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

    /// The one message with this key that had come when something was sent; `Err` where there are several.
    fn one(&self, key: u64, sent_ns: u64) -> Result<Option<&Read>, ()> {
        let since_ns = sent_ns.saturating_sub(WINDOW_NS);
        let mut found: Option<&Read> = None;
        let mut next = self.newest.get(&key).copied();
        let mut looked = 0_usize;
        while let Some(Known { read, before }) = next.and_then(|number| self.get(number)) {
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

    /// Whether what it gets need not be told: who does not write is no part of a chain.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.only_reads.load(Ordering::Relaxed)
    }

    /// Whether it is known to have got anything: before that nothing is known that may have made it send something.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    /// It writes, or is about to.
    pub fn writes(&self, now_ns: u64) {
        let mut reads = self.lock();
        reads.wrote_ns = reads.wrote_ns.max(Some(now_ns));
        if self.only_reads.swap(false, Ordering::Relaxed) {
            reads.unsure_ns = now_ns.saturating_add(WINDOW_NS);
        }
    }

    /// It has got something before this that nobody has seen.
    pub fn missed(&self, now_ns: u64) {
        let mut reads = self.lock();
        reads.unsure_ns = reads.unsure_ns.max(now_ns.saturating_add(WINDOW_NS));
    }

    /// It sends a message: what made it do so, if that can be shown.
    #[must_use]
    pub fn sends(&self, topic: &Arc<str>, key: Option<u64>, sent_ns: u64) -> Option<Cause> {
        let mut reads = self.lock();
        reads.wrote_ns = reads.wrote_ns.max(Some(sent_ns));
        let is_sure = sent_ns >= reads.unsure_ns;
        // Of one, several or none.
        let found = match key.map(|key| reads.one(key, sent_ns)) {
            Some(Ok(Some(read))) => Some(Some(read.cause)),
            Some(Err(())) => Some(None),
            Some(Ok(None)) | None => None,
        };
        if reads.by_topic.len() >= MAX_TOPICS && !reads.by_topic.contains_key(topic) {
            reads.by_topic.clear();
        }
        if !reads.by_topic.contains_key(topic) {
            reads.by_topic.insert(Arc::clone(topic), Streak { hits: 0, needed: FIRST_STREAK, clear: 0 });
        }
        let streak = reads.by_topic.get_mut(topic)?;
        let is_proven = streak.is_proof();
        match found {
            Some(one) => streak.goes_on(one.is_some()),
            None => streak.ends(),
        }
        found.flatten().flatten().filter(|_| is_proven && is_sure)
    }
}

/// The chains of all processes of this host.
#[derive(Debug, Default)]
pub struct Chains {
    by_pid: Mutex<HashMap<u32, (Arc<Process>, Shared)>>,
    held: AtomicUsize,
    expired_ns: AtomicU64,
}

impl Chains {
    /// That of a process, if it is known which one it is and there are not too many.
    pub fn of(&self, process: &Arc<Process>) -> Option<Shared> {
        if process.pid == 0 {
            return None;
        }
        let mut by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        // The number may be another process's by now.
        if let Some((known, chain)) = by_pid.get(&process.pid)
            && Arc::ptr_eq(known, process)
        {
            return Some(Arc::clone(chain));
        }
        if by_pid.len() >= MAX_PROCESSES {
            // Those without connections.
            by_pid.retain(|_, (_, chain)| {
                let is_used = Arc::strong_count(chain) > 1;
                if !is_used {
                    self.weigh(chain.lock().known.len(), 0);
                }
                is_used
            });
            if by_pid.len() >= MAX_PROCESSES {
                return None;
            }
        }
        let chain = Shared::default();
        if let Some((_, before)) = by_pid.insert(process.pid, (Arc::clone(process), Arc::clone(&chain))) {
            self.weigh(before.lock().known.len(), 0);
        }
        Some(chain)
    }

    /// A process got these. Gives how many were forgotten though they may still cause something.
    pub fn read(&self, chain: &Chain, read: &mut Vec<Read>) -> u64 {
        let mut reads = chain.lock();
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
        // Where all have too many, nobody has more than it had.
        let added = reads.known.len().saturating_sub(before);
        let is_full = self.held.load(Ordering::Relaxed).saturating_add(added) > MAX_READS_IN_ALL;
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
            // It gets more than can be remembered, and may never write: as if it had been silent for long.
            *reads = Reads::default();
            chain.only_reads.store(true, Ordering::Relaxed);
            chain.has_read.store(false, Ordering::Relaxed);
            self.weigh(before, 0);
            return 0;
        }
        if early > 0 {
            reads.unsure_ns = reads.unsure_ns.max(newest_ns.saturating_add(WINDOW_NS));
        }
        self.weigh(before, reads.known.len());
        early
    }

    /// How many messages are remembered.
    #[must_use]
    pub fn size(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Forgets what is too old to have caused anything.
    pub fn expire(&self, now_ns: u64) {
        let last_ns = self.expired_ns.load(Ordering::Relaxed);
        if now_ns.saturating_sub(last_ns) < EXPIRE_NS {
            return;
        }
        self.expired_ns.store(now_ns, Ordering::Relaxed);
        for (_, chain) in self.by_pid.lock().unwrap_or_else(PoisonError::into_inner).values() {
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

    fn weigh(&self, before: usize, after: usize) {
        if after >= before {
            self.held.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Resource;

    const SECOND: u64 = 1_000_000_000;

    fn process(pid: u32) -> Arc<Process> {
        Arc::new(Process { pid, resource: Arc::new(Resource::new(vec![])) })
    }

    fn read(key: u64, message: u32, end_ns: u64) -> Read {
        let trace_id = TraceId::new((u128::from(message) + 1).to_be_bytes()).unwrap();
        let span_id = SpanId::new((u64::from(message) + 1).to_be_bytes()).unwrap();
        Read { key, message: span_id, end_ns, cause: Some(Cause { trace_id, span_id }) }
    }

    struct Service {
        chains: Chains,
        chain: Shared,
        topic: Arc<str>,
    }

    impl Service {
        fn new() -> Self {
            let chains = Chains::default();
            let chain = chains.of(&process(7)).unwrap();
            Self { chains, chain, topic: "out".into() }
        }

        /// One that has sent often enough.
        fn proven() -> Self {
            let service = Self::new();
            for at in 0..FIRST_STREAK {
                service.reads(&[read(at.into(), at, 1)]);
                assert_eq!(service.sends(at.into(), 2), None);
            }
            service
        }

        fn reads(&self, reads: &[Read]) -> u64 {
            self.chains.read(&self.chain, &mut reads.to_vec())
        }

        fn sends(&self, key: u64, sent_ns: u64) -> Option<Cause> {
            self.chain.sends(&self.topic, Some(key), sent_ns)
        }

        /// It gets so many messages with keys of their own, and sends one of each; how many have a cause.
        fn causes(&self, from: u32, count: u32) -> u32 {
            let has_cause = |at: &u32| {
                self.reads(&[read((1000 + at).into(), *at, 3)]);
                self.sends((1000 + at).into(), 4).is_some()
            };
            (from..from + count).filter(has_cause).count() as u32
        }
    }

    #[test]
    fn the_one_message_of_a_key_is_the_cause_once_that_is_the_rule() {
        let service = Service::proven();
        let one = read(100, 100, 3);
        service.reads(&[one]);
        assert_eq!(service.sends(100, 2), None, "it had not come");
        let service = Service::proven();
        service.reads(&[one]);
        assert_eq!(service.sends(100, 3), one.cause);
        assert_eq!(service.sends(100, 4), one.cause, "one makes two");
        assert_eq!(service.sends(100, 3 + WINDOW_NS), one.cause);
        assert_eq!(service.chain.sends(&"other".into(), Some(100), 4), None, "to each topic its own rule");
        assert_eq!(service.sends(100, 4 + WINDOW_NS), None, "too long ago");
    }

    #[test]
    fn two_of_a_key_are_no_proof_unless_they_are_the_same() {
        let service = Service::proven();
        let (one, two) = (read(100, 100, 3), read(100, 101, 5));
        service.reads(&[one, two]);
        assert_eq!(service.sends(100, 6), None);
        assert_eq!(service.sends(100, 4), one.cause, "the second had not come");
        assert_eq!(service.sends(100, 4 + WINDOW_NS), None, "it may be late with the first");
        let service = Service::proven();
        let again = Read { end_ns: 9, cause: read(0, 9, 0).cause, ..one };
        service.reads(&[one, again]);
        assert_eq!(service.sends(100, 10), again.cause, "the newest delivery");
    }

    #[test]
    fn what_is_sent_without_a_cause_makes_more_proof_needed() {
        let service = Service::proven();
        assert_eq!(service.causes(0, 3), 3);
        assert_eq!(service.sends(5555, 4), None);
        assert_eq!(service.causes(100, 100), 100 - 2 * FIRST_STREAK);
        assert_eq!(service.chain.sends(&service.topic, None, 4), None, "nor without a key");
        assert_eq!(service.causes(200, 100), 100 - 4 * FIRST_STREAK);
        assert_eq!(service.sends(5555, 4), None);
        assert_eq!(service.sends(5555, 4), None, "two in a row are one");
        assert_eq!(service.causes(300, 200), 200 - 8 * FIRST_STREAK);
    }

    /// A service that gives its messages keys of other messages: with few keys around, each is some message's.
    #[test]
    fn where_keys_are_few_they_prove_nothing() {
        let service = Service::proven();
        let twice = |key: u32| service.reads(&[read(key.into(), key, 3), read(key.into(), 500 + key, 3)]);
        for key in 100..100 + FIRST_STREAK - LEAST_CLEAR {
            twice(key);
            assert_eq!(service.sends(key.into(), 4), None);
            assert_eq!(service.causes(key, 1), 1, "some come twice");
        }
        twice(200);
        assert_eq!((service.sends(200, 4), service.causes(200, 1)), (None, 0), "too many do");
    }

    #[test]
    fn a_cause_that_is_not_shown_counts_but_is_not_named() {
        let service = Service::proven();
        service.reads(&[Read { cause: None, ..read(100, 1, 3) }]);
        assert_eq!(service.sends(100, 4), None);
        let shown = read(101, 2, 3);
        service.reads(&[shown]);
        assert_eq!(service.sends(101, 4), shown.cause);
    }

    #[test]
    fn nothing_is_told_while_something_that_was_got_is_not_known() {
        let service = Service::proven();
        let one = read(100, 100, 3);
        service.reads(&[one]);
        service.chain.missed(5);
        assert_eq!(service.sends(100, 6), None);
        let two = read(101, 101, 5 + WINDOW_NS);
        service.reads(&[two]);
        assert_eq!(service.sends(101, 5 + WINDOW_NS), two.cause);
    }

    #[test]
    fn who_does_not_write_is_not_followed_until_it_does() {
        let service = Service::new();
        service.reads(&[read(1, 1, SECOND)]);
        service.chains.expire(SILENT_NS);
        assert!(!service.chain.only_reads());
        service.chains.expire(SILENT_NS + EXPIRE_NS);
        assert!(service.chain.only_reads());
        assert_eq!(service.chains.size(), 0);
        service.chain.writes(SILENT_NS + EXPIRE_NS);
        assert!(!service.chain.only_reads());
        assert_eq!(service.causes(0, 100), 0, "what it got before is not known");
        service.chains.expire(2 * SILENT_NS);
        service.chains.expire(IDLE_NS);
        assert!(!service.chain.only_reads(), "it has written");
        service.chains.expire(SILENT_NS + 3 * EXPIRE_NS + IDLE_NS);
        assert!(service.chain.only_reads());
    }

    #[test]
    fn who_gets_more_than_can_be_remembered_and_does_not_write_is_not_followed() {
        let service = Service::new();
        let many: Vec<Read> = (0..MAX_READS as u32 + 1).map(|at| read(u64::from(at), at, 3)).collect();
        assert_eq!(service.reads(&many), 0, "no loss: nothing may ever come of it");
        assert!(service.chain.only_reads() && !service.chain.has_read());
        assert_eq!(service.chains.size(), 0);
        service.chain.writes(5);
        assert!(!service.chain.only_reads());
        assert_eq!(service.sends(1, 6), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_told() {
        let service = Service::proven();
        let many: Vec<Read> =
            (0..MAX_READS as u32 + 10).map(|at| read(1000 + u64::from(at), at, 3)).collect();
        assert_eq!(service.reads(&many), 10 + u64::from(FIRST_STREAK));
        assert_eq!(service.sends(1000, 4), None, "forgotten");
        assert_eq!(service.sends(1500, 4), None, "so who knows what else is");
        let others: Vec<_> = (10..20).filter_map(|pid| service.chains.of(&process(pid))).collect();
        for other in &others {
            other.writes(1);
            service.chains.read(other, &mut many.clone());
        }
        assert!(service.chains.size() <= MAX_READS_IN_ALL);
        let same = vec![read(1, 1, 4); MAX_READS];
        service.chains.read(&service.chain, &mut same.clone());
        assert_eq!(service.sends(1, 5), None, "not looked through");
        service.chains.expire(4 + REMEMBERED_NS + SECOND);
        assert_eq!(service.chains.size(), 0);
        assert!(service.chain.lock().newest.is_empty());
    }

    #[test]
    fn a_number_may_become_another_processes() {
        let chains = Chains::default();
        let (one, two) = (process(1), process(1));
        let chain = chains.of(&one).unwrap();
        assert!(Arc::ptr_eq(&chain, &chains.of(&one).unwrap()));
        let second = chains.of(&two).unwrap();
        assert!(!Arc::ptr_eq(&chain, &second));
        assert!(chains.of(&process(0)).is_none());
        let kept: Vec<_> =
            (2..MAX_PROCESSES as u32 + 1).map(|pid| chains.of(&process(pid)).unwrap()).collect();
        assert!(chains.of(&process(u32::MAX)).is_none(), "all are in use");
        drop((kept, second));
        assert!(chains.of(&process(u32::MAX)).is_some());
    }
}
