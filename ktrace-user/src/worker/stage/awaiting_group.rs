//! The first messages of a consumer, where several rings are read: what says for whom it reads, as
//! the assignment of its member, may lie in a ring that is read a little later.
//!
//! A connection whose reader is unknown at its first messages holds them for a moment, once in its
//! life. All runs of the connection are due together, so its later messages do not overtake them.
//! With one ring all is read in order, and nothing waits.

use std::collections::HashMap;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::pending::{Pending, is_over};
use super::{Next, Scope, Stage, When};
use crate::hop::groups::{Client, FetchFrom, Line, Reader, TopicPartition};
use crate::hop::{Hop, Parties, Topic, TopicName};
use crate::seen::ConnectionId;
use crate::worker::deliveries::{self, Log, Run, progress_of};
use crate::worker::world::World;

/// Rings are read 0.1 s apart at most. Commits, which need these messages, wait for longer
/// ([`LATE_NS`](crate::hop::deadline::LATE_NS)).
const PATIENCE_NS: u64 = 150_000_000;

/// Hops that wait, and stretches of offsets.
pub(in crate::worker) const MAX_HOPS: usize = 64 << 10;

/// A run that is longer waits in parts: whoever sends an exchange decides how long it is.
const MAX_PART: usize = 1024;

/// Since when the first messages of a connection wait, or why they do not.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct FirstMessages(Option<Wait>);

#[derive(Clone, Copy, Debug)]
enum Wait {
    Since(u64),
    /// Its reader was known from the start.
    Needless,
}

impl FirstMessages {
    /// Messages of the connection come, read for this reader as far as is known. Returns since when
    /// they wait, if they do.
    pub fn come(&mut self, reader: &Reader, now_ns: u64) -> Option<u64> {
        let wait = *self.0.get_or_insert(match reader {
            Reader::Unknown => Wait::Since(now_ns),
            _ => Wait::Needless,
        });
        match wait {
            // Runs that are due have been released before this segment, so it does not overtake
            // them.
            Wait::Since(since_ns) if !is_over(since_ns, PATIENCE_NS, now_ns) => Some(since_ns),
            Wait::Since(_) | Wait::Needless => None,
        }
    }
}

/// Messages of a partition one behind the other, whose reader is unknown.
#[derive(Clone)]
pub(in crate::worker) struct LateRun {
    pub client: Client,
    pub line: Line,
    pub cluster: Option<Arc<str>>,
    pub topic: Topic,
    pub partition: i32,
    pub log: Log,
    /// When the client asked for them.
    pub asked_ns: u64,
    /// Since when it waits.
    pub since_ns: u64,
    /// Offsets that have passed, in their order.
    pub ranges: Vec<Range<i64>>,
    /// Of them, those of ktrace's own telemetry.
    pub own: Vec<Range<i64>>,
    pub hops: Vec<Hop>,
}

impl LateRun {
    /// A record of this offset passes, whether it is shown or not.
    pub fn deliver(&mut self, offset: i64) {
        match self.ranges.last_mut() {
            Some(last) if offset >= last.end => last.end = offset.saturating_add(1),
            Some(_) => self.ranges.push(offset..offset.saturating_add(1)),
            None => {
                let fetched = self.log.fetch_offset;
                let from = if fetched < 0 { offset } else { offset.min(fetched) };
                self.ranges.push(from..offset.saturating_add(1));
            }
        }
    }

    /// The record that has just passed carries ktrace's own telemetry.
    pub fn deliver_own(&mut self, offset: i64) {
        match self.own.last_mut() {
            Some(last) if last.end == offset => last.end = offset.saturating_add(1),
            _ => self.own.push(offset..offset.saturating_add(1)),
        }
    }

    fn size(&self) -> usize {
        self.hops.len().saturating_add(self.ranges.len()).saturating_add(self.own.len())
    }

    /// What is there already, if it is enough to wait on its own; the rest goes on behind it.
    pub fn part(&mut self) -> Option<Self> {
        (self.size() >= MAX_PART).then(|| self.split())
    }

    /// What is there already, if there are hops in it.
    pub fn part_with_hops(&mut self) -> Option<Self> {
        (!self.hops.is_empty()).then(|| self.split())
    }

    fn split(&mut self) -> Self {
        let end = self.ranges.last().map(|last| last.end..last.end);
        let (hops, ranges) = (mem::take(&mut self.hops), mem::take(&mut self.ranges));
        let own = mem::take(&mut self.own);
        self.ranges.extend(end);
        Self { hops, ranges, own, ..self.clone() }
    }

    /// The name of its topic may have become known.
    fn learn(&mut self, world: &mut World) {
        if let Topic::Id(id) = self.topic
            && let Some(name) = world.name_of(id)
        {
            self.named(&name);
        }
    }

    fn named(&mut self, name: &Arc<TopicName>) {
        self.topic = Topic::Named(Arc::clone(name));
        for hop in &mut self.hops {
            hop.topic = Topic::Named(Arc::clone(name));
        }
    }

