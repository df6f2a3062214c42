//! Hops that cannot be shown yet wait here, for a bounded time: for their topic's name, for the end of their transaction, for
//! another attempt to send them, for the response to who may have sent them.
//!
//! What comes later on the same connection waits behind them, so that a connection's spans stay in order; but for what is sent
//! again: a broker may be away for long, and what others send meanwhile is not to wait for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::deadline::is_over;
use super::topics::Topics;
use super::{Hop, Topic, TopicName};
use crate::seen::ConnectionId;

/// How long is waited.
const PATIENCE_NS: u64 = 10_000_000_000;

/// How long for another attempt. Brokers are started anew in less, most often; and who looks for errors does not look for them
/// minutes later.
const ATTEMPT_NS: u64 = 30_000_000_000;

/// How often failed attempts are looked through.
const LOOK_NS: u64 = 50_000_000;

/// How often hops are looked through because of requests that were answered: producers are answered all the time.
pub const NEWS_NS: u64 = 5_000_000;

/// Hops that wait at once; past it the oldest of the connection goes out as it is.
const MAX_HOPS: usize = 128 << 10;

/// What a look at a hop finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Wait,
    /// Another hop tells of it.
    Drop,
}

struct Held {
    since_ns: u64,
    hop: Hop,
    /// The topic by whose id it was named when it came.
    id: Option<u128>,
}

/// Hops of one connection, in order.
#[derive(Default)]
struct Queue {
    held: VecDeque<Held>,
    /// Partitions of hops one behind the other, and how many these are: what is told of one partition skips the others.
    runs: VecDeque<(i32, usize)>,
}

impl Queue {
    fn push(&mut self, held: Held) {
        let partition = held.hop.passage.partition;
        match self.runs.back_mut() {
            Some((of, len)) if *of == partition => *len = len.saturating_add(1),
            _ => self.runs.push_back((partition, 1)),
        }
        self.held.push_back(held);
    }

    fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        if let Some((_, len)) = self.runs.front_mut() {
            *len = len.saturating_sub(1);
            if *len == 0 {
                self.runs.pop_front();
            }
        }
        Some(held)
    }
}

/// See the module.
#[derive(Default)]
pub struct Waiting {
    /// In order, so that a capture file is told the same each time.
    connections: BTreeMap<ConnectionId, Queue>,
    /// Failed attempts, in the order in which they came.
    attempts: VecDeque<Held>,
    /// When they were looked through.
    looked_ns: u64,
    /// When all others were.
    released_ns: u64,
    len: usize,
    /// Topics that are waited for, and by how many.
    topics: HashMap<u128, usize>,
    unnamed: u64,
    /// Hops that went out before it was time, to make room.
    early: u64,
}

