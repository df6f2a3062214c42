//! The memory budget of all workers, and what is given up first over the limit.
//!
//! 1. Incomplete frames and early segments, of the connection that holds most, then of the next.
//!    Their messages are lost (`memory_limit`); the connection is read on from its next whole
//!    frame.
//! 2. Pending hops (for a topic's name, for the connection's other end): they are released early,
//!    as they are (`topic_unnamed`).
//! 3. Connections that were silent longest (`connection_forgotten`). Should they go on, they are
//!    read from their next whole exchange.
//!
//! Small allocations are weighed after they are made, in steps. Large ones (a frame that grows, a
//! batch that is decompressed, a table that doubles) are asked for before ([`Room`]), and not made
//! if refused.

use std::sync::atomic::{AtomicUsize, Ordering};

use ktrace_kafka::Limits;
use ktrace_kafka::room::Room;

use crate::hop::Hop;
use crate::purge;

/// What all workers together may hold by default.
pub(super) const DEFAULT_BYTES: usize = 512 << 20;

/// The least budget: with less not even one connection with large batches can be read.
const LEAST_BYTES: usize = 8 << 20;

/// The program itself: its resident code, the kernel's maps beside the rings, the state that the
/// eBPF programs keep for each socket (some 200 bytes), the process's tables.
const BASE_BYTES: usize = 18 << 20;

/// For each ring: its thread's stack and heap, and what the allocator keeps for it.
const READER_BYTES: usize = 1 << 20;

/// The least that may be held while the process is larger than its limit.
const LEAST_HELD_BYTES: usize = 2 << 20;

/// What a hop weighs in a sink's queue, with what it owns: a `tracestate` is the most of it. The
/// queue has two buffers, which grow by doubling.
const QUEUED_BYTES: usize = 4 * size_of::<Hop>() + 512;

/// One part in this many of what is left is working memory: batches that are decompressed, and the
/// old beside the new buffer where one grows. The rest may be held.
const WORKING_PART: usize = 4;

/// With a smaller budget, freed memory goes back to the system at once, however little is in use.
const ALWAYS_SHORT_BYTES: usize = 128 << 20;

/// What each reused buffer may keep at least, however small the budget is.
const LEAST_KEPT_BYTES: usize = 256 << 10;

/// What an idle connection weighs, with its place in the table.
pub(super) const CONNECTION_BYTES: usize = 2048;

/// What a pending hop weighs.
pub(super) const HOP_BYTES: usize = size_of::<Hop>() + 256;

/// A worker reports what it holds when that has changed by this much: each report touches a cache
/// line that all workers share.
const STEP_BYTES: usize = 64 << 10;

/// What is subtracted from a limit before anything may be held.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    pub rings: usize,
    /// Of all rings together.
    pub ring_bytes: usize,
    /// What the capture remembers of connections.
    pub connections_bytes: usize,
    /// Hops that all sinks' queues hold, together.
    pub queued: usize,
    /// What the sinks hold beside.
    pub sinks_bytes: usize,
}

