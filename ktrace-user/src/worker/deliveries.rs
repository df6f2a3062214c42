//! Who reads a partition, and how often each message was delivered to that group: computed here
//! alone, whether the reader is known when messages come, or a little later
//! ([`awaiting_group`](super::stage::awaiting_group)).

use std::ops::Range;
use std::sync::Arc;

use ktrace_kafka::context::TraceId;

use super::shared::Shared;
use crate::hop::groups::{Client, FetchFrom, Line, Member, Reader};
use crate::hop::identity::{self, Delivery};
use crate::hop::progress::{self, Before, Open, ProgressKey};
use crate::hop::{Hop, Kind, Topic, shown};

/// Longer ids of groups and members are not kept.
pub(super) const MAX_ID_BYTES: usize = 1024;

/// For whom a client reads a partition, as far as all workers know by now.
pub(super) fn reader(shared: &Shared, client: &Client, line: Line, from: FetchFrom<'_>) -> Reader {
    let mut reader = Reader::Unknown;
    shared.groups.update(|groups| {
        let (found, news) = groups.reader(client, line, from);
        reader = found;
        news
    });
    reader
}

/// For whom a member of a share group reads, as its exchanges say.
pub(super) fn share_member(group: Option<&str>, member: Option<&str>) -> Reader {
    let kept = |id: &str| (!id.is_empty() && id.len() <= MAX_ID_BYTES).then(|| Arc::from(id));
    let Some(group) = group.and_then(kept) else { return Reader::Unknown };
    match member.and_then(kept) {
        Some(id) => Reader::Member(Arc::new(Member { group, id, generation: None })),
        None => Reader::Group(group),
    }
}

/// How far a group has come in a partition; `None` where the reader is of no known group.
pub(super) fn progress_of(
    shared: &Shared,
    cluster: Option<Arc<str>>,
    reader: &Reader,
    topic: &Topic,
    partition: i32,
) -> Option<progress::Shared> {
    let group = Arc::clone(reader.group()?);
    let topic = Arc::clone(&shown(topic).name);
    Some(shared.progress.of(&ProgressKey { cluster, group, topic, partition }))
}

/// What a fetch says of a partition's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    /// The topic's id, where the wire names that.
    pub id: Option<u128>,
    /// Where the client reads on; negative where that is unknown.
    pub fetch_offset: i64,
    /// Negative where the broker does not say.
    pub high_watermark: i64,
}

/// Messages that a group gets one behind the other.
pub(super) struct Run {
    progress: progress::Shared,
    /// From here on they are not noted yet.
    from: i64,
    /// Behind the last of them.
    next: i64,
    before: Before,
    /// Those that are shown.
    open: Vec<Opened>,
    /// The last of those that carry ktrace's own telemetry.
    own: Range<i64>,
}

/// A message that is shown. Most are forgotten again, so what its span's id is made of does for
/// now.
struct Opened {
    offset: i64,
    trace_id: TraceId,
    derived: TraceId,
    delivery: Delivery,
}

/// Nothing is known before the first record comes.
const NOTHING: Before = Before { times: 0, is_behind: false, until: i64::MIN };

impl Run {
    pub fn begin(progress: progress::Shared, log: Log) -> Self {
        let mut known = progress::lock(&progress);
        match log.id {
            Some(id) => known.log_is(id),
            None if log.high_watermark >= 0 => known.log_ends(log.high_watermark),
            None => {}
        }
        drop(known);
        let from = if log.fetch_offset < 0 { i64::MAX } else { log.fetch_offset };
        Self { progress, from, next: i64::MIN, before: NOTHING, open: vec![], own: 0..0 }
    }

    /// A record of this offset is delivered.
    #[inline]
    pub fn deliver(&mut self, offset: i64) {
        if self.next == i64::MIN {
            self.from = self.from.min(offset);
        }
        if offset >= self.before.until || offset < self.next {
            self.note();
            if offset < self.next {
                self.from = offset;
            }
            self.before = progress::lock(&self.progress).before(offset);
        }
        self.next = offset.saturating_add(1);
    }

    /// Offsets were delivered some time ago, and these hops show some of them. What stands before
    /// or behind `range` is left in `hops`.
    pub fn deliver_late<'x>(
        &mut self,
        range: Range<i64>,
        hops: &mut std::iter::Peekable<impl Iterator<Item = &'x mut Hop>>,
    ) {
        self.note();
        (self.from, self.next, self.before) = (range.start, range.start, NOTHING);
        while let Some(hop) = hops.next_if(|hop| hop.passage.offset.is_some_and(|at| range.contains(&at))) {
            self.deliver(hop.passage.offset.unwrap_or_default());
            hop.passage.counts(self.before);
            self.open(hop);
        }
        self.next = range.end;
    }

    /// Which delivery to its group that of the last record is, from 1, and whether it comes after
    /// later ones.
    #[inline]
    pub fn times(&self) -> (u32, bool) {
        (self.before.times.saturating_add(1), self.before.is_behind)
    }

    /// The last record carries ktrace's own telemetry.
    pub fn deliver_own(&mut self, offset: i64) {
        if self.own.end != offset {
            self.note_own();
            self.own.start = offset;
        }
        self.own.end = offset.saturating_add(1);
    }

    /// So do all records of a range.
    pub fn deliver_late_own(&mut self, range: Range<i64>) {
        self.note_own();
        self.own = range;
    }

    /// A hop that a commit will cover.
    #[inline]
    pub fn open(&mut self, hop: &Hop) {
        let (Kind::Delivered { delivery, .. }, Some(offset), Topic::Named(_)) =
            (&hop.passage.kind, hop.passage.offset, &hop.topic)
        else {
            return;
        };
        // The newest are kept in the end.
        if self.open.len() >= 2 * progress::MAX_OPEN {
            self.open.drain(..progress::MAX_OPEN);
        }
        let (trace_id, derived) = (hop.passage.trace_id(), hop.passage.derived);
        self.open.push(Opened { offset, trace_id, derived, delivery: *delivery });
    }

    /// No more records come for now: what is known of them is there for all from now on.
    pub fn end(mut self, topic: &Topic, client_id: Option<&str>, shared: &Shared) {
        self.note();
        self.note_own();
        let Topic::Named(topic) = topic else { return };
        let old = self.open.len().saturating_sub(progress::MAX_OPEN);
        let open = |of: Opened| {
            let span_id = identity::poll_span_id(of.derived, &topic.name, client_id, of.delivery);
            Open { offset: of.offset, trace_id: of.trace_id, span_id }
        };
        let mut open: Vec<Open> = self.open.drain(..).skip(old).map(open).collect();
        if !open.is_empty() {
            shared.progress.wait(&mut progress::lock(&self.progress), &mut open);
        }
    }

    fn note(&mut self) {
        if self.next > self.from {
            progress::lock(&self.progress).deliver(self.from..self.next);
            self.from = self.next;
        }
    }

    fn note_own(&mut self) {
        if !self.own.is_empty() {
            progress::lock(&self.progress).deliver_own(self.own.clone());
        }
    }
}
