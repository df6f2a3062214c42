//! The first messages of a consumer, where several rings are read: what tells for whom it reads, as the assignment of its member,
//! may lie in one that is read a little later.
//!
//! A connection whose first messages are nobody's as far as is known is told a little later, when that may have come. It is so
//! once in its life; where there is one ring, all is read in order, and nothing waits.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use ktrace_kafka::Operation;

use super::listener::Listener;
use super::pending_commits::{is_due, last_due_ns};
use super::shared::Shared;
use super::told::Told;
use crate::hop::groups::{Client, FetchFrom, Line, Reader, TopicPartition};
use crate::hop::progress::{self, Before, Open, ProgressKey};
use crate::hop::{Hop, Parties, Topic, TopicName, shown};
use crate::seen::ConnectionId;

/// For so long: rings are read 0.1 s apart at most. Commits wait for longer.
const LATE_NS: u64 = 150_000_000;

/// Hops of a worker that wait so, and stretches of offsets; past it all go out at once.
pub(super) const MAX_HOPS: usize = 64 << 10;

/// So many of a run at most are told together: who sends an exchange decides how long it is.
const MAX_PART: usize = 1024;

/// Messages of a partition one behind the other.
#[derive(Clone)]
pub(super) struct LateRun {
    connection: ConnectionId,
    due_ns: u64,
    client: Client,
    line: Line,
    cluster: Option<Arc<str>>,
    topic: Topic,
    id: Option<u128>,
    partition: i32,
    asked_ns: u64,
    fetch_offset: i64,
    high_watermark: i64,
    /// Offsets that have passed, in their order.
    ranges: Vec<Range<i64>>,
    /// Of them, those of ktrace's own telemetry.
    own: Vec<Range<i64>>,
    hops: Vec<Hop>,
}

/// When a run is due, its connection, and which of all runs it is.
type Key = (u64, ConnectionId, u64);

/// Those of one worker. All of a connection are due at once, so who comes later may be due before.
#[derive(Default)]
pub(super) struct LateRuns {
    queue: BTreeMap<Key, LateRun>,
    /// Runs that there were.
    count: u64,
    size: usize,
    /// Connections of such runs that are over.
    over: HashSet<ConnectionId>,
}

impl LateRuns {
    /// Hops that wait, and stretches of offsets.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Tells the hops of a connection, whose runs are due then, something.
    pub fn tell(&mut self, connection: ConnectionId, due_ns: Option<u64>, mut tell: impl FnMut(&mut Hop)) {
        let Some(due_ns) = due_ns else { return };
        for (_, run) in self.queue.range_mut(of(connection, due_ns)) {
            run.hops.iter_mut().for_each(&mut tell);
        }
    }

    /// Names of topics may have come, by which later exchanges of the connection go.
    pub fn learn(
        &mut self,
        connection: ConnectionId,
        due_ns: Option<u64>,
        mut name: impl FnMut(u128) -> Option<Arc<TopicName>>,
    ) {
        let Some(due_ns) = due_ns else { return };
        for (_, run) in self.queue.range_mut(of(connection, due_ns)) {
            if let Topic::Id(id) = run.topic {
                run.named(name(id));
            }
        }
    }

    fn next_of(&self, connection: ConnectionId, due_ns: u64) -> Option<Key> {
        self.queue.range(of(connection, due_ns)).next().map(|(key, _)| *key)
    }

    /// The connection is over. Returns whether that is to be told when its runs are, as some wait.
    pub fn is_over(&mut self, connection: ConnectionId, due_ns: Option<u64>) -> bool {
        let waits = due_ns.is_some_and(|due_ns| self.next_of(connection, due_ns).is_some());
        if waits {
            self.over.insert(connection);
        }
        waits
    }

    fn push(&mut self, run: LateRun) {
        self.size = self.size.saturating_add(run.size());
        self.count = self.count.saturating_add(1);
        self.queue.insert((run.due_ns, run.connection, self.count), run);
    }

    fn remove(&mut self, key: Key) -> Option<LateRun> {
        let run = self.queue.remove(&key)?;
        self.size = self.size.saturating_sub(run.size());
        Some(run)
    }

