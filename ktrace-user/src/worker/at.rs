//! Where the records at hand stand: one partition of one exchange, and what all of them share.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::{Head, Operation, Partition};

use super::backlog::Backlog;
use super::delays::Delay;
use super::late_runs::LateRun;
use super::listener::Listener;
use super::own_telemetry::Found;
use crate::hop::attempts::{self, Message};
use crate::hop::chains::Read;
use crate::hop::groups::{self, Member, Reader};
use crate::hop::identity::{self, Delivery};
use crate::hop::own::Watch;
use crate::hop::progress::{self, Before, Open, ProgressKey};
use crate::hop::transactions::Transaction;
use crate::hop::{Hop, Kind, Parties, Topic, shown};

/// Longer ids of groups and members are not kept.
pub(super) const MAX_ID_BYTES: usize = 1024;

/// See the module.
pub(super) struct At {
    request_seq: u32,
    correlation_id: i32,
    index: i32,
    /// As the wire names it, where that is an id.
    pub id: Option<u128>,
    pub topic: Topic,
    pub reader: Reader,
    /// Put together when the first of the records is shown.
    pub parties: Option<Arc<Parties>>,
    /// The batch at hand, where transactions are followed.
    pub batch: Option<i64>,
    /// Of the batch at hand, if it is a part of one.
    pub transaction: Option<Arc<Transaction>>,
    /// Messages whose attempts failed were to go here.
    pub may_be_sent_again: bool,
    /// How many there are of each that may be one that was sent before.
    alike: HashMap<Message, u32>,
    /// What the group gets.
    run: Option<Run>,
    /// What its process gets, where that may make it send something.
    pub reads: Vec<Read>,
    /// In its place, where it is told late for whom the messages are.
    pub late: Option<Box<LateRun>>,
    /// When it was sent, or is.
    pub delay: Option<Delay>,
    /// Which of the values are looked at for ktrace's own telemetry, and what was found.
    pub watch: Watch,
    pub found: Found,
    /// What of it was there before its reader, where that reads it anew.
    pub backlog: Option<Backlog>,
}

/// Messages that a group gets one behind the other.
struct Run {
    progress: progress::Shared,
    /// From where on they are not noted yet.
    from: i64,
    /// Behind the last of them.
    next: i64,
    before: Before,
    /// Those that are shown.
    open: Vec<Opened>,
    /// The last of those that carry ktrace's own telemetry.
    own: Range<i64>,
}

/// One of them: most are forgotten again, so what its span's id is made of does for now.
struct Opened {
    offset: i64,
    trace_id: TraceId,
    derived: TraceId,
    delivery: Delivery,
}

impl At {
    /// Whether a record stands here too.
    pub fn is(&self, head: &Head<'_>, partition: &Partition<'_>) -> bool {
        let same_topic = match partition.topic {
            kafka::Topic::Id(id) => self.id == Some(id),
            kafka::Topic::Name(name) => match &self.topic {
                Topic::Named(known) => self.id.is_none() && *known.name == *name,
                Topic::Id(_) => false,
            },
        };
        same_topic
            && self.index == partition.index
            && self.correlation_id == head.correlation_id
            && self.request_seq == head.request_seq
    }

    /// A record of this offset comes.
    pub fn pass(&mut self, offset: i64) {
        if let Some(late) = &mut self.late {
            late.pass(offset);
        }
        let Some(run) = &mut self.run else { return };
        if run.next == i64::MIN {
            run.from = run.from.min(offset);
        }
        if offset >= run.before.until || offset < run.next {
            run.note();
            if offset < run.next {
                run.from = offset;
            }
            run.before = progress::lock(&run.progress).before(offset);
        }
        run.next = offset.saturating_add(1);
    }

    /// The record at hand carries ktrace's own telemetry.
    pub fn own(&mut self, offset: i64) {
        if let Some(late) = &mut self.late {
            late.own(offset);
        }
        if let Some(run) = &mut self.run {
            run.own(offset);
        }
    }

