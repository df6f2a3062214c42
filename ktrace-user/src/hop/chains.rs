//! Chains: a process reads a message and writes another because of it, and no header says so.
//!
//! What is told is what can be shown: the process got exactly one message with the same key within [`WINDOW_NS`] before it sent
//! this one, and what it sent to this topic before has always had such a message. A process that writes of its own accord
//! to the same topic, that reads a key again and again, or that changes keys, is told nothing of.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ktrace_kafka::context::{SpanId, TraceId};

use crate::process::Process;

/// How long a message is looked for that may have caused another.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// Before a link to a topic is told, so many sends to it had a message with their key; twice as many after each time that one had none.
const FIRST_STREAK: u32 = 4;
const LONGEST_STREAK: u32 = 4096;

/// Messages of one process that are remembered, and of all processes; past it the oldest are forgotten.
const MAX_READS: usize = 32 << 10;
const MAX_READS_IN_ALL: usize = 128 << 10;

/// Processes that are followed, and topics of each that it writes to.
const MAX_PROCESSES: usize = 8192;
const MAX_TOPICS: usize = 1024;

/// Messages of one key that came while one was being sent; with more it is not told what caused it.
const MAX_LATER: usize = 8;

/// A process that wrote nothing for so long is not followed until it writes again.
const IDLE_NS: u64 = 600_000_000_000;

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
    /// What tells it from others of its key: one message may come twice.
    pub message: TraceId,
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
}

#[derive(Debug, Default)]
struct Reads {
    /// In the order in which they were told; the first has the number `first`.
    known: VecDeque<Known>,
    first: u64,
    /// The number of the newest of each key.
    newest: HashMap<u64, u64>,
    by_topic: HashMap<Arc<str>, Streak>,
    wrote_ns: u64,
}

/// What one process reads and writes.
#[derive(Debug, Default)]
pub struct Chain {
    writes: AtomicBool,
    has_read: AtomicBool,
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
            if read.end_ns > sent_ns || read.end_ns < since_ns {
                continue;
            }
            match found {
                Some(found) if found.message != read.message => return Err(()),
                // The newest delivery of it.
                Some(_) => {}
                None => found = Some(read),
            }
        }
        Ok(found)
    }
}