    /// The next that is due. Where a clock was set back, it may be behind others that are not.
    fn due(&self, now_ns: Option<u64>) -> Option<Key> {
        let (first, _) = self.queue.first_key_value()?;
        let Some(now_ns) = now_ns else { return Some(*first) };
        if is_due(first.0, now_ns, LATE_NS) {
            return Some(*first);
        }
        let behind_ns = last_due_ns(now_ns, LATE_NS).saturating_add(1);
        self.queue.range((behind_ns, ConnectionId(0), 0)..).next().map(|(key, _)| *key)
    }
}

/// All runs of a connection.
fn of(connection: ConnectionId, due_ns: u64) -> RangeInclusive<Key> {
    (due_ns, connection, 0)..=(due_ns, connection, u64::MAX)
}

impl LateRun {
    /// A record of this offset passes, whether it is shown or not.
    pub fn pass(&mut self, offset: i64) {
        match self.ranges.last_mut() {
            Some(last) if offset >= last.end => last.end = offset.saturating_add(1),
            Some(_) => self.ranges.push(offset..offset.saturating_add(1)),
            None => {
                let from = if self.fetch_offset < 0 { offset } else { offset.min(self.fetch_offset) };
                self.ranges.push(from..offset.saturating_add(1));
            }
        }
    }

    /// The record that has just passed carries ktrace's own telemetry.
    pub fn own(&mut self, offset: i64) {
        match self.own.last_mut() {
            Some(last) if last.end == offset => last.end = offset.saturating_add(1),
            _ => self.own.push(offset..offset.saturating_add(1)),
        }
    }

    pub fn take(&mut self, hop: Hop) {
        self.hops.push(hop);
    }

    fn size(&self) -> usize {
        self.hops.len().saturating_add(self.ranges.len()).saturating_add(self.own.len())
    }

    /// What is there already, if it is enough to be told; the rest goes on behind it.
    pub fn part(&mut self) -> Option<Self> {
        (self.size() >= MAX_PART).then(|| self.split())
    }

    fn split(&mut self) -> Self {
        let end = self.ranges.last().map(|last| last.end..last.end);
        let (hops, ranges) = (mem::take(&mut self.hops), mem::take(&mut self.ranges));
        let own = mem::take(&mut self.own);
        self.ranges.extend(end);
        Self { hops, ranges, own, ..self.clone() }
    }

    /// The name of its topic may have come meanwhile.
    fn named(&mut self, name: Option<Arc<TopicName>>) {
        let Some(name) = name else { return };
        self.topic = Topic::Named(Arc::clone(&name));
        for hop in &mut self.hops {
            hop.topic = Topic::Named(Arc::clone(&name));
        }
    }

    /// Finds out for whom it was, and how often it was delivered.
    fn settle(mut self, shared: &Shared) -> (ConnectionId, Vec<Hop>) {
        let name = match &self.topic {
            Topic::Named(topic) => Some(&*topic.name),
            Topic::Id(_) => None,
        };
        let at = TopicPartition { id: self.id, name, partition: self.partition };
        let asked = FetchFrom { at, ns: self.asked_ns, offset: self.fetch_offset };
        let mut reader = Reader::Unknown;
        shared.groups.update(|groups| {
            let (found, news) = groups.reader(&self.client, self.line, asked);
            reader = found;
            news
        });
        let Some(group) = reader.group().map(Arc::clone) else { return (self.connection, self.hops) };
        let topic = Arc::clone(&shown(&self.topic).name);
        let place = ProgressKey { cluster: self.cluster.take(), group, topic, partition: self.partition };
        let progress = shared.progress.of(&place);
        let (mut known, mut opened) = (progress::lock(&progress), vec![]);
        match self.id {
            Some(id) => known.log_is(id),
            None if self.high_watermark >= 0 => known.log_ends(self.high_watermark),
            None => {}
        }
        let mut parties: Option<(Arc<Parties>, Arc<Parties>)> = None;
        for hop in &mut self.hops {
            hop.parties = match &parties {
                Some((of, named)) if Arc::ptr_eq(of, &hop.parties) => Arc::clone(named),
                _ => {
                    let named = Arc::new(Parties { reader: reader.clone(), ..(*hop.parties).clone() });
                    parties = Some((Arc::clone(&hop.parties), Arc::clone(&named)));
                    named
                }
            };
        }
        // What has no offset, or one that is hardly one, stands in no range.
        let mut hops = self.hops.iter_mut().peekable();
        for range in self.ranges {
            let mut before = Before { times: 0, is_behind: false, until: i64::MIN };
            while let Some(hop) = hops.next_if(|hop| hop.passage.offset.is_some_and(|at| range.contains(&at)))
            {
                let offset = hop.passage.offset.unwrap_or_default();
                if offset >= before.until {
                    before = known.before(offset);
                }
                hop.passage.counts(before);
                if let Topic::Named(topic) = &hop.topic {
                    let span_id = hop.passage.span_id(&hop.parties, topic);
                    opened.push(Open { offset, trace_id: hop.passage.trace_id(), span_id });
                }
            }
            known.deliver(range);
        }
        for range in self.own {
            known.deliver_own(range);
        }
        shared.progress.wait(&mut known, &mut opened);
        (self.connection, self.hops)
    }
}