    /// How many like this were here before it.
    pub fn nth(&mut self, message: Message) -> u32 {
        let count = self.alike.entry(message).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    /// Which delivery to its group that of the record at hand is, and whether it comes after later ones.
    pub fn times(&self, operation: Operation<'_>) -> (Option<u32>, bool) {
        match (operation, &self.run) {
            (Operation::ShareFetch { delivery_count, .. }, _) => (u32::try_from(delivery_count).ok(), false),
            (_, Some(run)) => (Some(run.before.times.saturating_add(1)), run.before.is_behind),
            (_, None) => (None, false),
        }
    }
}

impl Run {
    fn note(&mut self) {
        if self.next > self.from {
            progress::lock(&self.progress).deliver(self.from..self.next);
            self.from = self.next;
        }
    }

    fn own(&mut self, offset: i64) {
        if self.own.end != offset {
            self.note_own();
            self.own.start = offset;
        }
        self.own.end = offset.saturating_add(1);
    }

    fn note_own(&mut self) {
        if !self.own.is_empty() {
            progress::lock(&self.progress).deliver_own(self.own.clone());
        }
    }
}

impl Listener<'_> {
    /// The first record of a partition of an exchange is at hand.
    pub(super) fn arrive(&mut self, head: &Head<'_>, partition: &Partition<'_>) {
        self.note();
        let topic = self.told.topic(partition.topic);
        let is_sent = matches!(partition.operation, Operation::Produce { .. });
        let delay = self.delay(&topic, partition.topic, partition.index, is_sent);
        let watch = self.watch(&topic);
        let at = named(partition.topic, &topic, partition.index);
        let id = at.id;
        let mut backlog = None;
        let (reader, run, late) = match partition.operation {
            Operation::Produce { .. } => {
                self.count_refused(head, partition.error);
                self.writes(head.request_start_ns);
                (Reader::Unknown, None, None)
            }
            Operation::ShareFetch { group_id, member_id, .. } => {
                let reader = share_member(group_id, member_id);
                self.acquires_as(&reader);
                (reader, None, None)
            }
            Operation::Fetch { fetch_offset, high_watermark, .. } => {
                let began = Self::began(partition).filter(|_| !self.told.old_is_late);
                // Who looks for the reader takes it.
                let listed = began.and_then(|_| self.peer.listed_of(&topic, partition.index));
                let mut asked = groups::FetchFrom { at, ns: head.request_start_ns, offset: fetch_offset };
                let reader = self.peer.reader(self.id, &topic, &mut asked, &self.told.shared);
                backlog = began
                    .and_then(|began| self.backlog(began, (&topic, id), partition.index, (&reader, listed)));
                let asked_ns = asked.ns;
                match self.late_run((&topic, id), partition, asked_ns, &reader) {
                    Some(late) => (Reader::Unknown, None, Some(late)),
                    None => {
                        let offsets = (fetch_offset, high_watermark);
                        let run = self.run(&reader, (&topic, id), partition.index, offsets);
                        (reader, run, None)
                    }
                }
            }
        };
        let may_be_sent_again = matches!(partition.operation, Operation::Produce { .. })
            && !self.told.shared.attempts.is_empty()
            && self.told.shared.attempts.are_at(attempts::Place::new(&shown(&topic).name, partition.index));
        self.peer.at = Some(At {
            request_seq: head.request_seq,
            correlation_id: head.correlation_id,
            index: partition.index,
            id,
            topic,
            reader,
            parties: None,
            batch: None,
            transaction: None,
            may_be_sent_again,
            alike: HashMap::new(),
            run,
            reads: vec![],
            late,
            delay,
            watch,
            found: Found::new(watch),
            backlog,
        });
    }

    fn run(
        &mut self,
        reader: &Reader,
        (topic, id): (&Topic, Option<u128>),
        partition: i32,
        (fetch_offset, high_watermark): (i64, i64),
    ) -> Option<Run> {
        let progress = self.progress(reader, topic, partition)?;
        let mut known = progress::lock(&progress);
        match id {
            Some(id) => known.log_is(id),
            None if high_watermark >= 0 => known.log_ends(high_watermark),
            None => {}
        }
        let from = if fetch_offset < 0 { i64::MAX } else { fetch_offset };
        // Nothing is known before the first record comes.
        let before = Before { times: 0, is_behind: false, until: i64::MIN };
        drop(known);
        Some(Run { progress, from, next: i64::MIN, before, open: vec![], own: 0..0 })
    }