impl Chain {
    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what it reads is remembered: only what also writes is a part of a chain.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes.load(Ordering::Relaxed)
    }

    /// Whether it has got anything since it writes: before that nothing can have made it send something.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    /// It writes, or is about to.
    pub fn begins_to_write(&self, now_ns: u64) {
        if !self.writes() {
            self.lock().wrote_ns = now_ns;
            self.writes.store(true, Ordering::Relaxed);
        }
    }

    /// It sends a message: what made it do so, if that can be shown.
    #[must_use]
    pub fn sends(&self, topic: &Arc<str>, key: Option<u64>, sent_ns: u64) -> Option<Cause> {
        let mut reads = self.lock();
        reads.wrote_ns = reads.wrote_ns.max(sent_ns);
        let (is_hit, cause) = match key.map(|key| reads.one(key, sent_ns)) {
            Some(Ok(Some(read))) => (true, read.cause),
            Some(Err(())) => (true, None),
            Some(Ok(None)) | None => (false, None),
        };
        if reads.by_topic.len() >= MAX_TOPICS && !reads.by_topic.contains_key(topic) {
            reads.by_topic.clear();
        }
        if !reads.by_topic.contains_key(topic) {
            reads.by_topic.insert(Arc::clone(topic), Streak { hits: 0, needed: FIRST_STREAK });
        }
        let streak = reads.by_topic.get_mut(topic)?;
        let is_proven = streak.hits >= streak.needed;
        if is_hit {
            streak.hits = streak.hits.saturating_add(1);
        } else {
            if is_proven {
                streak.needed = streak.needed.saturating_mul(2).min(LONGEST_STREAK);
            }
            streak.hits = 0;
        }
        cause.filter(|_| is_proven)
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

    /// A process got these. Gives how many were forgotten before their time.
    pub fn read(&self, chain: &Chain, read: &mut Vec<Read>) -> u64 {
        let mut reads = chain.lock();
        chain.has_read.store(true, Ordering::Relaxed);
        let before = reads.known.len();
        for read in read.drain(..) {
            reads.push(read);
        }
        let newest_ns = reads.known.back().map_or(0, |known| known.read.end_ns);
        reads.forget_before(newest_ns.saturating_sub(WINDOW_NS));
        // Where all have too many, nobody has more than it had.
        let added = reads.known.len().saturating_sub(before);
        let is_full = self.held.load(Ordering::Relaxed).saturating_add(added) > MAX_READS_IN_ALL;
        let most = if is_full { before.min(MAX_READS) } else { MAX_READS };
        let excess = reads.known.len().saturating_sub(most);
        for _ in 0..excess {
            reads.forget_oldest();
        }
        self.weigh(before, reads.known.len());
        excess as u64
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
            reads.forget_before(now_ns.saturating_sub(WINDOW_NS));
            if now_ns.saturating_sub(reads.wrote_ns) > IDLE_NS {
                *reads = Reads::default();
                chain.writes.store(false, Ordering::Relaxed);
                chain.has_read.store(false, Ordering::Relaxed);
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
        Read { key, message: trace_id, end_ns, cause: Some(Cause { trace_id, span_id }) }
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
            chain.begins_to_write(0);
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
        assert_eq!(service.sends(100, 4 + WINDOW_NS), two.cause, "the first is too long ago");
        let service = Service::proven();
        let again = Read { end_ns: 9, cause: read(0, 9, 0).cause, ..one };
        service.reads(&[one, again]);
        assert_eq!(service.sends(100, 10), again.cause, "the newest delivery");
    }

    #[test]
    fn what_is_sent_without_a_cause_makes_more_proof_needed() {
        let service = Service::proven();
        let causes = |count: u32, from: u32| {
            (from..from + count)
                .filter(|at| {
                    service.reads(&[read((1000 + at).into(), *at, 3)]);
                    service.sends((1000 + at).into(), 4).is_some()
                })
                .count()
        };
        assert_eq!(causes(3, 0), 3);
        assert_eq!(service.sends(5555, 4), None);
        assert_eq!(causes(10, 10), 10 - 2 * FIRST_STREAK as usize);
        assert_eq!(service.chain.sends(&service.topic, None, 4), None, "nor without a key");
        assert_eq!(causes(20, 20), 20 - 4 * FIRST_STREAK as usize);
        assert_eq!(service.sends(5555, 4), None);
        assert_eq!(service.sends(5555, 4), None, "two in a row are one");
        assert_eq!(causes(40, 40), 40 - 8 * FIRST_STREAK as usize);
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
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_told() {
        let service = Service::proven();
        let many: Vec<Read> =
            (0..MAX_READS as u32 + 10).map(|at| read(1000 + u64::from(at), at, 3)).collect();
        assert_eq!(service.reads(&many), 10 + u64::from(FIRST_STREAK));
        assert_eq!(service.sends(1000, 4), None, "forgotten");
        let others: Vec<_> = (10..20).filter_map(|pid| service.chains.of(&process(pid))).collect();
        for other in &others {
            service.chains.read(other, &mut many.clone());
        }
        assert!(service.chains.held.load(Ordering::Relaxed) <= MAX_READS_IN_ALL);
        let same = vec![read(1, 1, 4); MAX_READS];
        service.chains.read(&service.chain, &mut same.clone());
        assert_eq!(service.sends(1, 5), None, "not looked through");
        service.chains.expire(4 + WINDOW_NS + SECOND);
        assert_eq!(service.chains.held.load(Ordering::Relaxed), 0);
        assert!(service.chain.lock().newest.is_empty());
        service.chains.expire(4 + WINDOW_NS + IDLE_NS);
        assert!(!service.chain.writes());
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
