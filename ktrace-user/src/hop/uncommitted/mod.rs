//! Messages that a group was given and has not committed for too long, nor acknowledged.
//!
//! A message waits here from its delivery on. A commit that covers it in time takes it away; else
//! it is emitted, once. Groups that keep their offsets elsewhere never commit: of a group of which
//! no commit was seen only the first messages are emitted, and of any group in one partition no
//! more than fit. All else is counted.

mod partition;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::partition::Due;
use self::partition::{Missed, Partition};
use super::progress::ProgressKey;
use super::store::Store;
use super::transactions::State;
use super::{Hop, Kind, Topic};
use crate::span::Resource;

/// Of a group of which no commit was seen, in all its partitions.
const MAX_WITHOUT_COMMIT: usize = 16;

/// Of all groups.
const MAX_IN_ALL: usize = 128 << 10;

/// Partitions, each with a group, that are known at once.
const MAX_PARTITIONS: usize = 64 << 10;

/// What a partition and a message take, about.
const PARTITION_BYTES: usize = 160;
const MESSAGE_BYTES: usize = size_of::<Hop>() + 256;

/// Commits are emitted a little later than they pass, where several rings are read.
const GRACE_NS: u64 = 500_000_000;

/// How often it is looked who has waited long enough.
const LOOK_NS: u64 = 500_000_000;

/// Deliveries that wait for a commit, by group and partition. One for all workers, behind a lock
/// that is held for a hop each time.
#[derive(Debug)]
pub struct Uncommitted {
    patience_ns: u64,
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    /// By cluster and name; in order, so that a capture file gives the same each time.
    by_name: BTreeMap<(Option<Arc<str>>, Arc<str>), Group>,
    partitions: usize,
    waiting: usize,
    looked_ns: u64,
    left_out: u64,
    missed: Missed,
}

#[derive(Debug, Default)]
struct Group {
    commits: bool,
    waiting: usize,
    by_partition: BTreeMap<(Arc<str>, i32), Partition>,
}

