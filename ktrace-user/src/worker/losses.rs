//! What a worker loses: its ledger, and how much of it the ledger of all workers has.

use ktrace_kafka::context::TraceId;
use ktrace_kafka::counters::Counters;

use super::shared::{Shared, StoreEntry};
use super::throttle::{Limit, Within};
use crate::losses::{Ledger, Reason, SharedLedger};

/// One worker's losses.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The kernel side chose the connections by their first bytes: that some are not Kafka is no loss.
    pub recognised: bool,
    ledger: Ledger,
    published: Ledger,
}

impl Own {
    pub fn new(recognised: bool) -> Self {
        Self { recognised, ..Self::default() }
    }

    /// One more.
    pub fn lose(&mut self, reason: Reason) {
        self.ledger.lose(reason);
    }

    /// `count` more.
    pub fn lose_n(&mut self, reason: Reason, count: u64) {
        self.ledger.lose_n(reason, count);
    }

    /// Counts what the stores of all workers have evicted. The worker that asks first counts it.
    pub fn take_evicted(&mut self, shared: &Shared) {
        for StoreEntry { evicted_as, store } in shared.stores() {
            if let Some(reason) = evicted_as {
                self.lose_n(reason, store.take_evicted());
            }
        }
    }

    /// Whether all limits leave room for a message of this trace; else it is counted.
    pub fn is_within(&mut self, within: &Within, trace: TraceId) -> bool {
        let reason = match within.skips(trace) {
            None => return true,
            Some(Limit::Cpu) => Reason::CpuLimit,
            Some(Limit::Spans) => Reason::SpanLimit,
        };
        self.lose(reason);
        false
    }

    /// All counts so far, those of the parser too.
    pub fn counts(&self, counters: &Counters) -> Ledger {
        let mut ledger = self.ledger;
        ledger.read(counters);
        if self.recognised {
            ledger.set(Reason::NotKafka, 0);
        }
        ledger
    }

    /// Adds what is new to the ledger of all workers.
    pub fn publish(&mut self, all: &SharedLedger, counters: &Counters) {
        all.add(&self.counts(counters), &mut self.published);
    }
}

#[cfg(test)]
mod tests {
    use ktrace_kafka::counters::Lost;

    use super::*;

    #[test]
    fn other_protocols_are_a_loss_on_given_ports_only() {
        let mut counters = Counters::default();
        counters.lose(Lost::NotKafka);
        for (recognised, lost) in [(false, 1), (true, 0)] {
            let own = Own::new(recognised);
            assert_eq!(own.counts(&counters).get(Reason::NotKafka), lost);
        }
    }
}
