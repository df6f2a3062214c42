//! Hops whose topic is known by id alone wait here, for a bounded time, until Metadata tells its name.
//!
//! What comes later on the same connection waits behind them, so that a connection's spans stay in order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::topics::Topics;
use super::{Hop, Topic};
use crate::capture::ConnectionId;

/// How long a name is waited for.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Hops that wait at once; more go out unnamed.
const MAX_HOPS: usize = 64 << 10;

/// See the module.
#[derive(Default)]
pub struct Waiting {
    hops: VecDeque<(ConnectionId, u64, Hop)>,
    connections: HashSet<ConnectionId>,
    /// Hops that went out with an id in place of the name.
    unnamed: u64,
}

impl Waiting {
    /// Hops that went out with an id in place of the name, because it never came.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Takes a hop of this connection; gives it back if it need not wait.
    pub fn pass(&mut self, connection: ConnectionId, now_ns: u64, hop: Hop) -> Option<Hop> {
        let named = matches!(hop.topic, Topic::Named(_));
        if named && !self.connections.contains(&connection) {
            return Some(hop);
        }
        self.connections.insert(connection);
        self.hops.push_back((connection, now_ns, hop));
        None
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// Gives the hops that need not wait any more, in order: all of them where `now_ns` is `None`.
    pub fn release(&mut self, topics: &Topics, now_ns: Option<u64>, mut give: impl FnMut(Hop)) {
        self.connections.clear();
        for _ in 0..self.hops.len() {
            let Some((connection, since_ns, mut hop)) = self.hops.pop_front() else { return };
            if let Topic::Id(id) = hop.topic {
                if let Some(name) = topics.of(id) {
                    hop.topic = Topic::Named(name);
                } else if now_ns.is_none_or(|now| now.saturating_sub(since_ns) > PATIENCE_NS)
                    || self.hops.len() >= MAX_HOPS
                {
                    self.unnamed = self.unnamed.saturating_add(1);
                    // It goes out as it is.
                    if !self.connections.contains(&connection) {
                        give(hop);
                        continue;
                    }
                }
            }
            let named = matches!(hop.topic, Topic::Named(_));
            if named && !self.connections.contains(&connection) {
                give(hop);
            } else {
                self.connections.insert(connection);
                self.hops.push_back((connection, since_ns, hop));
            }
        }
    }

    /// Whether as many wait as may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.hops.len() > MAX_HOPS
    }
}

/// A hop's topic as it is shown: its name, or its id in the name's place.
pub fn shown(topic: &Topic) -> Arc<super::TopicName> {
    match topic {
        Topic::Named(name) => Arc::clone(name),
        Topic::Id(id) => Topics::unnamed(*id),
    }
}