impl Uncommitted {
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        let patience_ns = patience.as_nanos().try_into().unwrap_or(u64::MAX);
        Self { patience_ns, groups: Mutex::default() }
    }

    /// A delivery waits from now on.
    pub fn hold(&self, hop: Hop) {
        self.groups().hold(hop, self.patience_ns);
    }

    /// A commit or an acknowledgement covers deliveries that wait.
    pub fn cover(&self, hop: &Hop) {
        if let (Some(place), Some(covered)) = (place(hop), covered(hop)) {
            let is_commit = matches!(hop.passage.kind, Kind::Committed(_));
            self.groups().cover(&place, covered, is_commit, hop.passage.end_ns);
        }
    }

    /// The broker says where a group stands: a commit may have passed elsewhere.
    pub fn stands(&self, place: &ProgressKey, offset: i64, now_ns: u64) {
        if offset >= 0 {
            self.groups().cover(place, before(offset), true, now_ns);
        }
    }

    /// Bytes of this process's connections were missed.
    pub fn missed(&self, of: Arc<Resource>) {
        self.groups().missed.add(of);
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

impl Group {
    /// Its offset in a partition is committed, or messages there were acknowledged. Gives how many
    /// of those that wait are gone.
    fn cover(&mut self, place: &(Arc<str>, i32), covered: RangeInclusive<i64>, is_commit: bool) -> usize {
        self.commits = true;
        let Some(partition) = self.by_partition.get_mut(place) else { return 0 };
        if is_commit {
            partition.committed = covered.end().saturating_add(1);
        }
        let gone = partition.settle(covered);
        self.waiting = self.waiting.saturating_sub(gone);
        gone
    }
}

/// Where a hop belongs, if that is known.
fn place(hop: &Hop) -> Option<ProgressKey> {
    let (Topic::Named(topic), group) = (&hop.topic, hop.parties.reader.group()?) else { return None };
    Some(ProgressKey {
        cluster: hop.parties.cluster_id.clone(),
        group: Arc::clone(group),
        topic: Arc::clone(&topic.name),
        partition: hop.passage.partition,
    })
}

/// What a commit covers, or an acknowledgement after which the group is done with it.
fn covered(hop: &Hop) -> Option<RangeInclusive<i64>> {
    let passage = &hop.passage;
    let counts = passage.transaction.as_ref().is_none_or(|(_, state)| *state == State::Committed);
    let offset = passage.offset.filter(|_| counts && passage.error == 0)?;
    match &passage.kind {
        Kind::Committed(_) => Some(before(offset)),
        Kind::Acknowledged(of) if of.of.is_final() => {
            Some(offset.saturating_sub_unsigned(of.messages).saturating_add(1)..=offset)
        }
        _ => None,
    }
}

fn before(offset: i64) -> RangeInclusive<i64> {
    i64::MIN..=offset.saturating_sub(1)
}

impl Groups {
    /// The group in a partition, if there is room for it; it is heard of now.
    fn group(&mut self, place: &ProgressKey, now_ns: u64) -> Option<&mut Group> {
        let name = (place.cluster.clone(), Arc::clone(&place.group));
        let in_group = (Arc::clone(&place.topic), place.partition);
        let is_known = self.by_name.get(&name).is_some_and(|of| of.by_partition.contains_key(&in_group));
        if !is_known {
            if self.partitions >= MAX_PARTITIONS {
                return None;
            }
            self.partitions = self.partitions.saturating_add(1);
        }
        let group = self.by_name.entry(name).or_default();
        let partition = group.by_partition.entry(in_group).or_insert_with(Partition::new);
        partition.last_ns = partition.last_ns.max(now_ns);
        Some(group)
    }

    fn hold(&mut self, hop: Hop, patience_ns: u64) {
        let (Some(place), Some(offset)) = (place(&hop), hop.passage.offset) else { return };
        let is_full = self.waiting >= MAX_IN_ALL;
        let Some(group) = self.group(&place, hop.passage.end_ns) else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        let has_room = !is_full && (group.commits || group.waiting < MAX_WITHOUT_COMMIT);
        let Some(partition) = group.by_partition.get_mut(&(place.topic, place.partition)) else { return };
        if partition.hold(offset, hop, has_room, patience_ns) {
            group.waiting = group.waiting.saturating_add(1);
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    fn cover(&mut self, place: &ProgressKey, covered: RangeInclusive<i64>, is_commit: bool, now_ns: u64) {
        let in_group = (Arc::clone(&place.topic), place.partition);
        let mut gone = 0;
        if let Some(group) = self.group(place, now_ns) {
            gone = group.cover(&in_group, covered.clone(), is_commit);
        }
        // What came before the cluster was known.
        if place.cluster.is_some()
            && let Some(group) = self.by_name.get_mut(&(None, Arc::clone(&place.group)))
        {
            gone = gone.saturating_add(group.cover(&in_group, covered, is_commit));
        }
        self.waiting = self.waiting.saturating_sub(gone);
    }

    fn due(&mut self, now_ns: u64, patience_ns: u64) -> Due {
        let missed = std::mem::take(&mut self.missed);
        let mut due = Due { hops: vec![], left_out: std::mem::take(&mut self.left_out) };
        let (mut partitions, mut waiting) = (0_usize, 0_usize);
        self.by_name.retain(|_, group| {
            group.waiting = 0;
            group.by_partition.retain(|_, partition| {
                partition.look(now_ns, patience_ns, &missed, &mut due);
                group.waiting = group.waiting.saturating_add(partition.len());
                !partition.is_over(now_ns)
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

impl Store for Uncommitted {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        let Groups { partitions, waiting, .. } = *self.groups();
        vec![("partitions of uncommitted messages", partitions), ("uncommitted messages", waiting)]
    }

    fn bytes(&self) -> usize {
        let Groups { partitions, waiting, .. } = *self.groups();
        let messages = waiting.saturating_mul(MESSAGE_BYTES);
        partitions.saturating_mul(PARTITION_BYTES).saturating_add(messages)
    }
}

#[cfg(test)]
mod tests;