impl Waiting {
    /// Hops that went out with an id in place of the name, because it never came.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Hops that had to make room since this was asked last.
    pub fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }

    /// Whether hops were not looked through just now.
    #[must_use]
    pub fn is_due(&self, now_ns: u64) -> bool {
        is_over(self.released_ns, NEWS_NS, now_ns)
    }

    /// Hops that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether what comes on this connection waits behind others.
    #[must_use]
    pub fn holds(&self, connection: ConnectionId) -> bool {
        self.len > 0 && self.connections.contains_key(&connection)
    }

    /// The topics whose names are waited for.
    pub fn topics(&self) -> impl Iterator<Item = u128> {
        self.topics.keys().copied()
    }

    /// Takes a hop of this connection, and gives the one that may go: this one if it need not wait, or the oldest if too many wait.
    pub fn pass(&mut self, connection: ConnectionId, now_ns: u64, hop: Hop) -> Option<Hop> {
        let waits = hop.waits();
        let is_attempt = hop.may_be_sent_again();
        if !waits && !self.holds(connection) {
            return Some(hop);
        }
        let id = match hop.topic {
            Topic::Named(_) => None,
            Topic::Id(id) => Some(id),
        };
        if let Some(id) = id {
            let count = self.topics.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        let held = Held { since_ns: now_ns, hop, id };
        self.len = self.len.saturating_add(1);
        let is_over = self.len > MAX_HOPS;
        let oldest = if is_attempt {
            self.attempts.push_back(held);
            if is_over { self.attempts.pop_front() } else { None }
        } else {
            let queue = self.connections.entry(connection).or_default();
            queue.push(held);
            if is_over { queue.pop() } else { None }
        };
        let hop = self.let_go(oldest?);
        self.early = self.early.saturating_add(1);
        self.note(&hop);
        Some(hop)
    }

    /// Tells the hops of a connection something, those of certain partitions.
    pub fn tell(
        &mut self,
        connection: ConnectionId,
        is_among: impl Fn(i32) -> bool,
        mut tell: impl FnMut(&mut Hop),
    ) {
        let Some(Queue { held, runs }) = self.connections.get_mut(&connection) else { return };
        let mut at = 0_usize;
        for (partition, len) in runs {
            if is_among(*partition) {
                held.iter_mut().skip(at).take(*len).for_each(|held| tell(&mut held.hop));
            }
            at = at.saturating_add(*len);
        }
    }

    /// Gives the hops that need not wait any more, in order: all of them where `now_ns` is `None`.
    pub fn release(
        &mut self,
        mut judge: impl FnMut(&mut Hop) -> Verdict,
        now_ns: Option<u64>,
        mut give: impl FnMut(Hop),
    ) {
        if self.is_empty() {
            return;
        }
        // There may be many, and news of them with every record: not for each of these.
        let due = now_ns.is_none_or(|now| is_over(self.looked_ns, LOOK_NS, now));
        self.released_ns = now_ns.unwrap_or(0);
        let attempts = if due { std::mem::take(&mut self.attempts) } else { VecDeque::new() };
        if due {
            self.looked_ns = now_ns.unwrap_or(0);
        }
        for mut held in attempts {
            let over = now_ns.is_none_or(|now| is_over(held.since_ns, ATTEMPT_NS, now));
            match judge(&mut held.hop) {
                Verdict::Drop => drop(self.let_go(held)),
                _ if over => {
                    let hop = self.let_go(held);
                    self.note(&hop);
                    give(hop);
                }
                _ => self.attempts.push_back(held),
            }
        }
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain(|_, queue| {
            while let Some(first) = queue.held.front_mut() {
                let verdict = judge(&mut first.hop);
                let over = now_ns.is_none_or(|now| is_over(first.since_ns, PATIENCE_NS, now));
                if verdict == Verdict::Wait && !over {
                    break;
                }
                let Some(held) = queue.pop() else { break };
                let hop = self.let_go(held);
                if verdict != Verdict::Drop {
                    self.note(&hop);
                    give(hop);
                }
            }
            !queue.held.is_empty()
        });
        self.connections = connections;
    }

    fn let_go(&mut self, Held { hop, id, .. }: Held) -> Hop {
        self.len = self.len.saturating_sub(1);
        if let Some(id) = id
            && let Some(count) = self.topics.get_mut(&id)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.topics.remove(&id);
            }
        }
        hop
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
    use crate::hop::{Kind, samples};

    fn hop(topic: Topic, offset: i64) -> Hop {
        let mut hop = Hop { topic, ..samples::sent() };
        hop.passage.offset = Some(offset);
        hop
    }

    /// It may be sent again.
    fn failed(offset: i64) -> Hop {
        let producer = crate::hop::transactions::Producer { cluster: None, id: 1 };
        let message = crate::hop::attempts::Message::numbered(&producer, 2, 3, "orders", 0);
        let mut hop = hop(samples::sent().topic, offset);
        hop.passage.kind =
            Kind::Produced { acks: -1, attempt: 1, pending: Some(message.into()), throttle_ms: 0 };
        hop
    }

    fn released(waiting: &mut Waiting, named: &[u128], now_ns: Option<u64>) -> Vec<(i64, bool)> {
        let mut out = vec![];
        let mut topics = Topics::default();
        let judge = |hop: &mut Hop| {
            if hop.passage.offset == Some(99) {
                return Verdict::Drop;
            }
            if let Topic::Id(id) = hop.topic
                && named.contains(&id)
            {
                hop.topic = Topic::Named(topics.named("payments"));
            }
            if hop.waits() { Verdict::Wait } else { Verdict::Go }
        };
        waiting.release(judge, now_ns, |hop| {
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
        assert!(waiting.pass(one, 0, hop(named.clone(), 99)).is_none());
        assert!(waiting.pass(two, 0, hop(named, 4)).is_some(), "another connection");
        assert_eq!(waiting.topics().collect::<Vec<_>>(), [7]);
        assert_eq!(released(&mut waiting, &[], Some(5)), []);
        assert_eq!(released(&mut waiting, &[7], Some(5)), [(2, true), (3, true)]);
        assert_eq!((waiting.unnamed(), waiting.len(), waiting.topics().count()), (0, 0, 0));
    }

    #[test]
    fn what_is_told_of_partitions_is_told_to_no_others() {
        let mut waiting = Waiting::default();
        for (offset, partition) in [(0, 1), (1, 1), (2, 7), (3, 1), (4, 7), (5, 7)] {
            let mut hop = hop(Topic::Id(7), offset);
            hop.passage.partition = partition;
            assert!(waiting.pass(ConnectionId(1), offset as u64, hop).is_none());
        }
        let told = |waiting: &mut Waiting, partition| {
            let mut offsets = vec![];
            waiting.tell(ConnectionId(1), |of| of == partition, |hop| offsets.extend(hop.passage.offset));
            offsets
        };
        assert_eq!([told(&mut waiting, 7), told(&mut waiting, 1)], [[2, 4, 5], [0, 1, 3]]);
        // The first has gone.
        assert_eq!(released(&mut waiting, &[], Some(PATIENCE_NS)), [(0, false)]);
        assert_eq!(told(&mut waiting, 7), [2, 4, 5]);
        assert_eq!(told(&mut waiting, 1), [1, 3]);
        assert!(told(&mut waiting, 2).is_empty());
    }

    #[test]
    fn nobody_waits_for_what_is_sent_again() {
        let mut waiting = Waiting::default();
        assert!(waiting.pass(ConnectionId(1), 0, failed(1)).is_none());
        assert!(waiting.pass(ConnectionId(1), 0, hop(samples::sent().topic, 2)).is_some());
        assert_eq!(released(&mut waiting, &[], Some(ATTEMPT_NS - 1)), []);
        assert_eq!(released(&mut waiting, &[], Some(ATTEMPT_NS - 1 + LOOK_NS)), [(1, true)]);
        assert!(waiting.is_empty());
    }

    /// Times are those of a wall clock: one that is set by a time server, or by somebody.
    #[test]
    fn nobody_waits_until_a_clock_that_was_set_back_is_there_again() {
        let from_ns = 3_600_000_000_000;
        let all = vec![(1, true), (2, false), (3, true)];
        for (back_ns, over) in [
            (2_000_000_000, vec![]),
            (PATIENCE_NS, all[1..].to_vec()),
            (ATTEMPT_NS, all.clone()),
            (from_ns, all),
        ] {
            let mut waiting = Waiting::default();
            assert!(waiting.pass(ConnectionId(1), from_ns, hop(Topic::Id(7), 2)).is_none());
            assert!(waiting.pass(ConnectionId(1), from_ns, hop(samples::sent().topic, 3)).is_none());
            assert!(waiting.pass(ConnectionId(2), from_ns, failed(1)).is_none());
            assert_eq!(released(&mut waiting, &[], Some(from_ns)), []);
            assert_eq!(released(&mut waiting, &[], Some(from_ns - back_ns)), over, "{back_ns}");
            released(&mut waiting, &[], Some(from_ns - back_ns + 2 * ATTEMPT_NS));
            assert!(waiting.is_empty(), "{back_ns}");
        }
    }

    #[test]
    fn nobody_waits_for_ever_and_not_too_many() {
        let mut waiting = Waiting::default();
        assert!(waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), 2)).is_none());
        assert_eq!(released(&mut waiting, &[], Some(PATIENCE_NS - 1)), []);
        assert_eq!(released(&mut waiting, &[], Some(PATIENCE_NS)), [(2, false)]);
        for offset in 0..MAX_HOPS {
            assert!(waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), 100 + offset as i64)).is_none());
        }
        let oldest = waiting.pass(ConnectionId(1), 0, hop(Topic::Id(7), -1)).unwrap();
        assert_eq!(oldest.passage.offset, Some(100));
        assert_eq!([waiting.take_early(), waiting.take_early()], [1, 0]);
        assert_eq!(released(&mut waiting, &[], None).len(), MAX_HOPS);
    }
}
