//! Hops whose topic is known by id alone wait here, for a bounded time, until Metadata tells its name.
//!
//! What comes later on the same connection waits behind them, so that a connection's spans stay in order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::topics::Topics;
use super::{Hop, Topic, TopicName};
use crate::capture::ConnectionId;

/// How long a name is waited for.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Hops that wait at once; past it the oldest goes out as it is.
const MAX_HOPS: usize = 64 << 10;

/// See the module.
#[derive(Default)]
pub struct Waiting {
    hops: VecDeque<(ConnectionId, u64, Hop)>,
    /// Connections with a hop that waits.
    connections: HashSet<ConnectionId>,
    /// Topics that are waited for.
    topics: HashSet<u128>,
    unnamed: u64,
}

impl Waiting {
    /// Hops that went out with an id in place of the name, because it never came.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Hops that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// The topics whose names are waited for.
    pub fn topics(&self) -> impl Iterator<Item = u128> {
        self.topics.iter().copied()
    }

    /// Takes a hop of this connection, and gives the one that may go: this one if it need not wait, or the oldest if too many wait.
    pub fn pass(&mut self, connection: ConnectionId, now_ns: u64, hop: Hop) -> Option<Hop> {
        match hop.topic {
            Topic::Named(_) if !self.connections.contains(&connection) => return Some(hop),
            Topic::Named(_) => {}
            Topic::Id(id) => {
                self.topics.insert(id);
            }
        }
        self.connections.insert(connection);
        self.hops.push_back((connection, now_ns, hop));
        if self.hops.len() <= MAX_HOPS {
            return None;
        }
        let (_, _, oldest) = self.hops.pop_front()?;
        self.note(&oldest);
        Some(oldest)
    }

    /// Gives the hops that need not wait any more, in order: all of them where `now_ns` is `None`.
    pub fn release(
        &mut self,
        mut name: impl FnMut(u128) -> Option<Arc<TopicName>>,
        now_ns: Option<u64>,
        mut give: impl FnMut(Hop),
    ) {
        if self.hops.is_empty() {
            return;
        }
        self.connections.clear();
        self.topics.clear();
        for _ in 0..self.hops.len() {
            let Some((connection, since_ns, mut hop)) = self.hops.pop_front() else { return };
            if let Topic::Id(id) = hop.topic
                && let Some(name) = name(id)
            {
                hop.topic = Topic::Named(name);
            }
            let over = now_ns.is_none_or(|now| now.saturating_sub(since_ns) > PATIENCE_NS);
            let may_go = over || matches!(hop.topic, Topic::Named(_));
            if may_go && !self.connections.contains(&connection) {
                self.note(&hop);
                give(hop);
                continue;
            }
            if let Topic::Id(id) = hop.topic {
                self.topics.insert(id);
            }
            self.connections.insert(connection);
            self.hops.push_back((connection, since_ns, hop));
        }
    }

    fn note(&mut self, hop: &Hop) {
        if matches!(hop.topic, Topic::Id(_)) {
            self.unnamed = self.unnamed.saturating_add(1);
        }
    }
}

/// A hop's topic as it is shown: its name, or its id in the name's place.
pub fn shown(topic: &Topic) -> Arc<TopicName> {
    match topic {
        Topic::Named(name) => Arc::clone(name),
        Topic::Id(id) => Topics::unnamed(*id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::samples;

    fn hop(topic: Topic, offset: i64) -> Hop {
        let mut hop = Hop { topic, ..samples::sent() };
        hop.passage.offset = Some(offset);
        hop
    }

    fn released(waiting: &mut Waiting, named: &[u128], now_ns: Option<u64>) -> Vec<(i64, bool)> {
        let mut out = vec![];
        let mut topics = Topics::default();
        let name = |id| named.contains(&id).then(|| topics.named("payments"));
        waiting.release(name, now_ns, |hop| {
            out.push((hop.passage.offset.unwrap(), matches!(hop.topic, Topic::Named(_))));
        });
        out
    }

    #[test]
    fn a_connections_hops_stay_in_order() {
        let (mut waiting, mut topics) = (Waiting::default(), Topics::default());
        let (one, two) = (ConnectionId(1), ConnectionId(2));
        let named = Topic::Named(topics.named("orders"));
        assert!(waiting.pass(one, 0, hop(named.clone(), 1)).is_some());
        assert!(waiting.pass(one, 0, hop(Topic::Id(7), 2)).is_none());
        assert!(waiting.pass(one, 0, hop(named.clone(), 3)).is_none(), "behind the one that waits");
        assert!(waiting.pass(two, 0, hop(named, 4)).is_some(), "another connection");
        assert_eq!(waiting.topics().collect::<Vec<_>>(), [7]);
        assert_eq!(released(&mut waiting, &[], Some(5)), []);
        assert_eq!(released(&mut waiting, &[7], Some(5)), [(2, true), (3, true)]);
        assert_eq!(waiting.unnamed(), 0);
    }

    #[test]
    fn nobody_waits_for_ever_and_not_too_many() {
        let mut waiting = Waiting::default();
        assert!(waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), 2)).is_none());
        assert_eq!(released(&mut waiting, &[], Some(PATIENCE_NS)), []);
        assert_eq!(released(&mut waiting, &[], Some(PATIENCE_NS + 1)), [(2, false)]);
        for offset in 0..MAX_HOPS {
            assert!(waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), offset as i64)).is_none());
        }
        let oldest = waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), -1)).unwrap();
        assert_eq!(oldest.passage.offset, Some(0));
        assert_eq!(released(&mut waiting, &[], None).len(), MAX_HOPS);
    }
}
