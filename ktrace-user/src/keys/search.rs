//! The thread that searches memory for keys.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktrace_tls::Sender;
use ktrace_tls::sample::{AesKey, FoundKey, Samples};
use ktrace_tls::session::Closed;

use super::asked::{Answer, Ask, Asked, Due, SEARCHES};
use super::audit::{Audit, Search};
use super::budget::{Budget, thread_time};
use super::memory::{self, Buffer, Piece, Target, Unreadable};
use super::schedule;
use super::trial::{self, Effort, Wanted};
use crate::seen::ConnectionId;
use crate::{privilege, purge, sched};

/// How long keys that open nothing are kept after a search where a direction has had no record yet:
/// a client that sends one message closes 150 ms later, and its key is gone with it.
const KEPT: Duration = Duration::from_millis(250);
/// Keys of one process; a broker has two for each connection. And processes of which such are kept.
const MOST_KEYS: usize = 65_536;
const MOST_KEPT: usize = 64;
/// Numbers that are tried of records of TLS 1.2 that do not say theirs, where the secret part of
/// the nonce does not lie beside the key: some 20 µs for each key. (Go has it elsewhere, and
/// numbers its own records so that they say it.)
const TRIES: u64 = 1 << 12;
/// How often that is done in a search at most: a second's worth. A process with hundreds of such
/// connections is not read in full.
const TRIALS: usize = 16_384;
/// Numbers that are tried when a connection is searched for the last time: for all keys and records
/// together, a second or two.
const LAST_TRIES: u64 = 1 << 28;
/// Memory on either side of a key that may hold the secret part of the nonce.
const BESIDE: usize = 1024;
/// It goes first, for the little time that its budget leaves it: short-lived clients close within some
/// milliseconds. A search of much memory does not pause either: of a JVM of 4 GiB on two cores, with 500
/// connections, the p99 of sends was 1.2 times the usual while it took 1.7 s of CPU; at half a core 1.17
/// times, at 15 % of one 1.10 times, but then the keys come two and seven times as late.
const FORWARD: i32 = 10;

/// How keys are searched for.
#[derive(Clone, Copy)]
pub struct Options {
    /// Who asks: as many have answers.
    pub workers: usize,
    /// What share of a core searches may take.
    pub cpu: f64,
    /// Says a line to the user: which process was searched.
    pub say: fn(&str),
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub searches: u64,
    pub bytes: u64,
    /// CPU time.
    pub cpu_ns: u64,
    /// Keys that were proved.
    pub keys: u64,
    /// Sum over them, from the ask to the answer.
    pub waited_ns: u64,
}

/// Searches for keys, asked by workers. The thread ends when this is dropped.
pub struct Keys {
    shared: Arc<Shared>,
    unknown: Closed,
    thread: Option<JoinHandle<()>>,
}

/// Nothing of what it holds.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    answers: Vec<Answers>,
    stats: Counted,
}

#[derive(Default)]
struct State {
    asked: Asked,
    stop: bool,
}

#[derive(Default)]
struct Answers {
    any: AtomicBool,
    list: Mutex<Vec<Answer>>,
}

#[derive(Default)]
struct Counted {
    searches: AtomicU64,
    bytes: AtomicU64,
    cpu_ns: AtomicU64,
    keys: AtomicU64,
    waited_ns: AtomicU64,
}

