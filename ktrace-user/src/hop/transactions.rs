//! How transactions ended, from their producers' EndTxn requests where these are captured.
//!
//! A transaction's messages pass before its end is known. Where only a consumer that reads
//! uncommitted messages is captured, the marker that follows them in the log says how it ended.

use std::collections::VecDeque;
use std::sync::Arc;

use super::store::{Bound, Bounded, Knowledge, part_of};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not ended, or its end was not seen in time.
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

/// A producer. Its id is unique in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    pub cluster: Option<Arc<str>>,
    pub id: i64,
}

/// A transaction, as its messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub producer: Producer,
    /// `None` where no request with it was captured.
    pub transactional_id: Option<Arc<str>>,
}

/// Producers whose ends are kept. A cluster has one for each transactional id: more than a few
/// thousand are rare.
const MAX_PRODUCERS: usize = 16 << 10;

/// Ends of one producer that are kept. Messages wait for an end for [`PATIENCE_NS`]: this holds 400
/// a second.
const MAX_ENDS: usize = 4096;

/// Ends of all producers together. When exceeded, each keeps only its newest [`FEW_ENDS`]: all
/// producers are as likely to be waited for, their old ends are not.
const MAX_ENDS_IN_ALL: usize = 256 << 10;
const FEW_ENDS: usize = 8;

/// What a producer and one of its ends take, about.
const PRODUCER_BYTES: usize = 192;
const END_BYTES: usize = 24;

/// How long messages wait for an end.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The ends of one producer.
#[derive(Debug, Default)]
struct Ends {
    /// When the producer requested the end, in nanoseconds since 1970, and which.
    ends: VecDeque<(u64, State)>,
    /// Ends up to this time were evicted.
    forgotten_ns: u64,
}

impl Ends {
    /// How many ends were requested since then.
    fn needed(&self, since_ns: u64) -> u64 {
        let old = self.ends.partition_point(|(asked_ns, _)| *asked_ns < since_ns);
        self.ends.len().saturating_sub(old) as u64
    }

    /// Evicts the oldest ends until no more than `most` are left. Returns how many of those evicted
    /// were requested since `since_ns`.
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

/// The ends of all producers' transactions, shared by all workers. The producer whose last
/// transaction ended longest ago is evicted first: nothing waits for its ends any more.
#[derive(Debug)]
pub struct Transactions {
    by_producer: Bounded<Producer, Ends>,
    ends: usize,
    max_ends: usize,
    /// Ends evicted while something may have waited for them.
    evicted: u64,
}

impl Default for Transactions {
    fn default() -> Self {
        let by_producer = Bounded::new(Bound::entries(MAX_PRODUCERS));
        Self { by_producer, ends: 0, max_ends: MAX_ENDS_IN_ALL, evicted: 0 }
    }
}

impl Transactions {
    /// The producer has ended its transaction; or, with [`State::Unknown`], may have. Returns true:
    /// that is always news.
    pub fn end(&mut self, producer: &Producer, asked_ns: u64, state: State) -> bool {
        let since_ns = asked_ns.saturating_sub(PATIENCE_NS);
        let Self { by_producer, ends, max_ends, evicted } = self;
        let of = by_producer.get_or_insert(producer, 0, Ends::default, |_, of| {
            *evicted = evicted.saturating_add(of.needed(since_ns));
            *ends = ends.saturating_sub(of.ends.len());
        });
        of.ends.push_back((asked_ns, state));
        *ends = ends.saturating_add(1);
        if of.ends.len() > MAX_ENDS {
            *evicted = evicted.saturating_add(of.keep(MAX_ENDS, since_ns));
            *ends = ends.saturating_sub(1);
        }
        if *ends > *max_ends {
            *ends = 0;
            for of in by_producer.values_mut() {
                *evicted = evicted.saturating_add(of.keep(FEW_ENDS, since_ns));
                of.ends.shrink_to_fit();
                *ends = ends.saturating_add(of.ends.len());
            }
        }
        true
    }

    /// How the transaction ended of a message that was acknowledged at this time.
    #[must_use]
    pub fn of_sent(&self, producer: &Producer, acked_ns: u64) -> State {
        let Some(Ends { ends, forgotten_ns }) = self.by_producer.peek(producer) else { return State::Open };
        if acked_ns <= *forgotten_ns {
            return State::Unknown;
        }
        let at = ends.partition_point(|(asked_ns, _)| *asked_ns < acked_ns);
        ends.get(at).map_or(State::Open, |(_, state)| *state)
    }
}

impl Knowledge for Transactions {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("producers", self.by_producer.len()), ("ends of transactions", self.ends)]
    }

    fn bytes(&self) -> usize {
        let producers = self.by_producer.len().saturating_mul(PRODUCER_BYTES);
        producers.saturating_add(self.ends.saturating_mul(END_BYTES))
    }

    fn hold_at_most(&mut self, part: f64) {
        self.by_producer.hold_at_most(part);
        self.max_ends = part_of(MAX_ENDS_IN_ALL, part);
    }

    fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
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
        let held: usize = transactions.by_producer.iter().map(|(_, of)| of.ends.len()).sum();
        assert_eq!(transactions.ends, held);
        assert_eq!(transactions.take_evicted() + held as u64, 1_000_000);
        for at in 0..100_000 {
            transactions.end(&Producer { cluster: None, id: most + at }, 20 * PATIENCE_NS, State::Committed);
            assert!(transactions.by_producer.len() <= MAX_PRODUCERS);
        }
        assert!(transactions.take_evicted() > 80_000, "old ones do not count");
        assert_eq!(transactions.take_evicted(), 0);
    }
}
