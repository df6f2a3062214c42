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

/// The ends of one producer.
#[derive(Debug, Default)]
struct Ends {
    /// When the producer asked for it, and for what.
    ends: VecDeque<(u64, State)>,
    /// Ends up to this time are not kept any more.
    forgotten_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Transactions {
    by_producer: HashMap<Producer, Ends>,
}

impl Transactions {
    /// Producers, and the ends of all of them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.by_producer.len(), self.by_producer.values().map(|of| of.ends.len()).sum())
    }

    /// The producer has ended its transaction; or, with [`State::Unknown`], may have.
    pub fn end(&mut self, producer: &Producer, asked_ns: u64, state: State) -> bool {
        if self.by_producer.len() >= MAX_PRODUCERS && !self.by_producer.contains_key(producer) {
            self.by_producer.clear();
        }
        let Ends { ends, forgotten_ns } = self.by_producer.entry(producer.clone()).or_default();
        ends.push_back((asked_ns, state));
        if ends.len() > MAX_ENDS
            && let Some((ns, _)) = ends.pop_front()
        {
            *forgotten_ns = ns;
        }
        true
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
}
