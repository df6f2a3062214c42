//! Hops of which something is unknown wait for it, for a bounded time: for their topic's name, for
//! the end of their transaction, for the response to the request that may have sent them.
//!
//! What comes later on the same connection waits behind them, so that a connection's spans stay in
//! order.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::pending::is_over;
use super::{Admit, Next, Scope, Stage, When};
use crate::hop::{Hop, Topic};
use crate::seen::ConnectionId;
use crate::worker::world::{Verdict, World};

/// How long is waited.
const PATIENCE_NS: u64 = 10_000_000_000;

/// How often hops are looked through because of requests that were answered: producers are answered
/// all the time.
pub(in crate::worker) const NEWS_NS: u64 = 5_000_000;

/// Hops that wait at once; over the limit the oldest of the connection goes out as it is.
const MAX_HOPS: usize = 128 << 10;

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
    /// Partitions of hops one behind the other, and how many these are: what concerns one partition
    /// skips the others.
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

    fn amend(&mut self, scope: Scope<'_>, change: &mut dyn FnMut(&mut Hop)) {
        let mut at = 0_usize;
        for (partition, len) in &self.runs {
            if scope.partitions.is_none_or(|partitions| partitions.contains(partition)) {
                self.held.iter_mut().skip(at).take(*len).for_each(|held| change(&mut held.hop));
            }
            at = at.saturating_add(*len);
        }
    }
}

/// How many changes of what all workers know there were when hops were last looked through.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    topics: u64,
    transactions: u64,
    appends: u64,
}

impl Seen {
    fn of(world: &World) -> Self {
        let shared = &world.shared;
        Self {
            topics: shared.topics.version(),
            transactions: shared.transactions.version(),
            appends: shared.appends.version(),
        }
    }
}

/// Hops that wait, by connection.
#[derive(Default)]
pub(in crate::worker) struct AwaitingNews {
    /// In order, so that a capture file gives the same each time.
    connections: BTreeMap<ConnectionId, Queue>,
    len: usize,
    /// Topics whose names are awaited, and by how many hops.
    topics: HashMap<u128, usize>,
    seen: Seen,
    /// When hops were last looked through.
    looked_ns: u64,
    early: u64,
}

impl AwaitingNews {
    /// Whether what comes on this connection waits behind others.
    fn holds(&self, connection: ConnectionId) -> bool {
        self.len > 0 && self.connections.contains_key(&connection)
    }

    /// Whether something that hops wait for may have come, from whichever worker.
    fn has_news(&mut self, now_ns: u64, world: &mut World) -> bool {
        let now = Seen::of(world);
        if self.seen == now {
            return false;
        }
        let are_all_answers = Seen { appends: now.appends, ..self.seen } == now;
        if are_all_answers && !is_over(self.looked_ns, NEWS_NS, now_ns) {
            return false;
        }
        let before = std::mem::replace(&mut self.seen, now);
        if (before.transactions, before.appends) != (now.transactions, now.appends) {
            return self.len > 0;
        }
        self.topics.keys().any(|id| world.name_of(*id).is_some())
    }

    fn look_through(&mut self, now_ns: Option<u64>, world: &mut World, next: &mut impl Next) {
        if self.len == 0 {
            return;
        }
        self.looked_ns = now_ns.unwrap_or(0);
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain(|connection, queue| {
            while let Some(first) = queue.held.front_mut() {
                let verdict = world.judge(&mut first.hop, now_ns);
                let is_over = now_ns.is_none_or(|now_ns| is_over(first.since_ns, PATIENCE_NS, now_ns));
                if verdict == Verdict::Wait && !is_over {
                    break;
                }
                let Some(held) = queue.pop() else { break };
                let hop = self.taken_out(held);
                if verdict != Verdict::Drop {
                    hand_on(*connection, hop, world, next);
                }
            }
            !queue.held.is_empty()
        });
        self.connections = connections;
    }