impl Fixed {
    fn bytes(&self) -> usize {
        let readers = self.rings.saturating_mul(READER_BYTES);
        let queued = self.queued.saturating_mul(QUEUED_BYTES);
        [BASE_BYTES, readers, self.ring_bytes, self.connections_bytes, queued, self.sinks_bytes]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

/// Hops in all sinks' queues together that take an eighth of the limit.
#[must_use]
pub fn queued_at_most(limit: usize) -> usize {
    limit / 8 / QUEUED_BYTES
}

/// The part of a limit that workers may hold, in bytes.
///
/// # Errors
/// The least limit that is enough, in bytes.
pub fn budget(limit: usize, fixed: &Fixed) -> Result<usize, usize> {
    let fixed = fixed.bytes();
    match limit.checked_sub(fixed) {
        Some(left) if left >= LEAST_BYTES => Ok(left - left / WORKING_PART),
        _ => Err(fixed.saturating_add(LEAST_BYTES)),
    }
}

/// The budget of all workers of a run, and what they hold of it, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    /// What may be held, as configured.
    nominal: AtomicUsize,
    /// What may be held at present: less while the process is larger than its limit.
    budget: AtomicUsize,
    /// How many workers share it.
    workers: AtomicUsize,
    held: AtomicUsize,
    /// What the stores hold: groups, topics and all else that belongs to no single connection.
    known: AtomicUsize,
    /// Working memory that was granted.
    taken: AtomicUsize,
    /// The largest request refused since memory was last given up: the worker that holds most gives
    /// up as much.
    refused: AtomicUsize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            nominal: AtomicUsize::new(DEFAULT_BYTES),
            budget: AtomicUsize::new(DEFAULT_BYTES),
            workers: AtomicUsize::new(1),
            held: AtomicUsize::new(0),
            known: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }
}

