//! How much the workers may hold, together, and what goes first past it.
//!
//! 1. Frames at hand and early segments, of the connection that holds most, then of the next: their messages are lost
//!    (`memory_limit`), the connection is read on from its next whole frame.
//! 2. Hops that wait (for a topic's name, for the connection's other end): they go out as they are (`topic_unnamed`).
//! 3. Connections that were silent longest: should they speak again, they are read from their next whole exchange on
//!    (`connection_forgotten`).

use std::sync::atomic::{AtomicUsize, Ordering};

use ktrace_kafka::Limits;

use crate::hop::Hop;

/// What all connections together may hold unless the user says otherwise.
const DEFAULT_BYTES: usize = 512 << 20;

/// With less nothing can be read.
const LEAST_BYTES: usize = 8 << 20;

/// The program itself, its threads, and buffers for decompression.
const BASE_BYTES: usize = 24 << 20;

/// Hops that a sink's queue holds, and what a hop weighs with what it owns of its own: a `tracestate` is the most of it. The queue has two buffers,
/// which grow by doubling.
const QUEUED_BYTES: usize = (16 << 10) * (4 * size_of::<Hop>() + 512);

/// What a connection weighs that holds nothing, with its place in the table.
pub(super) const CONNECTION_BYTES: usize = 2048;

/// What a hop weighs that waits.
pub(super) const HOP_BYTES: usize = size_of::<Hop>() + 256;

/// A worker tells the others when it holds so much more or less than it has told.
const STEP_BYTES: usize = 64 << 10;

/// Memory of all workers of a run.
#[derive(Debug)]
pub(super) struct Memory {
    /// As the user wants it.
    nominal: AtomicUsize,
    /// As it is at present: less while the process is larger than it should be.
    budget: AtomicUsize,
    held: AtomicUsize,
    /// What is known of groups, topics and all else that is no connection's.
    known: AtomicUsize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            nominal: AtomicUsize::new(DEFAULT_BYTES),
            budget: AtomicUsize::new(DEFAULT_BYTES),
            held: AtomicUsize::new(0),
            known: AtomicUsize::new(0),
        }
    }
}

/// What is left of the user's limit for what workers hold, beside so many sinks' queues and what these sinks hold else.
///
/// # Errors
/// The least limit that is enough.
pub fn budget(limit: usize, ring_bytes: usize, (sinks, sinks_bytes): (usize, usize)) -> Result<usize, usize> {
    let queued = QUEUED_BYTES.saturating_mul(sinks).saturating_add(sinks_bytes);
    let fixed = ring_bytes.saturating_add(BASE_BYTES).saturating_add(queued);
    match limit.checked_sub(fixed) {
        Some(left) if left >= LEAST_BYTES => Ok(left),
        _ => Err(fixed.saturating_add(LEAST_BYTES)),
    }
}

impl Memory {
    pub fn set(&self, bytes: usize) {
        self.nominal.store(bytes, Ordering::Relaxed);
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// The process has so many bytes of its own, and may have so many: what is counted here is not all, as memory that was
    /// given back may stay with the allocator.
    pub fn regulate(&self, resident: usize, allowed: usize) {
        let (nominal, budget) = (self.nominal.load(Ordering::Relaxed), self.budget());
        let next = if resident > allowed {
            (budget / 8 * 7).max(LEAST_BYTES.min(nominal))
        } else if resident < allowed / 10 * 9 {
            (budget + budget / 16).min(nominal)
        } else {
            budget
        };
        self.budget.store(next, Ordering::Relaxed);
    }

    /// What knowledge may take of what it may where the user sets no limit, or one above that.
    pub fn part(&self) -> f64 {
        self.nominal.load(Ordering::Relaxed).min(DEFAULT_BYTES) as f64 / DEFAULT_BYTES as f64
    }

    /// So much is known: what is held beside it has to be less by that. Half of the budget is for connections in any case.
    pub fn know(&self, bytes: usize) {
        self.known.store(bytes, Ordering::Relaxed);
    }

    /// What that leaves.
    pub fn left(&self) -> usize {
        let budget = self.budget();
        budget - self.known.load(Ordering::Relaxed).min(budget / 2)
    }

    pub fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.left()
    }

    /// How much has to go so that there is room again for a while.
    pub fn surplus(&self) -> usize {
        self.held.load(Ordering::Relaxed).saturating_sub(self.left() / 8 * 7)
    }

    /// Bounds of single connections that fit.
    pub fn limits(&self) -> Limits {
        let (budget, default) = (self.budget(), Limits::default());
        Limits {
            held_bytes: default.held_bytes.min(budget / 4),
            pending_bytes: default.pending_bytes.min(budget / 2),
            decompressed_bytes: default.decompressed_bytes.min(budget / 4),
            ..default
        }
    }
}

/// What one worker holds, as it has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    bytes: usize,
}

impl Told {
    /// Tells what the worker holds now, if that has changed much or `at_once`. Returns whether it was told.
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
        let least = budget(64 << 20, 64 << 20, (1, 0)).unwrap_err();
        assert_eq!(budget(least, 64 << 20, (1, 0)), Ok(LEAST_BYTES));
        assert_eq!(budget(least + 5, 64 << 20, (1, 5)), Ok(LEAST_BYTES));
        assert!(least > 64 << 20 && least < 200 << 20, "{least}");
    }

    #[test]
    fn a_process_that_is_too_large_holds_less_for_a_while() {
        let memory = Memory::default();
        memory.set(100 << 20);
        for _ in 0..100 {
            memory.regulate(200 << 20, 150 << 20);
        }
        assert_eq!(memory.budget(), LEAST_BYTES);
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
