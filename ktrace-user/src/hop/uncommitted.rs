//! Messages that a group was given and has not committed for too long, nor acknowledged.
//!
//! A message waits here from its delivery on. What covers it in time takes it away; else it is told, once. Groups that keep their
//! offsets elsewhere never commit: of a group of which no commit was seen only the first messages are told, and of any group in one
//! partition no more than fit. All else is counted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::transactions::State;
use super::{Hop, Kind, Topic};
use crate::export::Resource;

/// Messages of one group in one partition that are followed at once, told ones included.
const MAX_OF_PARTITION: usize = 512;

/// Of a group of which no commit was seen, in all its partitions.
const MAX_WITHOUT_COMMIT: usize = 16;

/// Of all groups.
const MAX_IN_ALL: usize = 128 << 10;

/// Partitions, each with a group, that are known at once.
const MAX_PARTITIONS: usize = 64 << 10;

/// Commits are told a little later than they pass, where several rings are read.
const GRACE_NS: u64 = 500_000_000;

/// How often it is looked who has waited long enough.
const LOOK_NS: u64 = 500_000_000;

/// What was told, and partitions of which nothing was heard, are forgotten after this.
const FORGET_NS: u64 = 3_600_000_000_000;

/// See the module. One for all workers.
#[derive(Debug)]
pub struct Uncommitted {
    patience_ns: u64,
    groups: Mutex<Groups>,
}

/// What has waited too long.
#[derive(Debug, Default)]
pub struct Due {
    /// In the order of their delivery.
    pub hops: Vec<Hop>,
    /// So many more were delivered and not committed.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct Groups {
    /// By cluster and name; in order, so that a capture file is told the same each time.
    by_name: BTreeMap<(Option<Arc<str>>, Arc<str>), Group>,
    partitions: usize,
    waiting: usize,
    looked_ns: u64,
    left_out: u64,
    /// Bytes of these were missed, perhaps a commit: of what came to them nothing is known any more.
    missed: Vec<Arc<Resource>>,
}

#[derive(Debug, Default)]
struct Group {
    commits: bool,
    waiting: usize,
    by_partition: BTreeMap<(Arc<str>, i32), Partition>,
}

#[derive(Debug)]
struct Partition {
    /// The group will go on here.
    committed: i64,
    /// By offset.
    waiting: BTreeMap<i64, Waiting>,
    /// Those for which there was no room.
    more: VecDeque<More>,
    /// When it was heard of last.
    last_ns: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Of the first delivery.
    since_ns: u64,
    /// Until it was told.
    hop: Option<Box<Hop>>,
}

/// Messages of a short time.
#[derive(Debug)]
struct More {
    since_ns: u64,
    first: i64,
    last: i64,
    count: u64,
}