impl Room for Memory {
    fn take(&self, bytes: usize) -> bool {
        let most = self.most();
        let others = self.held.load(Ordering::Relaxed).saturating_add(self.known.load(Ordering::Relaxed));
        let grant = |taken: usize| {
            let taken = taken.saturating_add(bytes);
            (taken.saturating_add(others) <= most).then_some(taken)
        };
        let granted = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grant).is_ok();
        if !granted {
            self.refused.fetch_max(bytes, Ordering::Relaxed);
        }
        self.look();
        granted
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Memory {
    pub fn set(&self, bytes: usize) {
        purge::is_limited(bytes < ALWAYS_SHORT_BYTES);
        self.nominal.store(bytes, Ordering::Relaxed);
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub fn is_shared_by(&self, workers: usize) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// What held and working memory may take together.
    fn most(&self) -> usize {
        let budget = self.budget();
        budget.saturating_add(budget / (WORKING_PART - 1))
    }

    /// While more than half is in use, freed memory goes back to the system at once.
    pub fn look(&self) {
        let load = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        let used = load(&self.held).saturating_add(load(&self.known)).saturating_add(load(&self.taken));
        purge::is_short(used > self.most() / 2);
    }

    /// Adapts the budget to the process's size. What is counted here is not all: freed memory may
    /// stay with the allocator, and small allocations are not weighed.
    pub fn regulate(&self, used: usize, allowed: usize) {
        let (nominal, budget) = (self.nominal.load(Ordering::Relaxed), self.budget());
        let next = if used > allowed {
            purge::give_back();
            budget.saturating_sub(used - allowed).max(LEAST_HELD_BYTES.min(nominal))
        } else if used < allowed / 10 * 9 {
            (budget + budget / 16).min(nominal)
        } else {
            budget
        };
        self.budget.store(next, Ordering::Relaxed);
    }

    /// The part (0 to 1) of their nominal bounds that stores may hold: less with a budget below the
    /// default.
    pub fn part(&self) -> f64 {
        self.nominal.load(Ordering::Relaxed).min(DEFAULT_BYTES) as f64 / DEFAULT_BYTES as f64
    }

    /// Sets what the stores hold; connections may hold that much less. Half of the budget is for
    /// connections in any case.
    pub fn know(&self, bytes: usize) {
        self.known.store(bytes, Ordering::Relaxed);
        self.look();
    }

    /// What is left for connections.
    pub fn left(&self) -> usize {
        let budget = self.budget();
        budget - self.known.load(Ordering::Relaxed).min(budget / 2)
    }

    pub fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.left() || self.refused.load(Ordering::Relaxed) > 0
    }

    /// How much has to be given up so that there is room for a while, also for what was refused.
    pub fn surplus(&self) -> usize {
        let refused = self.refused.swap(0, Ordering::Relaxed);
        let over = self.held.load(Ordering::Relaxed).saturating_sub(self.left() / 8 * 7);
        over.max(refused.min(self.left() / 8))
    }

    /// Limits of a single connection that fit the budget.
    pub fn limits(&self) -> Limits {
        let (budget, default) = (self.budget(), Limits::default());
        Limits {
            held_bytes: default.held_bytes.min(budget / 4),
            pending_bytes: default.pending_bytes.min(budget / 2),
            kept_bytes: (budget / 16 / self.workers.load(Ordering::Relaxed))
                .clamp(LEAST_KEPT_BYTES, default.kept_bytes),
            ..default
        }
    }
}

/// What one worker holds, as it last reported.
#[derive(Debug, Default)]
pub(super) struct Told {
    bytes: usize,
}

impl Told {
    /// Reports what the worker holds now, if that has changed by [`STEP_BYTES`] or `at_once`.
    /// Returns whether it was reported.
    pub fn tell(&mut self, memory: &Memory, bytes: usize, at_once: bool) -> bool {
        if self.bytes.abs_diff(bytes) < STEP_BYTES && !at_once {
            return false;
        }
        if bytes >= self.bytes {
            memory.held.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            memory.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_and_queues_come_off_the_limit() {
        let fixed =
            Fixed { rings: 4, ring_bytes: 64 << 20, connections_bytes: 0, queued: 16 << 10, sinks_bytes: 0 };
        let least = budget(64 << 20, &fixed).unwrap_err();
        assert_eq!(budget(least, &fixed), Ok(LEAST_BYTES / 4 * 3));
        assert_eq!(budget(least + 5, &Fixed { sinks_bytes: 5, ..fixed }), Ok(LEAST_BYTES / 4 * 3));
        assert!(least > 64 << 20 && least < 200 << 20, "{least}");
    }

    #[test]
    fn a_process_that_is_too_large_holds_less_for_a_while() {
        let memory = Memory::default();
        memory.set(100 << 20);
        for _ in 0..100 {
            memory.regulate(200 << 20, 150 << 20);
        }
        assert_eq!(memory.budget(), LEAST_HELD_BYTES);
        for _ in 0..100 {
            memory.regulate(100 << 20, 150 << 20);
        }
        assert_eq!(memory.budget(), 100 << 20);
    }

    #[test]
    fn what_is_known_leaves_less_for_connections_but_half() {
        let memory = Memory::default();
        memory.set(LEAST_BYTES);
        let mut one = Told::default();
        one.tell(&memory, LEAST_BYTES / 2, true);
        for (known, is_over) in [(LEAST_BYTES / 2, false), (LEAST_BYTES, false)] {
            memory.know(known);
            assert_eq!(memory.is_over(), is_over);
        }
        one.tell(&memory, LEAST_BYTES / 2 + 1, true);
        assert!(memory.is_over() && memory.part() < 0.02);
        memory.know(0);
        assert!(!memory.is_over());
    }

    #[test]
    fn what_is_at_work_is_granted_or_refused() {
        let memory = Memory::default();
        memory.set(90 << 20);
        let mut one = Told::default();
        one.tell(&memory, 80 << 20, true);
        assert!(memory.take(30 << 20) && !memory.is_over());
        assert!(!memory.take(20 << 20), "120 MiB are all that there is");
        assert!(memory.is_over(), "somebody makes room");
        assert!(memory.surplus() >= 90 << 17, "{}", memory.surplus());
        memory.give_back(30 << 20);
        assert!(memory.take(40 << 20) && !memory.take(1));
    }

    #[test]
    fn workers_tell_the_sum() {
        let memory = Memory::default();
        memory.set(LEAST_BYTES);
        let (mut one, mut two) = (Told::default(), Told::default());
        assert!(!one.tell(&memory, STEP_BYTES - 1, false));
        one.tell(&memory, LEAST_BYTES, false);
        assert!(!memory.is_over());
        two.tell(&memory, 1, true);
        assert!(memory.is_over());
        one.tell(&memory, 0, false);
        assert!(!memory.is_over());
    }
}
