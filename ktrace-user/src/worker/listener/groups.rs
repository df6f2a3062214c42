//! Groups: who is a member, what each member is assigned, and how far a group has come.

use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::{Committed, Event, Head};

use super::Listener;
use crate::hop::groups::{self, Groups, Heard, Member, Reader};
use crate::hop::progress::{Covered, ProgressKey};
use crate::hop::transactions::{State, Transaction};
use crate::hop::{Commit, Hop, Kind, Passage, Topic, identity};
use crate::losses::Reason;
use crate::worker::connection::cursor::named;
use crate::worker::deliveries::MAX_ID_BYTES;
use crate::worker::pending_commits::PendingCommit;

impl Listener<'_> {
    pub(super) fn of_a_group(&mut self, head: &Head<'_>, event: &Event<'_>) {
        match *event {
            // What a share group's members read, they say themselves.
            Event::Member(member) if member.protocol != kafka::GroupProtocol::Share => {
                self.learn(head, member.group_id, member.member_id, |groups, heard| {
                    groups.member(heard, &member)
                });
            }
            Event::AssignmentBegins { group_id, member_id, generation_or_epoch } => {
                self.learn(head, group_id, member_id, |groups, heard| {
                    groups.assignment_begins(heard, group_id, member_id, generation_or_epoch)
                });
            }
            Event::Assigned { group_id, member_id, topic, partition } => {
                self.learn_of_partition(
                    head,
                    (group_id, member_id),
                    (topic, partition),
                    |groups, heard, at| groups.assigned(heard, group_id, member_id, at),
                );
            }
            Event::AssignedTask { group_id, member_id, .. } => {
                self.learn(head, group_id, member_id, |groups, heard| {
                    groups.assigned_unseen(heard, group_id, member_id)
                });
            }
            Event::Position { group_id, topic, partition, offset, error: 0 } => {
                self.learn_of_partition(head, (group_id, ""), (topic, partition), |groups, heard, at| {
                    groups.position(heard, group_id, at, offset)
                });
                self.stands(head, group_id, (topic, partition), offset);
            }
            Event::LogOffset { topic, partition, offset, error: 0, .. } => {
                if let Topic::Named(topic) = self.world.topic(topic) {
                    self.state.client.listed(&topic, partition, offset, head.request_start_ns);
                }
            }
            Event::Committed(commit) => {
                let Committed { group_id, member_id, topic, partition, error, .. } = commit;
                if error == 0 {
                    let named = (group_id, member_id);
                    self.learn_of_partition(head, named, (topic, partition), |groups, heard, at| {
                        groups.reads(heard, group_id, member_id, at)
                    });
                }
                self.committed(head, &commit);
            }
            Event::Acknowledged { .. } => self.acknowledged(head, event),
            _ => {}
        }
    }

    fn learn(
        &mut self,
        head: &Head<'_>,
        group: &str,
        member: &str,
        learn: impl FnOnce(&mut Groups, Heard<'_>) -> bool,
    ) {
        if !group.is_empty() && group.len() <= MAX_ID_BYTES && member.len() <= MAX_ID_BYTES {
            self.state.client.learn_of_groups(self.id, head.end_ns(), &self.world.shared, learn);
        }
    }

    fn learn_of_partition(
        &mut self,
        head: &Head<'_>,
        (group, member): (&str, &str),
        (topic, partition): (kafka::Topic<'_>, i32),
        learn: impl FnOnce(&mut Groups, Heard<'_>, groups::TopicPartition<'_>) -> bool,
    ) {
        let known = self.world.topic(topic);
        let at = named(topic, &known, partition);
        self.learn(head, group, member, |groups, heard| learn(groups, heard, at));
    }

    /// The broker says where a group stands.
    fn stands(
        &mut self,
        head: &Head<'_>,
        group: &str,
        (topic, partition): (kafka::Topic<'_>, i32),
        offset: i64,
    ) {
        let Some(uncommitted) = self.world.settings.uncommitted.clone() else { return };
        if let Topic::Named(topic) = self.world.topic(topic)
            && (1..=MAX_ID_BYTES).contains(&group.len())
        {
            let cluster = self.state.client.cluster(&self.world.shared);
            let place =
                ProgressKey { cluster, group: group.into(), topic: Arc::clone(&topic.name), partition };
            uncommitted.stands(&place, offset, head.end_ns());
        }
    }

    /// A group's offset was committed, or should have been.
    fn committed(&mut self, head: &Head<'_>, of: &Committed<'_>) {
        if of.group_id.is_empty() || of.group_id.len() > MAX_ID_BYTES || of.member_id.len() > MAX_ID_BYTES {
            return;
        }
        if self.has_found_other_end() {
            return;
        }
        let Some(response) = head.response else { return };
        self.count_refused(head, of.error);
        let generation = (of.generation_or_epoch >= 0).then_some(of.generation_or_epoch);
        let member = Member { group: of.group_id.into(), id: of.member_id.into(), generation };
        let reader = Reader::Member(member.into());
        let topic = self.world.topic(of.topic);
        let progress = if of.error == 0 { self.progress(&reader, &topic, of.partition) } else { None };
        let place = identity::CommitPlace {
            group: of.group_id,
            partition: of.partition,
            offset: of.offset,
            correlation_id: head.correlation_id,
            request_seq: head.request_seq,
        };
        let transaction = of.transaction.filter(|_| of.error == 0).map(|transaction| {
            let producer = self.producer(transaction.producer_id);
            let id = transaction.transactional_id;
            Transaction { producer, transactional_id: (id.len() <= MAX_ID_BYTES).then(|| id.into()) }
        });
        let commit = Commit {
            covered: Covered::default(),
            throttle_ms: self.state.throttle_ms,
            place: identity::commit_hash(place),
        };
        let mut hop = Hop {
            parties: self.parties_of(&reader),
            topic,
            passage: Passage {
                error: of.error,
                start_ns: head.request_start_ns,
                end_ns: response.end_ns,
                ..Passage::settling(
                    Kind::Committed(commit.into()),
                    of.partition,
                    of.offset,
                    identity::commit_trace_id(place),
                )
            },
        };
        // The other end of the connection shows it, or the search for that end is given up soon.
        let superfluous = self.may_find_other_end();
        if let Some(transaction) = transaction.filter(|_| !superfluous) {
            let producer = transaction.producer.clone();
            hop.passage.transaction = Some((transaction.into(), State::Open));
            let commit = self
                .world
                .shared
                .commits
                .wait(&producer, PendingCommit { connection: self.id, hop, progress });
            if let Some(commit) = commit {
                self.world.losses.lose(Reason::ShownEarly);
                self.settle_commit(commit, Some(State::Open));
            }
            return;
        }
        self.settle_commit(PendingCommit { connection: self.id, hop, progress }, None);
    }
}
