//! Counts by reason: one worker's, and those of all workers of a run.

use std::sync::atomic::{AtomicU64, Ordering};

use ktrace_kafka::counters::Counters;

use super::reason::{Group, Where};
use super::table::{Reason, TABLE};

/// One count for each reason. Only whoever owns it counts in it; counts stop at their largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger([u64; Reason::COUNT]);

impl Default for Ledger {
    fn default() -> Self {
        Self([0; Reason::COUNT])
    }
}

impl Ledger {
    /// One more.
    pub fn lose(&mut self, reason: Reason) {
        self.lose_n(reason, 1);
    }

    /// `count` more.
    pub fn lose_n(&mut self, reason: Reason, count: u64) {
        let sum = &mut self.0[reason as usize];
        *sum = sum.saturating_add(count);
    }

    /// The count of a reason that another place has summed up already.
    pub fn set(&mut self, reason: Reason, count: u64) {
        self.0[reason as usize] = count;
    }

    /// Takes over the counts of a parser, all from its beginning.
    pub fn read(&mut self, counters: &Counters) {
        for (lost, count) in counters.lost() {
            self.set(lost.into(), count);
        }
        for (malformed, count) in counters.malformed() {
            self.set(malformed.into(), count);
        }
        self.set(Reason::GapBytes, counters.gap_bytes);
        self.set(Reason::SkippedBytes, counters.skipped_bytes);
        self.set(Reason::UnreadBytes, counters.unread_bytes);
        self.set(Reason::SurplusBytes, counters.surplus_bytes);
    }

    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons, zeros too.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::all().zip(self.0)
    }

    /// The counts of a group of the summary that are not zero.
    pub fn of(&self, group: Group) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.iter().filter(move |(reason, count)| *count > 0 && reason.row().group == group)
    }
}

/// The sum of the ledgers of all workers of a run, to be read at any time from any thread.
#[derive(Debug)]
pub struct SharedLedger([AtomicU64; Reason::COUNT]);

impl Default for SharedLedger {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::COUNT])
    }
}

impl SharedLedger {
    /// Adds what `now` has beyond `published`, which is the same ledger when this was called last.
    pub fn add(&self, now: &Ledger, published: &mut Ledger) {
        for ((sum, count), before) in self.0.iter().zip(now.0).zip(&mut published.0) {
            if count > *before {
                sum.fetch_add(count - *before, Ordering::Relaxed);
                *before = count;
            }
        }
    }

    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// What workers count of a group, zeros too. Reasons of the kernel, of sources and of sinks are counted
    /// where they arise.
    pub fn of(&self, group: Group) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let rows = TABLE.iter().filter(move |row| row.group == group);
        let rows = rows.filter(|row| matches!(row.at, Where::Parser | Where::Stage));
        rows.map(|row| (row.reason, self.get(row.reason)))
    }

    /// Reasons that are reported as soon as they begin, zeros too.
    pub fn live(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let rows = TABLE.iter().filter(|row| row.live && row.at != Where::Kernel);
        rows.map(|row| (row.reason, self.get(row.reason)))
    }
}

#[cfg(test)]
mod tests {
    use ktrace_kafka::counters::{Lost, Malformed};

    use super::*;

    #[test]
    fn ledgers_of_workers_add_up() {
        let shared = SharedLedger::default();
        let mut counters = Counters::default();
        counters.gap_bytes = 7;
        let (mut one, mut two) = (Ledger::default(), Ledger::default());
        let (mut one_published, mut two_published) = (Ledger::default(), Ledger::default());
        two.lose_n(Reason::CpuLimit, 3);
        one.read(&counters);
        shared.add(&one, &mut one_published);
        counters.lose(Lost::MemoryLimit);
        counters.lose(Lost::Unanswered);
        counters.refuse(Malformed::DecompressionBomb);
        counters.refuse(Malformed::Batch);
        one.read(&counters);
        one.lose_n(Reason::TopicUnnamed, 2);
        two.lose(Reason::TopicUnnamed);
        shared.add(&one, &mut one_published);
        shared.add(&two, &mut two_published);
        shared.add(&two, &mut two_published);
        let mut lost: Vec<_> = shared.of(Group::Lost).filter(|(_, count)| *count > 0).collect();
        lost.sort();
        let live = [(Reason::CpuLimit, 3), (Reason::GapBytes, 7), (Reason::MemoryLimit, 1)];
        assert_eq!(lost, [live[0], live[1], live[2], (Reason::TopicUnnamed, 3), (Reason::Unanswered, 1)]);
        let mut reported: Vec<_> = shared.live().filter(|(_, count)| *count > 0).collect();
        reported.sort();
        assert_eq!(reported, [live[0], (Reason::DecompressionBomb, 1), live[1], live[2]]);
        let malformed = [(Reason::Batch, 1), (Reason::DecompressionBomb, 1)];
        assert_eq!(one.of(Group::Malformed).collect::<Vec<_>>(), malformed);
    }

    #[test]
    fn counts_stop_at_their_largest_value() {
        let mut ledger = Ledger::default();
        ledger.set(Reason::SpanLimit, u64::MAX - 1);
        ledger.lose(Reason::SpanLimit);
        ledger.lose_n(Reason::SpanLimit, 9);
        assert_eq!(ledger.get(Reason::SpanLimit), u64::MAX);
    }
}
