//! What the kernel side has counted: captured and, for each reason, lost.

use ktrace_common::Counter;

use super::calls::Calls;
use crate::losses::Reason;

/// Events and the payload bytes that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub events: u64,
    pub bytes: u64,
}

/// A reading of all counters, since the capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    counts: [Count; Counter::ALL.len()],
}

impl Counters {
    pub(super) fn add(&mut self, counter: Counter, events: u64, bytes: u64) {
        let count = &mut self.counts[counter as usize];
        count.events = count.events.wrapping_add(events);
        count.bytes = count.bytes.wrapping_add(bytes);
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Count {
        self.counts[counter as usize]
    }

    /// Pieces of packets handed to the agent.
    #[must_use]
    pub fn captured(&self) -> Count {
        self.get(Counter::Captured)
    }

    /// The kernel's reasons to lose something, zeros too.
    pub fn lost(&self) -> impl Iterator<Item = (Reason, Count)> {
        Counter::ALL.into_iter().filter_map(|counter| Some((Reason::of_kernel(counter)?, self.get(counter))))
    }
}

/// Reads the counters from anywhere, also while the capture runs in another thread and after it has
/// ended.
#[derive(Clone)]
pub struct CounterReader {
    calls: Calls,
}

impl CounterReader {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Counters {
        self.calls.count()
    }
}
