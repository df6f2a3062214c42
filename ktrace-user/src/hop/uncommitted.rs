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
        let before = partition.more.iter_mut().find(|more| (more.first..=more.last).contains(&offset));
        if is_full || partition.waiting.len() >= MAX_OF_PARTITION {
            if before.is_none() {
                partition.count(offset, since_ns, patience_ns / 8);
            }
            return;
        }
        let since_ns = before.map_or(since_ns, |more| {
            more.count = more.count.saturating_sub(1);
            more.since_ns
        });
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

#[cfg(test)]
mod tests {
    use super::super::acknowledge::{AcknowledgeType, Acknowledgement};
    use super::super::groups::Reader;
    use super::super::progress::Covered;
    use super::super::{Commit, Parties, samples};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Watch {
        uncommitted: Uncommitted,
        group: &'static str,
        cluster: Option<Arc<str>>,
    }

    impl Watch {
        /// Ten seconds are allowed; the group commits.
        fn new() -> Self {
            let mut watch = Self {
                uncommitted: Uncommitted::new(Duration::from_secs(10)),
                group: "billing",
                cluster: None,
            };
            watch.commit(0, 0);
            watch
        }

        fn hop(&self, offset: i64, second: u64) -> Hop {
            let mut hop = samples::delivered();
            let parties = Parties {
                reader: Reader::Group(self.group.into()),
                cluster_id: self.cluster.clone(),
                ..(*hop.parties).clone()
            };
            hop.parties = parties.into();
            (hop.passage.offset, hop.passage.end_ns) = (Some(offset), second * SECOND);
            hop
        }

        fn deliver(&self, offsets: impl IntoIterator<Item = i64>, second: u64) {
            for offset in offsets {
                assert!(self.uncommitted.pass(self.hop(offset, second), Some).is_none());
            }
        }

        fn commit(&mut self, offset: i64, error: i16) {
            let mut hop = self.hop(offset, 0);
            hop.passage.kind = Kind::Committed(Commit { covered: Covered::default(), place: 0 }.into());
            hop.passage.error = error;
            assert!(self.uncommitted.pass(hop, Some).is_none());
        }

        fn acknowledge(&self, last: i64, messages: u64, of: AcknowledgeType, error: i16) {
            let mut hop = self.hop(last, 0);
            hop.passage.kind =
                Kind::Acknowledged(Acknowledgement { of, messages, shown: vec![], place: 0 }.into());
            hop.passage.error = error;
            assert!(self.uncommitted.pass(hop, Some).is_none());
        }

        /// What is told so many tenths of a second after the beginning, and how many are only counted.
        fn due(&self, tenth: u64) -> (Vec<i64>, u64) {
            let Due { hops, left_out } = self.uncommitted.due(tenth * SECOND / 10);
            let offset = |hop: Hop| {
                let offset = hop.passage.offset.unwrap();
                // The sink hands it back, and it goes out.
                self.uncommitted.pass(hop, |_| None).unwrap();
                offset
            };
            (hops.into_iter().map(offset).collect(), left_out)
        }
    }

    #[test]
    fn what_is_not_committed_in_time_is_told_once() {
        let mut watch = Watch::new();
        watch.deliver([5, 6, 7], 100);
        watch.deliver([8], 103);
        watch.commit(8, 25);
        watch.commit(6, 0);
        assert_eq!(watch.due(1100), (vec![], 0));
        assert_eq!(watch.due(1105), (vec![6, 7], 0));
        assert_eq!(watch.due(1120), (vec![], 0));
        watch.commit(9, 0);
        assert_eq!(watch.due(1200), (vec![], 0));
        // What comes late, and was committed by then.
        watch.deliver([8], 103);
        assert_eq!(watch.due(1300), (vec![], 0));
        assert_eq!(watch.uncommitted.groups().waiting, 0);
    }

    #[test]
    fn a_message_that_is_delivered_again_and_again_waits_since_the_first_time() {
        let watch = Watch::new();
        for second in [100, 104, 108] {
            watch.deliver([5], second);
        }
        assert_eq!(watch.due(1105), (vec![5], 0));
        watch.deliver([5], 111);
        assert_eq!(watch.due(1300), (vec![], 0));
        // Much later it is told anew.
        let hours = 1300 + 2 * FORGET_NS / SECOND * 10;
        assert_eq!(watch.due(hours), (vec![], 0));
        watch.deliver([5], hours / 10);
        assert_eq!(watch.due(hours + 105), (vec![5], 0));
    }

