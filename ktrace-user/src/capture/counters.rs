//! What the kernel side has counted: captured and, for each reason, lost.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};
use ktrace_common::{Counter, Tally};

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

    /// Every way to lose something, by its name (`ring_full`, `load_failed`, `over_limit`, `unparsed`, `owner_lost`), zeros too.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, Count)> {
        Counter::ALL
            .into_iter()
            .filter(|counter| *counter != Counter::Captured)
            .map(|counter| (counter.name(), self.get(counter)))
    }
}

/// Reads the counters from anywhere, also while the capture runs in another thread and after it has ended.
#[derive(Clone)]
pub struct CounterReader {
    map: Arc<PerCpuArray<MapData, Tally>>,
}

impl CounterReader {
    pub(super) fn new(map: PerCpuArray<MapData, Tally>) -> Self {
        Self { map: Arc::new(map) }
    }

    /// The counters now, summed over all CPUs. A counter that the kernel would not give reads as zero.
    #[must_use]
    pub fn read(&self) -> Counters {
        let mut counters = Counters::default();
        for counter in Counter::ALL {
            let Ok(cpus) = self.map.get(&(counter as u32), 0) else { continue };
            let count = &mut counters.counts[counter as usize];
            for [events, bytes] in cpus.iter() {
                count.events = count.events.wrapping_add(*events);
                count.bytes = count.bytes.wrapping_add(*bytes);
            }
        }
        counters
    }
}
