//! Deliveries, commits and time, by hand.

use super::super::acknowledge::{AcknowledgeType, Acknowledgement};
use super::super::groups::Reader;
use super::super::progress::Covered;
use super::super::{Commit, Parties, samples};
use super::partition::{FORGET_NS, MAX_MISSED, MAX_OF_PARTITION};
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
        let mut watch =
            Self { uncommitted: Uncommitted::new(Duration::from_secs(10)), group: "billing", cluster: None };
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
            self.uncommitted.hold(self.hop(offset, second));
        }
    }

    fn commit(&mut self, offset: i64, error: i16) {
        let mut hop = self.hop(offset, 0);
        hop.passage.kind =
            Kind::Committed(Commit { covered: Covered::default(), throttle_ms: 0, place: 0 }.into());
        hop.passage.error = error;
        self.uncommitted.cover(&hop);
    }

    fn acknowledge(&self, last: i64, messages: u64, of: AcknowledgeType, error: i16) {
        let mut hop = self.hop(last, 0);
        hop.passage.kind = Kind::Acknowledged(
            Acknowledgement { of, messages, throttle_ms: 0, shown: vec![], place: 0 }.into(),
        );
        hop.passage.error = error;
        self.uncommitted.cover(&hop);
    }

    /// What is emitted at this tenth of a second after the beginning, and how many are only counted.
    fn due(&self, tenth: u64) -> (Vec<i64>, u64) {
        let Due { hops, left_out } = self.uncommitted.due(tenth * SECOND / 10);
        (hops.into_iter().map(|hop| hop.passage.offset.unwrap()).collect(), left_out)
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
    // Much later it is emitted anew.
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
fn groups_are_apart() {
    let mut watch = Watch::new();
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
    watch.uncommitted.hold(hop);
    watch.uncommitted.missed(Arc::clone(&resource));
    watch.uncommitted.missed(resource);
    assert_eq!(watch.uncommitted.groups().missed.some.len(), 1);
    assert_eq!(watch.due(1020), (vec![], 1));
    assert_eq!(watch.due(1120), (vec![5], 0));
    // Of too many.
    watch.deliver([7], 120);
    (0..=MAX_MISSED).for_each(|_| watch.uncommitted.missed(Arc::default()));
    assert_eq!(watch.due(1320), (vec![], 1));
}

#[test]
fn the_broker_may_tell_that_somebody_else_has_committed() {
    let watch = Watch::new();
    watch.deliver([5, 6], 100);
    let mut place = place(&watch.hop(0, 0)).unwrap();
    watch.uncommitted.stands(&place, -1, 101 * SECOND);
    watch.uncommitted.stands(&place, 6, 101 * SECOND);
    assert_eq!(watch.due(1120), (vec![6], 0));
    // A group that stands somewhere has committed.
    place.group = "audit".into();
    watch.uncommitted.stands(&place, 0, 101 * SECOND);
    let watch = Watch { group: "audit", ..watch };
    watch.deliver(0..20, 120);
    assert_eq!(watch.due(1320).0.len(), 20);
}

#[test]
fn all_is_bounded() {
    let mut watch = Watch::new();
    let partitions = 1 + MAX_IN_ALL as i64 / 500;
    for partition in 0..partitions {
        for offset in 0..500 {
            let mut hop = watch.hop(offset, 100);
            hop.passage.partition = i32::try_from(partition).unwrap();
            watch.uncommitted.hold(hop);
        }
    }
    let Due { hops, left_out } = watch.uncommitted.due(112 * SECOND);
    assert_eq!((hops.len(), left_out), (MAX_IN_ALL, partitions as u64 * 500 - MAX_IN_ALL as u64));
    for partition in 0..=MAX_PARTITIONS {
        let mut hop = watch.hop(0, 200);
        hop.passage.partition = i32::try_from(partition).unwrap();
        watch.uncommitted.hold(hop);
    }
    assert_eq!(watch.uncommitted.groups().partitions, MAX_PARTITIONS);
    // Partitions of which nothing is heard go.
    watch.group = "nobody";
    assert_eq!(watch.due(1120 + 30 * FORGET_NS / SECOND).0.len(), 0);
    assert_eq!(watch.uncommitted.groups().partitions, 0);
}