impl Uncommitted {
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        let patience_ns = patience.as_nanos().try_into().unwrap_or(u64::MAX);
        Self { patience_ns, groups: Mutex::default() }
    }

    /// Takes all hops, and gives those that it has given as [`Due`]. `keeps` says of others whether they are wanted at all.
    pub fn pass(&self, hop: Hop, keeps: impl FnOnce(Hop) -> Option<Hop>) -> Option<Hop> {
        match hop.passage.kind {
            Kind::Delivered { is_uncommitted: true, .. } => return Some(hop),
            Kind::Committed(_) | Kind::Acknowledged(_) => self.groups().cover(&hop),
            // What follows traces learns from those too.
            Kind::Produced { .. } => drop(keeps(hop)),
            Kind::Delivered { .. } => {
                if let Some(hop) = keeps(hop) {
                    self.groups().hold(hop, self.patience_ns);
                }
            }
        }
        None
    }

    /// Bytes of this process's connections were missed.
    pub fn missed(&self, of: Arc<Resource>) {
        let missed = &mut self.groups().missed;
        if !missed.iter().any(|known| Arc::ptr_eq(known, &of)) {
            missed.push(of);
        }
    }

    /// Those that have waited long enough by now.
    pub fn due(&self, now_ns: u64) -> Due {
        let mut groups = self.groups();
        // A clock that was set back begins anew.
        if now_ns >= groups.looked_ns && now_ns.saturating_sub(groups.looked_ns) < LOOK_NS {
            return Due::default();
        }
        groups.looked_ns = now_ns;
        groups.due(now_ns, self.patience_ns.saturating_add(GRACE_NS))
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    /// The group in a partition, if there is room for it.
    fn partition(&mut self, hop: &Hop, cluster: Option<Arc<str>>) -> Option<(&mut Group, (Arc<str>, i32))> {
        let (Topic::Named(topic), Some(name)) = (&hop.topic, hop.parties.reader.group()) else { return None };
        let place = (Arc::clone(&topic.name), hop.passage.partition);
        let name = (cluster, Arc::clone(name));
        let is_known = self.by_name.get(&name).is_some_and(|of| of.by_partition.contains_key(&place));
        if !is_known {
            if self.partitions >= MAX_PARTITIONS {
                return None;
            }
            self.partitions = self.partitions.saturating_add(1);
        }
        let group = self.by_name.entry(name).or_default();
        let partition = group.by_partition.entry(place.clone()).or_insert_with(Partition::new);
        partition.last_ns = partition.last_ns.max(hop.passage.end_ns);
        Some((group, place))
    }

    fn hold(&mut self, mut hop: Hop, patience_ns: u64) {
        let (cluster, since_ns) = (hop.parties.cluster_id.clone(), hop.passage.end_ns);
        let (Some(offset), Some(_), Topic::Named(_)) = (hop.passage.offset, hop.group(), &hop.topic) else {
            return;
        };
        let is_full = self.waiting >= MAX_IN_ALL;
        let Some((group, place)) = self.partition(&hop, cluster) else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        let is_full = is_full || (!group.commits && group.waiting >= MAX_WITHOUT_COMMIT);
        let Some(partition) = group.by_partition.get_mut(&place) else { return };
        // Delivered again, it has waited since the first time.
        if offset < partition.committed || partition.waiting.contains_key(&offset) {
            return;
        }
        if is_full || partition.waiting.len() >= MAX_OF_PARTITION {
            return partition.count(offset, since_ns, patience_ns / 8);
        }
        if let Kind::Delivered { is_uncommitted, .. } = &mut hop.passage.kind {
            *is_uncommitted = true;
        }
        partition.waiting.insert(offset, Waiting { since_ns, hop: Some(hop.into()) });
        group.waiting = group.waiting.saturating_add(1);
        self.waiting = self.waiting.saturating_add(1);
    }

    fn cover(&mut self, hop: &Hop) {
        let passage = &hop.passage;
        let counts = passage.transaction.as_ref().is_none_or(|(_, state)| *state == State::Committed);
        let Some(offset) = passage.offset.filter(|_| counts && passage.error == 0) else { return };
        let covered = match &passage.kind {
            Kind::Committed(_) => i64::MIN..=offset.saturating_sub(1),
            Kind::Acknowledged(of) if of.of.is_final() => {
                offset.saturating_sub_unsigned(of.messages).saturating_add(1)..=offset
            }
            _ => return,
        };
        let is_commit = matches!(passage.kind, Kind::Committed(_));
        let cluster = hop.parties.cluster_id.clone();
        // Of what came before the cluster was known, too.
        let mut clusters = vec![None];
        clusters.extend(cluster.is_some().then_some(cluster));
        for cluster in clusters {
            let Some((group, place)) = self.partition(hop, cluster) else { continue };
            group.commits = true;
            let Some(partition) = group.by_partition.get_mut(&place) else { continue };
            if is_commit {
                partition.committed = offset;
            }
            let gone = partition.settle(covered.clone());
            group.waiting = group.waiting.saturating_sub(gone);
            self.waiting = self.waiting.saturating_sub(gone);
        }
    }

    fn due(&mut self, now_ns: u64, patience_ns: u64) -> Due {
        let missed = std::mem::take(&mut self.missed);
        let mut due = Due { hops: vec![], left_out: std::mem::take(&mut self.left_out) };
        let (mut partitions, mut waiting) = (0_usize, 0_usize);
        self.by_name.retain(|_, group| {
            group.waiting = 0;
            group.by_partition.retain(|_, partition| {
                partition.look(now_ns, patience_ns, &missed, &mut due);
                group.waiting = group.waiting.saturating_add(partition.waiting.len());
                let is_over = now_ns.saturating_sub(partition.last_ns) > FORGET_NS;
                !(is_over && partition.waiting.is_empty() && partition.more.is_empty())
            });
            partitions = partitions.saturating_add(group.by_partition.len());
            waiting = waiting.saturating_add(group.waiting);
            !group.by_partition.is_empty()
        });
        (self.partitions, self.waiting) = (partitions, waiting);
        // Those of one exchange stay in their order.
        due.hops.sort_by_key(|hop| hop.passage.end_ns);
        due
    }
}

impl Partition {
    fn new() -> Self {
        Self { committed: i64::MIN, waiting: BTreeMap::new(), more: VecDeque::new(), last_ns: 0 }
    }

    /// There is no room for a message of this offset.
    fn count(&mut self, offset: i64, since_ns: u64, within_ns: u64) {
        match self.more.back_mut() {
            Some(last) if since_ns.saturating_sub(last.since_ns) < within_ns => {
                (last.first, last.last) = (last.first.min(offset), last.last.max(offset));
                last.count = last.count.saturating_add(1);
            }
            _ => self.more.push_back(More { since_ns, first: offset, last: offset, count: 1 }),
        }
    }

    /// The group is done with these. Gives how many of those that wait are gone.
    fn settle(&mut self, offsets: RangeInclusive<i64>) -> usize {
        if offsets.is_empty() {
            return 0;
        }
        let (first, last) = (*offsets.start(), *offsets.end());
        self.more.retain_mut(|more| {
            let (from, to) = (more.first.max(first), more.last.min(last));
            let both = i128::from(to).saturating_sub(from.into()).saturating_add(1);
            more.count = more.count.saturating_sub(u64::try_from(both).unwrap_or(0));
            if first <= more.first {
                more.first = more.first.max(last.saturating_add(1));
            }
            more.count > 0 && more.first <= more.last
        });
        self.waiting.extract_if(offsets, |_, _| true).count()
    }

    fn look(&mut self, now_ns: u64, patience_ns: u64, missed: &[Arc<Resource>], due: &mut Due) {
        let waits = |since_ns: u64| now_ns.saturating_sub(since_ns);
        self.waiting.retain(|_, Waiting { since_ns, hop }| {
            let is_missed = |hop: &Box<Hop>| missed.iter().any(|of| Arc::ptr_eq(of, &hop.parties.resource));
            if hop.as_ref().is_some_and(is_missed) {
                due.left_out = due.left_out.saturating_add(1);
                return false;
            }
            if waits(*since_ns) >= patience_ns {
                due.hops.extend(hop.take().map(|hop| *hop));
            }
            hop.is_some() || waits(*since_ns) <= FORGET_NS.saturating_add(patience_ns)
        });
        while let Some(more) = self.more.front().filter(|more| waits(more.since_ns) >= patience_ns) {
            due.left_out = due.left_out.saturating_add(more.count);
            self.more.pop_front();
        }
    }
}