    /// Finds out for whom the messages were, and how often they were delivered.
    fn settle(mut self, world: &mut World) -> Vec<Hop> {
        self.learn(world);
        let name = match &self.topic {
            Topic::Named(topic) => Some(&*topic.name),
            Topic::Id(_) => None,
        };
        let at = TopicPartition { id: self.log.id, name, partition: self.partition };
        let asked = FetchFrom { at, ns: self.asked_ns, offset: self.log.fetch_offset };
        let reader = deliveries::reader(&world.shared, &self.client, self.line, asked);
        let Some(progress) =
            progress_of(&world.shared, self.cluster.take(), &reader, &self.topic, self.partition)
        else {
            return self.hops;
        };
        name_reader(&mut self.hops, &reader);
        let client_id = self.hops.first().and_then(|hop| hop.parties.client_id.clone());
        let mut run = Run::begin(progress, self.log);
        // What has no offset, or the last that there can be, stands in no range.
        let mut hops = self.hops.iter_mut().peekable();
        for range in self.ranges {
            run.deliver_late(range, &mut hops);
        }
        for range in self.own {
            run.deliver_late_own(range);
        }
        run.end(&self.topic, client_id.as_deref(), &world.shared);
        self.hops
    }
}

fn name_reader(hops: &mut [Hop], reader: &Reader) {
    let mut last: Option<(Arc<Parties>, Arc<Parties>)> = None;
    for hop in hops {
        hop.parties = match &last {
            Some((of, named)) if Arc::ptr_eq(of, &hop.parties) => Arc::clone(named),
            _ => {
                let named = Arc::new(Parties { reader: reader.clone(), ..(*hop.parties).clone() });
                last = Some((Arc::clone(&hop.parties), Arc::clone(&named)));
                named
            }
        };
    }
}

/// The runs of one connection.
struct Waiting {
    since_ns: u64,
    runs: Vec<LateRun>,
    /// The connection has ended.
    has_hung_up: bool,
}

/// Runs of messages whose reader is unknown, by connection.
pub(in crate::worker) struct AwaitingGroup {
    /// Connections in the order in which they are due.
    queue: Pending<u64>,
    by_connection: HashMap<ConnectionId, Waiting>,
    /// Hops and stretches of all runs.
    size: usize,
}

impl Default for AwaitingGroup {
    fn default() -> Self {
        Self { queue: Pending::new(Self::PATIENCE_NS, Self::BOUND), by_connection: HashMap::new(), size: 0 }
    }
}

impl AwaitingGroup {
    /// Holds a run. Returns whether there are too many.
    pub fn push(&mut self, connection: ConnectionId, run: LateRun) -> bool {
        self.size = self.size.saturating_add(run.size());
        let since_ns = run.since_ns;
        let waiting = self.by_connection.entry(connection).or_insert_with(|| {
            self.queue.push(connection, since_ns, since_ns);
            Waiting { since_ns, runs: vec![], has_hung_up: false }
        });
        waiting.runs.push(run);
        self.is_full()
    }

    /// Since when runs of the connection wait, if any do: its later messages do not go before them,
    /// whatever the clock says meanwhile.
    pub fn since_of(&self, connection: ConnectionId) -> Option<u64> {
        if self.by_connection.is_empty() {
            return None;
        }
        self.by_connection.get(&connection).map(|waiting| waiting.since_ns)
    }

    fn is_full(&self) -> bool {
        self.size > MAX_HOPS
    }

    /// All that waits of a connection.
    fn release_of(&mut self, connection: ConnectionId, world: &mut World, next: &mut impl Next) {
        let Some(waiting) = self.by_connection.remove(&connection) else { return };
        let sizes = waiting.runs.iter().map(LateRun::size);
        self.size = self.size.saturating_sub(sizes.sum());
        for run in waiting.runs {
            for hop in run.settle(world) {
                next.push(connection, hop, world);
            }
        }
        if waiting.has_hung_up {
            let now_ns = world.now_ns;
            world.shared.groups.update(|groups| groups.gone(connection, now_ns));
        }
    }
}

impl Stage for AwaitingGroup {
    const NAME: &'static str = "awaiting_group";
    const PATIENCE_NS: u64 = PATIENCE_NS;
    const BOUND: usize = MAX_HOPS;

    fn amend(&mut self, scope: Scope<'_>, change: &mut dyn FnMut(&mut Hop), world: &mut World) {
        let Some(waiting) = self.by_connection.get_mut(&scope.connection) else { return };
        for run in &mut waiting.runs {
            // Later exchanges of the connection go by the name.
            run.learn(world);
            run.hops.iter_mut().for_each(&mut *change);
        }
    }

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        match when {
            When::News(_) | When::Amended(_) => return,
            When::Full if !self.is_full() => return,
            When::Full => {
                // Of what is not sampled there are no hops.
                let runs = self.by_connection.values().flat_map(|waiting| &waiting.runs);
                self.queue.count_early(runs.map(|run| run.hops.len() as u64).sum());
            }
            When::Due(_) | When::Sweep(_) | When::Shed | When::Ending | When::End => {}
        }
        while let Some((connection, since_ns)) = self.queue.pop_due(when.now_ns()) {
            // Its runs may have been released as it was forgotten, and others of the same socket
            // may have come.
            if self.by_connection.get(&connection).is_some_and(|waiting| waiting.since_ns == since_ns) {
                self.release_of(connection, world, next);
            }
        }
    }

    fn hung_up(&mut self, connection: ConnectionId) -> bool {
        let waiting = self.by_connection.get_mut(&connection);
        waiting.map(|waiting| waiting.has_hung_up = true).is_some()
    }

    /// Before it is forgotten for whom the connection reads: later that would be learnt anew.
    fn connection_over(&mut self, connection: ConnectionId, world: &mut World, next: &mut impl Next) {
        self.release_of(connection, world, next);
    }

    fn len(&self) -> usize {
        self.size
    }

    fn take_early(&mut self) -> u64 {
        self.queue.take_early()
    }
}
