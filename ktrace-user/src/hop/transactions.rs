//! What became of transactions: who produced in which, and whether it was committed.
//!
//! A transaction's messages pass before its end is known. The producer tells the end itself (EndTxn), to whoever sees its host; in
//! the log a marker behind the messages does, to whoever sees a consumer that reads uncommitted messages too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::TopicName;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has told, or not in time.
    #[default]
    Open,
    Committed,
    Aborted,
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

/// Ends of one producer that are kept, and markers of it in one partition.
const MAX_ENDS: usize = 64;

/// Partitions of one producer with markers that are kept.
const MAX_PARTITIONS: usize = 1024;

/// The markers of one partition, by their offsets.
type Markers = VecDeque<(i64, State)>;

#[derive(Debug, Default)]
struct Known {
    /// When the producer asked for it, and for what.
    ends: VecDeque<(u64, State)>,
    /// Where the markers stand.
    markers: HashMap<(Arc<str>, i32), Markers>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Transactions {
    by_producer: HashMap<Producer, Known>,
}

impl Transactions {
    /// The producer has ended its transaction.
    pub fn end(&mut self, producer: &Producer, asked_ns: u64, state: State) -> bool {
        let ends = &mut self.known(producer).ends;
        ends.push_back((asked_ns, state));
        if ends.len() > MAX_ENDS {
            ends.pop_front();
        }
        true
    }

    /// A marker stands in the log.
    pub fn marker(
        &mut self,
        producer: &Producer,
        (topic, partition): (&TopicName, i32),
        offset: i64,
        state: State,
    ) -> bool {
        let markers = &mut self.known(producer).markers;
        if markers.len() >= MAX_PARTITIONS {
            markers.clear();
        }
        let markers = markers.entry((Arc::clone(&topic.name), partition)).or_default();
        let at = markers.partition_point(|(known, _)| *known < offset);
        if markers.get(at).is_some_and(|(known, _)| *known == offset) {
            return false;
        }
        markers.insert(at, (offset, state));
        if markers.len() > MAX_ENDS {
            markers.pop_front();
        }
        true
    }

    /// What became of a message that was acknowledged at this time.
    #[must_use]
    pub fn of_sent(&self, producer: &Producer, acked_ns: u64) -> State {
        let ends = self.by_producer.get(producer).map(|known| &known.ends);
        let end = ends.and_then(|ends| ends.iter().find(|(asked_ns, _)| *asked_ns >= acked_ns));
        end.map_or(State::Open, |(_, state)| *state)
    }

    /// What became of the message of this offset.
    #[must_use]
    pub fn of_logged(
        &self,
        producer: &Producer,
        (topic, partition): (&TopicName, i32),
        offset: i64,
    ) -> State {
        let known = self.by_producer.get(producer);
        let markers = known.and_then(|known| known.markers.get(&(Arc::clone(&topic.name), partition)));
        let marker =
            markers.and_then(|markers| markers.get(markers.partition_point(|(marker, _)| *marker <= offset)));
        marker.map_or(State::Open, |(_, state)| *state)
    }

    fn known(&mut self, producer: &Producer) -> &mut Known {
        if self.by_producer.len() >= MAX_PRODUCERS && !self.by_producer.contains_key(producer) {
            self.by_producer.clear();
        }
        self.by_producer.entry(producer.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::topics::Topics;
    use super::*;

    #[test]
    fn the_next_end_decides() {
        let mut transactions = Transactions::default();
        let producer = Producer { cluster: None, id: 7 };
        let other = Producer { cluster: Some("c".into()), id: 7 };
        transactions.end(&producer, 100, State::Committed);
        transactions.end(&producer, 200, State::Aborted);
        let of = |ns| transactions.of_sent(&producer, ns);
        assert_eq!(
            [of(50), of(100), of(150), of(201)],
            [State::Committed, State::Committed, State::Aborted, State::Open]
        );
        assert_eq!(transactions.of_sent(&other, 50), State::Open);
    }

    #[test]
    fn the_next_marker_decides() {
        let mut transactions = Transactions::default();
        let producer = Producer { cluster: None, id: 7 };
        let topic = Topics::default().named("orders");
        assert!(transactions.marker(&producer, (&topic, 0), 9, State::Aborted));
        assert!(transactions.marker(&producer, (&topic, 0), 3, State::Committed));
        assert!(!transactions.marker(&producer, (&topic, 0), 9, State::Aborted));
        let of = |partition, offset| transactions.of_logged(&producer, (&topic, partition), offset);
        assert_eq!(
            [of(0, 2), of(0, 4), of(0, 10), of(1, 2)],
            [State::Committed, State::Aborted, State::Open, State::Open]
        );
        for offset in 0..1000 {
            transactions.marker(&producer, (&topic, 0), offset, State::Committed);
            transactions.end(&producer, 0, State::Committed);
        }
        let known = &transactions.by_producer[&producer];
        assert_eq!((known.ends.len(), known.markers.values().next().unwrap().len()), (MAX_ENDS, MAX_ENDS));
    }
}