    /// How far a group has come in a partition, where it is known and not told by somebody else.
    pub(super) fn progress(
        &mut self,
        reader: &Reader,
        topic: &Topic,
        partition: i32,
    ) -> Option<progress::Shared> {
        if self.peer.search.is_superfluous() {
            return None;
        }
        let (group, cluster) = (Arc::clone(reader.group()?), self.peer.cluster(&self.told.shared));
        let topic = Arc::clone(&shown(topic).name);
        Some(self.told.shared.progress.of(&ProgressKey { cluster, group, topic, partition }))
    }

    /// Who takes part, for the records at hand.
    pub(super) fn parties(&mut self) -> Arc<Parties> {
        let reader = self.peer.at.as_ref().map_or(Reader::Unknown, |at| at.reader.clone());
        let parties = self.peer.parties(&reader, &self.told.shared, &mut self.told.stand_ins);
        if let Some(at) = &mut self.peer.at {
            at.parties = Some(Arc::clone(&parties));
        }
        parties
    }

    /// A hop that a commit will cover, or that a share group's member will acknowledge.
    #[inline(always)]
    pub(super) fn open(&mut self, operation: Operation<'_>, hop: &Hop) {
        let (Some(at), Some(offset), Topic::Named(topic)) =
            (&mut self.peer.at, hop.passage.offset, &hop.topic)
        else {
            return;
        };
        if let (Operation::ShareFetch { .. }, Some(id)) = (operation, at.id) {
            let span_id = hop.passage.span_id(&hop.parties, topic);
            let open = Open { offset, trace_id: hop.passage.trace_id(), span_id };
            self.acquire(id, hop.passage.partition, open);
            return;
        }
        if let Some(Run { open: opened, .. }) = &mut at.run {
            // The newest are kept in the end.
            if opened.len() >= 2 * progress::MAX_OPEN {
                opened.drain(..progress::MAX_OPEN);
            }
            if let Kind::Delivered { delivery, .. } = hop.passage.kind {
                let (trace_id, derived) = (hop.passage.trace_id(), hop.passage.derived);
                opened.push(Opened { offset, trace_id, derived, delivery });
            }
        }
    }

    /// Nothing more comes for now: what is known of it is told to all.
    pub(super) fn settle(&mut self) {
        self.note();
        self.answered();
    }

    fn note(&mut self) {
        self.apply_markers();
        let Some(At { run, late, delay, mut reads, topic, parties, watch, found, .. }) = self.peer.at.take()
        else {
            return;
        };
        self.watched(&topic, watch, found);
        self.tell_reads(&mut reads);
        if let Some(delay) = delay {
            delay.settle(self.told);
        }
        if let Some(late) = late {
            self.told.wait_for_reader(*late);
        }
        let Some(mut run) = run else { return };
        run.note();
        run.note_own();
        let (Topic::Named(topic), Some(parties)) = (topic, parties) else { return };
        let old = run.open.len().saturating_sub(progress::MAX_OPEN);
        let client_id = parties.client_id.as_deref();
        let open = |of: Opened| {
            let span_id = identity::poll_span_id(of.derived, &topic.name, client_id, of.delivery);
            Open { offset: of.offset, trace_id: of.trace_id, span_id }
        };
        let mut open: Vec<Open> = run.open.drain(..).skip(old).map(open).collect();
        if !open.is_empty() {
            self.told.shared.progress.wait(&mut progress::lock(&run.progress), &mut open);
        }
    }
}

/// A partition by all names of its topic: as the wire has it, and as it is known.
pub(super) fn named<'a>(
    topic: kafka::Topic<'_>,
    known: &'a Topic,
    partition: i32,
) -> groups::TopicPartition<'a> {
    let id = match topic {
        kafka::Topic::Id(id) => Some(id),
        kafka::Topic::Name(_) => None,
    };
    let name = match known {
        Topic::Named(topic) => Some(&*topic.name),
        Topic::Id(_) => None,
    };
    groups::TopicPartition { id, name, partition }
}

pub(super) fn share_member(group: Option<&str>, member: Option<&str>) -> Reader {
    let kept = |id: &str| (!id.is_empty() && id.len() <= MAX_ID_BYTES).then(|| Arc::from(id));
    let Some(group) = group.and_then(kept) else { return Reader::Unknown };
    match member.and_then(kept) {
        Some(id) => Reader::Member(Arc::new(Member { group, id, generation: None })),
        None => Reader::Group(group),
    }
}