    #[test]
    fn of_a_group_that_never_commits_the_first_are_told() {
        let mut watch = Watch::new();
        watch.group = "elsewhere";
        watch.deliver(0..100, 100);
        let first: Vec<i64> = (0..16).collect();
        assert_eq!(watch.due(1120), (first, 84));
        watch.deliver(100..200, 120);
        // Again: counted once.
        watch.deliver(100..200, 121);
        assert_eq!(watch.due(1320), (vec![], 100));
        // It commits after all.
        watch.deliver(200..300, 140);
        watch.commit(250, 0);
        watch.deliver(270..310, 141);
        assert_eq!(watch.due(1520), ((270..310).collect(), 20));
    }

    #[test]
    fn what_has_no_room_is_counted_unless_it_is_committed() {
        let mut watch = Watch::new();
        let most = MAX_OF_PARTITION as i64;
        watch.deliver(0..most + 100, 100);
        watch.commit(most + 40, 0);
        assert_eq!(watch.due(1120), (vec![], 60));
        watch.deliver(1000..1000 + most + 100, 120);
        assert_eq!(watch.due(1320), ((1000..1000 + most).collect(), 100));
        watch.deliver(3000..3001, 140);
        assert_eq!(watch.due(1520), (vec![], 1), "until it commits");
        watch.commit(3002, 0);
        watch.deliver(4000..4001, 160);
        assert_eq!(watch.due(1720), (vec![4000], 0));
    }

    #[test]
    fn members_of_share_groups_are_done_with_what_they_accept_or_reject() {
        let watch = Watch::new();
        watch.deliver(0..6, 100);
        watch.acknowledge(1, 2, AcknowledgeType::Accept, 0);
        watch.acknowledge(2, 1, AcknowledgeType::Release, 0);
        watch.acknowledge(3, 1, AcknowledgeType::Reject, 0);
        watch.acknowledge(4, 1, AcknowledgeType::Renew, 0);
        watch.acknowledge(5, 1, AcknowledgeType::Accept, 121);
        watch.acknowledge(9, 0, AcknowledgeType::Unknown, 0);
        assert_eq!(watch.due(1120), (vec![2, 4, 5], 0));
    }

    #[test]
    fn only_what_is_wanted_waits_and_groups_are_apart() {
        let mut watch = Watch::new();
        assert!(watch.uncommitted.pass(watch.hop(5, 100), |_| None).is_none());
        watch.deliver([7], 100);
        watch.group = "audit";
        watch.commit(9, 0);
        assert_eq!(watch.due(1120), (vec![7], 0));
    }

    #[test]
    fn a_cluster_may_be_known_later() {
        let mut watch = Watch::new();
        watch.deliver([5], 100);
        watch.cluster = Some("a".into());
        watch.commit(0, 0);
        watch.deliver([6], 100);
        watch.commit(6, 0);
        assert_eq!(watch.due(1120), (vec![6], 0));
        watch.deliver([9], 120);
        watch.cluster = Some("b".into());
        watch.commit(100, 0);
        assert_eq!(watch.due(1320), (vec![9], 0), "another cluster's");
    }

    #[test]
    fn where_bytes_were_missed_a_commit_may_be_among_them() {
        let watch = Watch::new();
        watch.deliver([5], 100);
        let hop = watch.hop(6, 100);
        watch.uncommitted.missed(Arc::clone(&samples::sent().parties.resource));
        assert_eq!(watch.due(1010), (vec![], 0));
        let resource = Arc::clone(&hop.parties.resource);
        assert!(watch.uncommitted.pass(hop, Some).is_none());
        watch.uncommitted.missed(Arc::clone(&resource));
        watch.uncommitted.missed(resource);
        assert_eq!(watch.uncommitted.groups().missed.len(), 1);
        assert_eq!(watch.due(1020), (vec![], 1));
        assert_eq!(watch.due(1120), (vec![5], 0));
    }

    #[test]
    fn all_is_bounded() {
        let mut watch = Watch::new();
        let partitions = 1 + MAX_IN_ALL as i64 / 500;
        for partition in 0..partitions {
            for offset in 0..500 {
                let mut hop = watch.hop(offset, 100);
                hop.passage.partition = i32::try_from(partition).unwrap();
                assert!(watch.uncommitted.pass(hop, Some).is_none());
            }
        }
        let Due { hops, left_out } = watch.uncommitted.due(112 * SECOND);
        assert_eq!((hops.len(), left_out), (MAX_IN_ALL, partitions as u64 * 500 - MAX_IN_ALL as u64));
        for partition in 0..=MAX_PARTITIONS {
            let mut hop = watch.hop(0, 200);
            hop.passage.partition = i32::try_from(partition).unwrap();
            assert!(watch.uncommitted.pass(hop, Some).is_none());
        }
        assert_eq!(watch.uncommitted.groups().partitions, MAX_PARTITIONS);
        // Partitions of which nothing is heard go.
        watch.group = "nobody";
        assert_eq!(watch.due(1120 + 30 * FORGET_NS / SECOND).0.len(), 0);
        assert_eq!(watch.uncommitted.groups().partitions, 0);
    }
}