    /// A hop that leaves the queue, which counts it no more.
    fn taken_out(&mut self, Held { hop, id, .. }: Held) -> Hop {
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
}

fn hand_on(connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
    world.note_unnamed(&hop);
    next.push(connection, hop, world);
}

impl Stage for AwaitingNews {
    const NAME: &'static str = "awaiting_news";
    const PATIENCE_NS: u64 = PATIENCE_NS;
    const BOUND: usize = MAX_HOPS;

    #[inline]
    fn is_clear(&self, connection: ConnectionId) -> bool {
        !self.holds(connection)
    }

    fn admit(&mut self, connection: ConnectionId, hop: &mut Hop, world: &mut World) -> Admit {
        // Another attempt may be long in coming: others do not wait for it.
        if hop.may_be_sent_again() {
            return Admit::Pass;
        }
        // News are not looked for while nothing waits.
        if self.len == 0 {
            self.seen = Seen::of(world);
        }
        let now_ns = Some(world.now_ns);
        if hop.waits() && world.judge(hop, now_ns) == Verdict::Drop {
            return Admit::Drop;
        }
        if hop.waits() || self.holds(connection) { Admit::Wait } else { Admit::Pass }
    }

    fn hold(&mut self, connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
        let id = match hop.topic {
            Topic::Named(_) => None,
            Topic::Id(id) => Some(id),
        };
        if let Some(id) = id {
            let count = self.topics.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        self.len = self.len.saturating_add(1);
        let queue = self.connections.entry(connection).or_default();
        queue.push(Held { since_ns: hop.passage.end_ns, hop, id });
        if self.len > MAX_HOPS
            && let Some(oldest) = queue.pop()
        {
            if queue.held.is_empty() {
                self.connections.remove(&connection);
            }
            let hop = self.taken_out(oldest);
            self.early = self.early.saturating_add(1);
            hand_on(connection, hop, world, next);
        }
    }

    fn amend(&mut self, scope: Scope<'_>, change: &mut dyn FnMut(&mut Hop), _world: &mut World) {
        if let Some(queue) = self.connections.get_mut(&scope.connection) {
            queue.amend(scope, change);
        }
    }

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        match when {
            When::Due(_) | When::Full | When::Ending => {}
            When::News(now_ns) if !self.has_news(now_ns, world) => {}
            When::News(_) | When::Amended(_) | When::Sweep(_) | When::Shed | When::End => {
                self.look_through(when.now_ns(), world, next);
            }
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::hop::samples;
    use crate::losses::Reason;
    use crate::worker::stage::samples::{Out, named, of, world};

    const ONE: ConnectionId = ConnectionId(1);
    const TWO: ConnectionId = ConnectionId(2);

    #[derive(Default)]
    struct Waiting(AwaitingNews, Out);

    impl Waiting {
        /// Whether the hop waits.
        fn holds(&mut self, connection: ConnectionId, hop: Hop, world: &mut World) -> bool {
            self.1.holds(&mut self.0, connection, hop, world)
        }

        /// The offsets of what need not wait any more, and whether their topic has a name.
        fn released(&mut self, when: When, world: &mut World) -> Vec<(i64, bool)> {
            self.0.release(when, world, &mut self.1);
            self.1.take()
        }
    }

    #[test]
    fn a_connections_hops_stay_in_order() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        assert!(!waiting.holds(ONE, named(1), &mut world));
        assert!(waiting.holds(ONE, of(7, 2), &mut world));
        assert!(waiting.holds(ONE, named(3), &mut world), "behind the one that waits");
        assert!(!waiting.holds(TWO, named(4), &mut world), "another connection");
        assert_eq!(waiting.0.topics.keys().collect::<Vec<_>>(), [&7]);
        assert_eq!(waiting.released(When::Sweep(5), &mut world), []);
        let shared = std::sync::Arc::clone(&world.shared);
        world.topics.learn(&shared.topics, 7, "payments");
        assert_eq!(waiting.released(When::News(5), &mut world), [(2, true), (3, true)]);
        let unnamed =
            world.losses.counts(&ktrace_kafka::counters::Counters::default()).get(Reason::TopicUnnamed);
        assert_eq!((unnamed, waiting.0.len(), waiting.0.topics.len()), (0, 0, 0));
    }

    #[test]
    fn partitions_out_of_scope_are_not_amended() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        for (offset, partition) in [(0, 1), (1, 1), (2, 7), (3, 1), (4, 7), (5, 7)] {
            let mut hop = of(7, offset);
            (hop.passage.partition, hop.passage.end_ns) = (partition, offset as u64);
            assert!(waiting.holds(ONE, hop, &mut world));
        }
        let amended = |waiting: &mut Waiting, world: &mut World, partition| {
            let (mut offsets, partitions) = (vec![], HashSet::from([partition]));
            let scope = Scope { connection: ONE, partitions: Some(&partitions) };
            waiting.0.amend(scope, &mut |hop| offsets.extend(hop.passage.offset), world);
            offsets
        };
        assert_eq!(amended(&mut waiting, &mut world, 7), [2, 4, 5]);
        assert_eq!(amended(&mut waiting, &mut world, 1), [0, 1, 3]);
        // The first has gone.
        assert_eq!(waiting.released(When::Sweep(PATIENCE_NS), &mut world), [(0, false)]);
        assert_eq!(amended(&mut waiting, &mut world, 7), [2, 4, 5]);
        assert_eq!(amended(&mut waiting, &mut world, 1), [1, 3]);
        assert!(amended(&mut waiting, &mut world, 2).is_empty());
    }

