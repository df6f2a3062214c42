//! What became of transactions, as their producers tell it (EndTxn) to whoever sees their hosts.
//!
//! A transaction's messages pass before its end is known. To whoever sees only a consumer that reads uncommitted messages too, the
//! marker that follows them in the log tells.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has told, or not in time.
    #[default]
    Open,
    Committed,
    Aborted,
    /// Its end was missed.
    Unknown,
}

impl State {
    #[must_use]
    pub fn ended(commits: bool) -> Self {
        if commits { Self::Committed } else { Self::Aborted }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }
}

/// Who produces in transactions. Ids are those of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    pub cluster: Option<Arc<str>>,
    pub id: i64,
}

/// A transaction, as its messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub producer: Producer,
    /// Where it was heard.
    pub transactional_id: Option<Arc<str>>,
}

/// Producers that are kept; past it they are learnt anew.
const MAX_PRODUCERS: usize = 16 << 10;

/// Ends of one producer that are kept. What waits for one waits for seconds.
const MAX_ENDS: usize = 4096;

/// Ends of all producers; past it each has only its newest.
const MAX_ENDS_IN_ALL: usize = 256 << 10;

/// So many then.
const FEW_ENDS: usize = 8;

/// For so long messages wait for an end.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The ends of one producer.
#[derive(Debug, Default)]
struct Ends {
    /// When the producer asked for it, and for what.
    ends: VecDeque<(u64, State)>,
    /// Ends up to this time are not kept any more.
    forgotten_ns: u64,
}

impl Ends {
    /// Those since then.
    fn needed(&self, since_ns: u64) -> u64 {
        let old = self.ends.partition_point(|(asked_ns, _)| *asked_ns < since_ns);
        self.ends.len().saturating_sub(old) as u64
    }

    /// Forgets the oldest until there are no more than so many. Gives how many of them were asked for since then.
    fn keep(&mut self, most: usize, since_ns: u64) -> u64 {
        let excess = self.ends.len().saturating_sub(most);
        let mut needed = 0_u64;
        for (asked_ns, _) in self.ends.drain(..excess) {
            needed = needed.saturating_add(u64::from(asked_ns >= since_ns));
            self.forgotten_ns = asked_ns;
        }
        needed
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Transactions {
    by_producer: HashMap<Producer, Ends>,
    ends: usize,
    /// Ends that had to make room while something may have waited for them.
    forgotten: u64,
}

impl Transactions {
    /// Producers, and the ends of all of them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.by_producer.len(), self.ends)
    }

    /// The producer has ended its transaction; or, with [`State::Unknown`], may have.
    pub fn end(&mut self, producer: &Producer, asked_ns: u64, state: State) -> bool {
        let since_ns = asked_ns.saturating_sub(PATIENCE_NS);
        if self.by_producer.len() >= MAX_PRODUCERS && !self.by_producer.contains_key(producer) {
            let needed = self.by_producer.values().map(|of| of.needed(since_ns));
            self.forgotten = self.forgotten.saturating_add(needed.sum());
            self.by_producer.clear();
            self.ends = 0;
        }
        let of = self.by_producer.entry(producer.clone()).or_default();
        of.ends.push_back((asked_ns, state));
        self.ends = self.ends.saturating_add(1);
        if of.ends.len() > MAX_ENDS {
            self.forgotten = self.forgotten.saturating_add(of.keep(MAX_ENDS, since_ns));
            self.ends = self.ends.saturating_sub(1);
        }
        if self.ends > MAX_ENDS_IN_ALL {
            let kept = self.by_producer.values_mut().map(|of| {
                let forgotten = of.keep(FEW_ENDS, since_ns);
                of.ends.shrink_to_fit();
                (of.ends.len(), forgotten)
            });
            let (ends, forgotten) = kept
                .fold((0_usize, 0_u64), |sum, of| (sum.0.saturating_add(of.0), sum.1.saturating_add(of.1)));
            (self.ends, self.forgotten) = (ends, self.forgotten.saturating_add(forgotten));
        }
        true
    }

    /// How many ends had to make room too early since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// What became of a message that was acknowledged at this time.
    #[must_use]
    pub fn of_sent(&self, producer: &Producer, acked_ns: u64) -> State {
        let Some(Ends { ends, forgotten_ns }) = self.by_producer.get(producer) else { return State::Open };
        if acked_ns <= *forgotten_ns {
            return State::Unknown;
        }
        let at = ends.partition_point(|(asked_ns, _)| *asked_ns < acked_ns);
        ends.get(at).map_or(State::Open, |(_, state)| *state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_end_decides() {
        let mut transactions = Transactions::default();
        let producer = Producer { cluster: None, id: 7 };
        let other = Producer { cluster: Some("c".into()), id: 7 };
        transactions.end(&producer, 100, State::Committed);
        transactions.end(&producer, 200, State::Aborted);
        let of = |ns| transactions.of_sent(&producer, ns);
        let expected = [State::Committed, State::Committed, State::Aborted, State::Open];
        assert_eq!([of(50), of(100), of(150), of(201)], expected);
        assert_eq!(transactions.of_sent(&other, 50), State::Open);
    }

    #[test]
    fn what_is_forgotten_decides_nothing() {
        let mut transactions = Transactions::default();
        let producer = Producer { cluster: None, id: 7 };
        for ns in 0..=MAX_ENDS as u64 + 1 {
            transactions.end(&producer, 10 * ns, State::Committed);
        }
        assert_eq!(transactions.of_sent(&producer, 10), State::Unknown);
        assert_eq!(transactions.of_sent(&producer, 11), State::Committed);
    }

    /// Hostile: as many ends as there may be, of millions of producers.
    #[test]
    fn ends_are_bounded_in_all_and_those_forgotten_too_early_are_counted() {
        let mut transactions = Transactions::default();
        let most = MAX_PRODUCERS as i64;
        for at in 0..1_000_000_i64 {
            let producer = Producer { cluster: None, id: at % most };
            transactions.end(&producer, at as u64, State::Committed);
            assert!(transactions.ends <= MAX_ENDS_IN_ALL);
        }
        let held: usize = transactions.by_producer.values().map(|of| of.ends.len()).sum();
        assert_eq!(transactions.ends, held);
        assert_eq!(transactions.take_forgotten() + held as u64, 1_000_000);
        for at in 0..100_000 {
            transactions.end(&Producer { cluster: None, id: most + at }, 20 * PATIENCE_NS, State::Committed);
            assert!(transactions.by_producer.len() <= MAX_PRODUCERS);
        }
        assert!(transactions.take_forgotten() > 80_000, "old ones do not count");
        assert_eq!(transactions.take_forgotten(), 0);
    }
}