impl Keys {
    /// Starts the thread, before privileges are given up.
    ///
    /// # Errors
    /// Where there is no memory, or no thread to be had.
    pub fn start(options: Options) -> io::Result<Self> {
        // In a container's pid namespace no process is found by the number that the kernel's programs see.
        let is_seen = privilege::is_in_host_pid_namespace().unwrap_or(true);
        let unknown = if is_seen { Closed::Ended } else { Closed::Denied };
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            answers: (0..options.workers).map(|_| Answers::default()).collect(),
            stats: Counted::default(),
        });
        let searcher = Searcher {
            shared: Arc::clone(&shared),
            buffer: Buffer::new()?,
            budget: Budget::new(options.cpu, Instant::now()),
            kept: HashMap::new(),
            audit: Audit::default(),
            say: options.say,
            unknown,
        };
        let thread = thread::Builder::new().name("ktrace-keys".to_owned()).spawn(move || {
            sched::be_prompt(FORWARD);
            privilege::shed();
            searcher.run();
        })?;
        Ok(Self { shared, unknown, thread: Some(thread) })
    }

    /// Asks for the keys of a connection; anew if it was asked for before.
    pub fn ask(&self, ask: Ask) {
        let (worker, connection) = (ask.worker, ask.connection);
        let answer = if ask.process.pid == std::process::id() {
            // Its own memory holds what it has read of others'.
            Some((worker, Answer::Nothing { connection, why: Closed::NoKey }))
        } else {
            match self.shared.state().asked.ask(ask, Instant::now()) {
                Some((worker, Answer::Nothing { connection, why: Closed::Ended })) => {
                    Some((worker, Answer::Nothing { connection, why: self.unknown }))
                }
                answer => answer,
            }
        };
        self.shared.answer(answer);
        self.shared.changed.notify_one();
    }

    /// Why a connection is not read whose process is not known.
    #[must_use]
    pub fn unknown(&self) -> Closed {
        self.unknown
    }

    /// Newer records of a connection that was asked for. Those of a direction whose key was found are passed
    /// over: [`Keys::ask`] has it searched again. Returns false where the connection is not asked for any
    /// more, as all was found, or nothing, or no record of the other direction came for ten seconds.
    pub fn more(&self, connection: ConnectionId, samples: Samples) -> bool {
        let is_asked = self.shared.state().asked.more(connection, samples, Instant::now());
        self.shared.changed.notify_one();
        is_asked
    }

    /// Nothing is wanted of the connection any more: it has ended, or has all the keys that it
    /// needs. An answer may be under way.
    pub fn withdraw(&self, connection: ConnectionId) {
        self.shared.state().asked.remove(connection);
    }

    /// Whether there are answers for a worker.
    pub fn has_answers(&self, worker: usize) -> bool {
        self.shared.answers.get(worker).is_some_and(|answers| answers.any.load(Ordering::Acquire))
    }

    /// Takes the answers for a worker.
    pub fn answers(&self, worker: usize, answers: &mut Vec<Answer>) {
        if let Some(of_worker) = self.shared.answers.get(worker) {
            of_worker.any.store(false, Ordering::Release);
            answers.append(&mut of_worker.list.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub fn stats(&self) -> Stats {
        let Counted { searches, bytes, cpu_ns, keys, waited_ns } = &self.shared.stats;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            searches: value(searches),
            bytes: value(bytes),
            cpu_ns: value(cpu_ns),
            keys: value(keys),
            waited_ns: value(waited_ns),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that searches for keys has failed");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answers: impl IntoIterator<Item = (usize, Answer)>) {
        for (worker, answer) in answers {
            if let Some(of_worker) = self.answers.get(worker) {
                of_worker.list.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                of_worker.any.store(true, Ordering::Release);
            }
        }
    }

    /// Hands keys to those who still want them. Returns whose they were.
    fn found(&self, found: impl Iterator<Item = (ConnectionId, FoundKey)>) -> Vec<(ConnectionId, Sender)> {
        let mut handed = Vec::new();
        for (connection, key) in found {
            let asked = self.state().asked.found(connection, key.sender, Instant::now());
            let Some((worker, waited)) = asked else { continue };
            handed.push((connection, key.sender));
            self.stats.keys.fetch_add(1, Ordering::Relaxed);
            self.stats.waited_ns.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
            self.answer([(worker, Answer::Key { connection, key })]);
        }
        handed
    }
}

/// Keys of a process that opened nothing, each on its own, so that none is copied when there are
/// more; overwritten when they are dropped.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "a vector that grows would leave copies behind")]
struct Candidates(Vec<Box<AesKey>>);

struct Searcher {
    shared: Arc<Shared>,
    buffer: Buffer,
    budget: Budget,
    kept: HashMap<Target, (Instant, Candidates)>,
    audit: Audit,
    say: fn(&str),
    /// Why a process is not there.
    unknown: Closed,
}

impl Searcher {
    fn run(mut self) {
        while let Some(due) = self.next() {
            let begun = thread_time();
            self.turn(&due, begun);
            let used = thread_time().saturating_sub(begun);
            self.budget.take(used, Instant::now());
            self.shared.stats.cpu_ns.fetch_add(used.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Waits for what is to be searched; `None` at the end. What may not be searched yet is tried
    /// with the keys that are kept.
    fn next(&mut self) -> Option<Due> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        // What was asked for after the last look at keys that are kept.
        let mut looked = None;
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            self.kept.retain(|_, (until, _)| *until > now);
            state.asked.expire(now);
            let wait = self.budget.wait(now);
            let due = state.asked.due(now);
            let is_kept = |due: &Due| self.kept.contains_key(&due.target);
            if let Some(due) = due {
                if wait.is_zero() {
                    return Some(due);
                }
                if is_kept(&due) && looked != Some(state.asked.number) {
                    looked = Some(state.asked.number);
                    drop(state);
                    self.try_kept(due.target);
                    state = shared.state();
                    continue;
                }
            }
            let until = state.asked.next().map(|due| due.max(now + wait));
            let until = until.into_iter().chain(self.kept.values().map(|(until, _)| *until)).min();
            state = match until {
                Some(until) => {
                    let wait = shared.changed.wait_timeout(state, until.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// One search of a process, which is not made where keys that are kept do.
    fn turn(&mut self, due: &Due, begun: Duration) {
        let target = due.target;
        let mut keys = self.try_kept(target);
        let wanted = self.shared.state().asked.wanted(target);
        if wanted.is_empty() {
            return;
        }
        tracing::debug!(pid = target.pid, "searches");
        let mut candidates = Candidates::default();
        let mut search = Pass {
            shared: &self.shared,
            target,
            wanted,
            number: 0,
            candidates: &mut candidates,
            missed: false,
            allowed: Cell::new(TRIALS),
            keys: 0,
        };
        let searched = search.wanted.clone();
        let read = memory::read(target, &mut self.buffer, |piece| search.look(&piece));
        // Records that came while memory was read.
        search.again();
        if due.searches + 1 == SEARCHES && read.is_ok() {
            search.count();
        }
        keys += search.keys;

        tracing::debug!(
            pid = target.pid,
            candidates = candidates.0.len(),
            wanted = searched.len(),
            keys,
            "searched"
        );
        let now = Instant::now();
        let mut state = self.shared.state();
        let (bytes, failed, nothing) = match read {
            Ok(bytes) => (bytes, None, state.asked.searched(target, &searched, now)),
            Err(error) => {
                let why = match error {
                    Unreadable::Denied => Closed::Denied,
                    Unreadable::Ended => self.unknown,
                };
                (0, Some(error), state.asked.cannot(target, why))
            }
        };
        let keeps = state.asked.lacks_record(target);
        drop(state);
        self.shared.answer(nothing);
        if keeps && !candidates.0.is_empty() && self.kept.len() < MOST_KEPT {
            self.kept.insert(target, (now + KEPT, candidates));
        } else {
            drop(candidates);
        }
        self.buffer.overwrite();
        purge::overwrite_stack();

        self.shared.stats.searches.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        let cpu = thread_time().saturating_sub(begun);
        let search = Search { connections: due.connections, bytes, cpu, keys, failed };
        let service = due.process.resource.service_name();
        if let Some(line) = self.audit.searched(target, service, due.ends, search, now) {
            (self.say)(&line);
        }
    }

    /// Tries the keys that are kept of a process. Returns how many were proved.
    fn try_kept(&mut self, target: Target) -> usize {
        let Some((_, candidates)) = self.kept.get(&target) else { return 0 };
        let wanted = self.shared.state().asked.wanted(target);
        let keys = candidates.open(&self.shared, &wanted, TRIES);
        purge::overwrite_stack();
        keys
    }
}

impl Candidates {
    fn open(&self, shared: &Shared, wanted: &[Wanted], tries: u64) -> usize {
        if wanted.is_empty() {
            return 0;
        }
        let allowed = Cell::new(TRIALS);
        let effort = Effort { tries, beside: &[], allowed: &allowed };
        self.0.iter().map(|key| shared.found(trial::opens(key, wanted, effort)).len()).sum()
    }
}

/// One way through a process's memory.
struct Pass<'a> {
    shared: &'a Shared,
    target: Target,
    /// As of `number`, less what was found since.
    wanted: Vec<Wanted>,
    number: u64,
    candidates: &'a mut Candidates,
    /// More was wanted after some of the candidates had been tried.
    missed: bool,
    allowed: Cell<usize>,
    keys: usize,
}

impl Pass<'_> {
    fn look(&mut self, piece: &Piece<'_>) -> ControlFlow<()> {
        schedule::find(piece.bytes, |at, key| {
            let key = Box::new(key);
            self.refresh();
            let beside = piece.bytes.get(at.saturating_sub(BESIDE)..).unwrap_or_default();
            let beside = beside.get(..2 * BESIDE + schedule::LONGEST).unwrap_or(beside);
            let effort = Effort { tries: TRIES, beside, allowed: &self.allowed };
            let found = self.shared.found(trial::opens(&key, &self.wanted, effort));
            self.keys += found.len();
            self.wanted.retain(|wanted| !found.contains(&(wanted.connection, wanted.sender)));
            if found.is_empty() && self.candidates.0.len() < MOST_KEYS {
                self.candidates.0.push(key);
            }
        });
        let state = self.shared.state();
        if state.stop || !state.asked.wants_of(self.target) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Tries the keys that were found before the last records came.
    fn again(&mut self) {
        self.refresh();
        if self.missed {
            self.keys += self.candidates.open(self.shared, &self.wanted, TRIES);
        }
    }

    /// Tries more numbers than before, of what no key opens.
    fn count(&mut self) {
        self.refresh();
        let trials = (self.candidates.0.len() * self.wanted.len()).max(1);
        let tries = LAST_TRIES / trials as u64;
        if tries > TRIES {
            self.keys += self.candidates.open(self.shared, &self.wanted, tries);
        }
    }

    /// Looks whether more is wanted now.
    fn refresh(&mut self) {
        let state = self.shared.state();
        if mem::replace(&mut self.number, state.asked.number) != state.asked.number {
            self.wanted = state.asked.wanted(self.target);
            self.missed |= !self.candidates.0.is_empty();
        }
    }
}

#[cfg(test)]
mod tests;