    /// Times are those of a wall clock: one that is set by a time server, or by hand.
    #[test]
    fn no_hop_waits_for_a_clock_that_was_set_back() {
        let from_ns = 3_600_000_000_000;
        for (back_ns, over) in [
            (2_000_000_000, vec![]),
            (PATIENCE_NS, vec![(2, false), (3, true)]),
            (from_ns, vec![(2, false), (3, true)]),
        ] {
            let (mut waiting, mut world) = (Waiting::default(), world(from_ns));
            for mut hop in [of(7, 2), named(3)] {
                hop.passage.end_ns = from_ns;
                assert!(waiting.holds(ONE, hop, &mut world));
            }
            assert_eq!(waiting.released(When::Sweep(from_ns), &mut world), []);
            assert_eq!(waiting.released(When::Sweep(from_ns - back_ns), &mut world), over, "{back_ns}");
            waiting.released(When::Sweep(from_ns - back_ns + 2 * PATIENCE_NS), &mut world);
            assert_eq!(waiting.0.len(), 0, "{back_ns}");
        }
    }

    #[test]
    fn no_hop_waits_for_ever_and_not_too_many() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        assert!(waiting.holds(ONE, of(7, 2), &mut world));
        assert_eq!(waiting.released(When::Sweep(PATIENCE_NS - 1), &mut world), []);
        assert_eq!(waiting.released(When::Sweep(PATIENCE_NS), &mut world), [(2, false)]);
        for offset in 0..MAX_HOPS {
            assert!(waiting.holds(ONE, of(7, 100 + offset as i64), &mut world));
        }
        waiting.holds(ONE, of(7, -1), &mut world);
        assert_eq!(waiting.1.take(), [(100, false)]);
        assert_eq!([waiting.0.take_early(), waiting.0.take_early()], [1, 0]);
        assert_eq!(waiting.released(When::End, &mut world).len(), MAX_HOPS);
    }

    #[test]
    fn another_attempt_is_not_awaited_here() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        assert!(!waiting.holds(ONE, crate::worker::stage::samples::failed(1), &mut world));
        assert!(!waiting.holds(ONE, samples::sent(), &mut world));
    }
}
