//! The current partition of an exchange: who reads it, and what is noted of its records in the end.

use std::collections::HashMap;
use std::sync::Arc;

use ktrace_kafka::{Head, Operation, Partition};

use super::Listener;
use crate::hop::groups::{FetchFrom, Reader};
use crate::hop::progress::{self, Open};
use crate::hop::{Hop, Parties, Topic, attempts, shown};
use crate::worker::connection::backlog::Begun;
use crate::worker::connection::cursor::{PartitionCursor, named};
use crate::worker::deliveries::{Log, Run, progress_of, share_member};
use crate::worker::own_telemetry::Found;
use crate::worker::stage::When;
use crate::worker::stage::awaiting_group::LateRun;

/// Who reads a partition, and what counts its deliveries: now, or once the reader is known.
struct Reading {
    reader: Reader,
    run: Option<Run>,
    late: Option<Box<LateRun>>,
}

impl Listener<'_> {
    /// The first record of a partition of an exchange comes.
    pub(super) fn arrive(&mut self, head: &Head<'_>, partition: &Partition<'_>) {
        self.note();
        let topic = self.world.topic(partition.topic);
        let is_sent = matches!(partition.operation, Operation::Produce { .. });
        let delay = self.delay(&topic, partition.topic, partition.index, is_sent);
        let watch = self.watch(&topic);
        let mut backlog = None;
        let Reading { reader, run, late } = match partition.operation {
            Operation::Produce { .. } => {
                self.count_refused(head, partition.error);
                self.writes(head.request_start_ns);
                Reading { reader: Reader::Unknown, run: None, late: None }
            }
            Operation::ShareFetch { group_id, member_id, .. } => {
                let reader = share_member(group_id, member_id);
                self.acquires_as(&reader);
                Reading { reader, run: None, late: None }
            }
            Operation::Fetch { fetch_offset, high_watermark, .. } => {
                let at = named(partition.topic, &topic, partition.index);
                let log = Log { id: at.id, fetch_offset, high_watermark };
                let began = Begun::of(partition).filter(|_| !self.world.settings.old_is_late);
                // The search for the reader takes it.
                let listed = began.and_then(|_| self.state.client.listed_of(&topic, partition.index));
                let mut asked = FetchFrom { at, ns: head.request_start_ns, offset: fetch_offset };
                let reader = self.state.client.reader(self.id, &topic, &mut asked, &self.world.shared);
                backlog = began.and_then(|began| {
                    // As the wire names it: a name may come later.
                    let place = (log.id.map_or_else(|| topic.clone(), Topic::Id), partition.index);
                    self.state.begun.backlog(place, began, listed, reader.group().is_none())
                });
                let asked_ns = asked.ns;
                self.reading(reader, &topic, partition.index, log, asked_ns)
            }
        };
        let may_be_sent_again = is_sent
            && !self.world.shared.attempts.is_empty()
            && self.world.shared.attempts.are_at(attempts::Place::new(&shown(&topic).name, partition.index));
        let id = named(partition.topic, &topic, partition.index).id;
        self.state.cursor = Some(PartitionCursor {
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

    /// Who reads a fetched partition, where `reader` is what is known of that by now.
    fn reading(&mut self, reader: Reader, topic: &Topic, partition: i32, log: Log, asked_ns: u64) -> Reading {
        // The other end of the connection counts.
        if self.may_find_other_end() {
            return Reading { reader, run: None, late: None };
        }
        let now_ns = self.world.now_ns;
        if self.world.shared.is_read_by_several()
            && let Some(since_ns) = (self.stages.awaiting_group.since_of(self.id))
                .or_else(|| self.state.first_messages.come(&reader, now_ns))
        {
            let late = LateRun {
                client: self.state.client.speaker().clone(),
                line: self.state.client.line(self.id),
                cluster: self.state.client.cluster(&self.world.shared),
                topic: topic.clone(),
                partition,
                log,
                asked_ns,
                since_ns,
                ranges: vec![],
                own: vec![],
                hops: vec![],
            };
            return Reading { reader: Reader::Unknown, run: None, late: Some(Box::new(late)) };
        }
        let run = self.progress(&reader, topic, partition).map(|progress| Run::begin(progress, log));
        Reading { reader, run, late: None }
    }

    /// How far a group has come in a partition, where it is known and the other end of the
    /// connection does not count.
    pub(super) fn progress(
        &mut self,
        reader: &Reader,
        topic: &Topic,
        partition: i32,
    ) -> Option<progress::Shared> {
        if self.may_find_other_end() || reader.group().is_none() {
            return None;
        }
        let cluster = self.state.client.cluster(&self.world.shared);
        progress_of(&self.world.shared, cluster, reader, topic, partition)
    }

    /// Holds messages until it is known for whom they are.
    pub(super) fn await_group(&mut self, run: LateRun) {
        if self.stages.awaiting_group.push(self.id, run) {
            self.stages.release(When::Full, self.world);
        }
    }

    /// Something comes that concerns all messages before it: those of the current run wait with the
    /// others.
    pub(super) fn await_group_with_others(&mut self) {
        let late = self.state.cursor.as_mut().and_then(|cursor| cursor.late.as_mut());
        if let Some(part) = late.and_then(|late| late.part_with_hops()) {
            self.await_group(part);
        }
    }

    /// Who takes part, for the current records.
    pub(super) fn parties(&mut self) -> Arc<Parties> {
        let reader = self.state.cursor.as_ref().map_or(Reader::Unknown, |cursor| cursor.reader.clone());
        let parties = self.parties_of(&reader);
        if let Some(cursor) = &mut self.state.cursor {
            cursor.parties = Some(Arc::clone(&parties));
        }
        parties
    }

    /// A hop that a commit will cover, or that a share group's member will acknowledge.
    #[inline(always)]
    pub(super) fn open(&mut self, operation: Operation<'_>, hop: &Hop) {
        let (Some(cursor), Some(offset), Topic::Named(topic)) =
            (&mut self.state.cursor, hop.passage.offset, &hop.topic)
        else {
            return;
        };
        if let (Operation::ShareFetch { .. }, Some(id)) = (operation, cursor.id) {
            let span_id = hop.passage.span_id(&hop.parties, topic);
            let open = Open { offset, trace_id: hop.passage.trace_id(), span_id };
            self.acquire(id, hop.passage.partition, open);
            return;
        }
        if let Some(run) = &mut cursor.run {
            run.open(hop);
        }
    }

    /// No more records come for now: what is known of them is there for all workers from now on.
    pub(in crate::worker) fn settle(&mut self) {
        self.note();
        self.answered();
    }

    fn note(&mut self) {
        self.apply_markers();
        let Some(cursor) = self.state.cursor.take() else { return };
        let PartitionCursor { run, late, delay, mut reads, topic, parties, watch, found, .. } = cursor;
        self.watched(&topic, watch, found);
        self.note_reads(&mut reads);
        if let Some(delay) = delay {
            delay.settle(&self.world.shared);
        }
        if let Some(late) = late {
            self.await_group(*late);
        }
        if let Some(run) = run {
            let client_id = parties.as_ref().and_then(|parties| parties.client_id.as_deref());
            run.end(&topic, client_id, &self.world.shared);
        }
    }
}