impl Listener<'_> {
    /// The run that begins, if it is to be told later: where `reader` is all that is known of who reads.
    pub(super) fn late_run(
        &mut self,
        (topic, id): (&Topic, Option<u128>),
        partition: &ktrace_kafka::Partition<'_>,
        asked_ns: u64,
        reader: &Reader,
    ) -> Option<Box<LateRun>> {
        let Operation::Fetch { fetch_offset, high_watermark, .. } = partition.operation else { return None };
        if !self.told.shared.is_read_by_several() || self.peer.search.is_superfluous() {
            return None;
        }
        let now_ns = self.told.now_ns;
        let due_ns = *self.peer.late_until_ns.get_or_insert(match reader {
            Reader::Unknown => now_ns.saturating_add(LATE_NS),
            _ => 0,
        });
        // Its runs that are due have been told, as those of all: it does not overtake them.
        if is_due(due_ns, now_ns, LATE_NS) {
            return None;
        }
        Some(Box::new(LateRun {
            connection: self.id,
            due_ns,
            client: self.peer.speaker().clone(),
            line: self.peer.line(self.id),
            cluster: self.peer.cluster(&self.told.shared),
            topic: topic.clone(),
            id,
            partition: partition.index,
            asked_ns,
            fetch_offset,
            high_watermark,
            ranges: vec![],
            own: vec![],
            hops: vec![],
        }))
    }
}

impl Listener<'_> {
    /// Something comes that is to be told to all messages before it.
    pub(super) fn wait_with_others(&mut self) {
        let late = self.peer.at.as_mut().and_then(|at| at.late.as_mut());
        if let Some(late) = late.filter(|late| !late.hops.is_empty()) {
            self.told.wait_for_reader(late.split());
        }
    }
}

impl Told {
    pub(super) fn wait_for_reader(&mut self, run: LateRun) {
        // Of what is not sampled there are no hops.
        self.late_runs.push(run);
        if self.late_runs.size > MAX_HOPS {
            let hops = self.late_runs.queue.values().map(|run| run.hops.len() as u64).sum();
            self.own_losses.shown_early = self.own_losses.shown_early.saturating_add(hops);
            self.give_late_runs(None);
        }
    }

    /// Tells those that have waited long enough, or all.
    pub(super) fn give_late_runs(&mut self, now_ns: Option<u64>) {
        while let Some(key) = self.late_runs.due(now_ns) {
            self.give_late_run(key);
        }
    }

    /// Tells those of a connection that is forgotten, before it is forgotten for whom it reads: later it would be learnt anew.
    pub(super) fn give_late_runs_of(&mut self, connection: ConnectionId, late_until_ns: Option<u64>) {
        let Some(due_ns) = late_until_ns else { return };
        while let Some(key) = self.late_runs.next_of(connection, due_ns) {
            self.give_late_run(key);
        }
    }

    fn give_late_run(&mut self, key: Key) {
        let Some(mut run) = self.late_runs.remove(key) else { return };
        if let Topic::Id(id) = run.topic {
            run.named(self.topics.of(&self.shared.topics, id));
        }
        let (connection, hops) = run.settle(&self.shared);
        for hop in hops {
            self.pass(connection, hop);
        }
        if self.late_runs.next_of(connection, key.0).is_none() && self.late_runs.over.remove(&connection) {
            self.shared.groups.update(|groups| groups.gone(connection, self.now_ns));
        }
    }
}
