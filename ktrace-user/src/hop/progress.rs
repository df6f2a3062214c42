//! How far a group has come in a partition: what was delivered to it and how often, and what it has
//! committed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ktrace_kafka::context::{SpanId, TraceId};

use super::store::{Bound, Bounded, Store, part_of};

/// Stretches of one partition that are kept; over the limit the lowest offsets are dropped. A
/// consumer that reads in order has one.
const MAX_STRETCHES: usize = 64;

/// Delivered messages of one partition that are remembered until they are committed: clients fetch
/// up to 500 at a time (`max.poll.records`) and commit them together.
pub const MAX_OPEN: usize = 512;

/// Of all partitions together. When exceeded, a partition keeps only its newest: that one links the
/// next commit still.
const MAX_OPEN_IN_ALL: usize = 256 << 10;

/// Partitions, each with a group, that are kept.
const MAX_PARTITIONS: usize = 32 << 10;

/// What the names of their groups and topics may take, in bytes. Both are as long as a client
/// likes.
const MAX_NAME_BYTES: usize = 16 << 20;

/// What a partition takes beside its names and its open messages, with a few stretches, about.
const PARTITION_BYTES: usize = 768;

/// What an open message takes, about: the queue of a partition grows by doubling.
const OPEN_BYTES: usize = 48;

/// Names the progress of one group in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProgressKey {
    pub cluster: Option<Arc<str>>,
    pub group: Arc<str>,
    /// Its name, or its id as Kafka prints it.
    pub topic: Arc<str>,
    pub partition: i32,
}

/// Offsets that were delivered equally often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    offsets: Range<i64>,
    times: u32,
}

/// Earlier deliveries at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// How often.
    pub times: u32,
    /// Later offsets were delivered before, and this one was not.
    pub is_behind: bool,
    /// The same holds for all offsets from the one asked for up to this one, exclusive.
    pub until: i64,
}

/// A delivered message, as a commit will name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub offset: i64,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// What a commit covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Delivered messages that no commit has covered before.
    pub messages: u64,
    /// Those of them that are shown, as far as they are known, the newest first.
    pub shown: Vec<Open>,
    /// The offset lies before the last one that was committed.
    pub goes_back: bool,
    /// The same offset was committed before.
    pub is_known: bool,
    /// Of the messages, those that carry ktrace's own telemetry.
    pub own: u64,
}

impl Covered {
    /// Whether there are messages, and all of them carry ktrace's own telemetry.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.messages > 0 && self.own >= self.messages
    }
}

/// Links on the span of one commit or acknowledgement. OpenTelemetry SDKs keep 128 links of a span
/// by default.
pub const MAX_SHOWN: usize = 32;

/// The deliveries and commits of one group in one partition.
#[derive(Debug, Default)]
pub struct Progress {
    /// In order of offsets, without overlap.
    stretches: VecDeque<Stretch>,
    committed: Option<i64>,
    topic_id: Option<u128>,
    /// At the last fetch the log ended before what was delivered of it.
    was_shorter: bool,
    open: VecDeque<Open>,
    /// Offsets of messages that carry ktrace's own telemetry: in order, without overlap.
    own: VecDeque<Range<i64>>,
    /// It was evicted from the store; open messages are no longer counted, so none is kept.
    is_evicted: bool,
}

impl Progress {
    /// What is known of an offset that is about to be delivered.
    #[must_use]
    pub fn before(&self, offset: i64) -> Before {
        let end = self.stretches.back().map_or(i64::MIN, |last| last.offsets.end);
        let at = self.stretches.partition_point(|stretch| stretch.offsets.end <= offset);
        match self.stretches.get(at) {
            Some(Stretch { offsets, times }) if offsets.contains(&offset) => {
                Before { times: *times, is_behind: false, until: offsets.end }
            }
            Some(next) => Before { times: 0, is_behind: true, until: next.offsets.start },
            None => Before { times: 0, is_behind: offset < end, until: i64::MAX },
        }
    }

    /// These offsets were delivered, those among them without a message included.
    pub fn deliver(&mut self, offsets: Range<i64>) {
        if offsets.is_empty() {
            return;
        }
        // Nearly always the next.
        if let Some(last) = self.stretches.back_mut()
            && last.times == 1
            && last.offsets.end == offsets.start
        {
            last.offsets.end = offsets.end;
            return;
        }
        let mut rest = offsets.clone();
        let mut all = VecDeque::with_capacity(self.stretches.len().saturating_add(2));
        for Stretch { offsets: known, times } in std::mem::take(&mut self.stretches) {
            push(&mut all, rest.start..rest.end.min(known.start), 1);
            push(&mut all, known.start..known.end.min(offsets.start), times);
            let both = known.start.max(offsets.start)..known.end.min(offsets.end);
            push(&mut all, both, times.saturating_add(1));
            push(&mut all, known.start.max(offsets.end)..known.end, times);
            rest.start = rest.start.max(known.end);
        }
        push(&mut all, rest, 1);
        let excess = all.len().saturating_sub(MAX_STRETCHES);
        all.drain(..excess);
        self.stretches = all;
    }

    /// Of the delivered offsets, these carry ktrace's own telemetry.
    pub fn deliver_own(&mut self, offsets: Range<i64>) {
        if offsets.is_empty() {
            return;
        }
        let from = self.own.partition_point(|known| known.end < offsets.start);
        let to = self.own.partition_point(|known| known.start <= offsets.end);
        let joined = self
            .own
            .drain(from..to.max(from))
            .fold(offsets, |all, known| all.start.min(known.start)..all.end.max(known.end));
        self.own.insert(from, joined);
        if self.own.len() > MAX_STRETCHES {
            self.own.pop_front();
        }
    }

    /// Notes where the log ends. If that is before what was delivered, twice in a row, it is a new
    /// log under the old name. Once does not count: a broker that has just become the leader may
    /// not know yet how far the log goes.
    pub fn log_ends(&mut self, high_watermark: i64) {
        let is_shorter = self.stretches.back().is_some_and(|last| high_watermark < last.offsets.end);
        if is_shorter && self.was_shorter {
            self.begin_anew();
        }
        self.was_shorter = is_shorter && !self.was_shorter;
    }

    /// Notes the topic's id. If it had another, the log is a new one under the old name.
    pub fn log_is(&mut self, id: u128) {
        if self.topic_id.replace(id).is_some_and(|known| known != id) {
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        (self.stretches, self.committed, self.was_shorter) = (VecDeque::new(), None, false);
        self.own = VecDeque::new();
    }

    /// The group has committed.
    pub fn commit(&mut self, offset: i64) -> Covered {
        let before = self.committed.replace(offset);
        let from = before.unwrap_or(i64::MIN);
        let mut covered =
            Covered { goes_back: offset < from, is_known: before == Some(offset), ..Covered::default() };
        let new = |offsets: &Range<i64>| {
            let (start, end) = (offsets.start.max(from), offsets.end.min(offset));
            u64::try_from(end.saturating_sub(start)).unwrap_or(0)
        };
        let sum = |all: u64, more| all.saturating_add(more);
        covered.messages = self.stretches.iter().map(|stretch| new(&stretch.offsets)).fold(0, sum);
        covered.own = self.own.iter().map(new).fold(0, sum);
        // A consumer that went back has some twice.
        self.open.make_contiguous().sort_by_key(|open| open.offset);
        let count = self.open.partition_point(|open| open.offset < offset);
        covered.shown = self.open.drain(..count).rev().take(MAX_SHOWN).collect();
        covered
    }
}

/// Adds a stretch at the end, joined with the last one if it was delivered as often.
fn push(all: &mut VecDeque<Stretch>, offsets: Range<i64>, times: u32) {
    if offsets.is_empty() {
        return;
    }
    match all.back_mut() {
        Some(last) if last.offsets.end == offsets.start && last.times == times => {
            last.offsets.end = offsets.end;
        }
        _ => all.push_back(Stretch { offsets, times }),
    }
}

impl ProgressKey {
    fn name_bytes(&self) -> usize {
        self.group.len().saturating_add(self.topic.len())
    }
}

/// The progress of all groups in all partitions. The partition that was read least recently is
/// evicted first: its deliveries count anew, and its next commit covers only what is delivered
/// after that.
#[derive(Debug)]
pub struct AllProgress {
    by_place: Mutex<Bounded<ProgressKey, Shared>>,
    /// Open messages of all partitions.
    open: AtomicUsize,
    max_open: AtomicUsize,
}

impl Default for AllProgress {
    fn default() -> Self {
        let bound = Bound { entries: MAX_PARTITIONS, bytes: MAX_NAME_BYTES };
        Self {
            by_place: Mutex::new(Bounded::new(bound)),
            open: AtomicUsize::new(0),
            max_open: AtomicUsize::new(MAX_OPEN_IN_ALL),
        }
    }
}

/// One group's progress in one partition, shared by those who read and who commit.
pub type Shared = Arc<Mutex<Progress>>;

/// Locks a partition's progress. Held for a few operations, never while the store is locked.
pub fn lock(progress: &Shared) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AllProgress {
    fn by_place(&self) -> MutexGuard<'_, Bounded<ProgressKey, Shared>> {
        self.by_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The progress of a group in a partition, known or new.
    pub fn of(&self, place: &ProgressKey) -> Shared {
        let evict = |_, evicted: Shared| {
            let mut evicted = lock(&evicted);
            self.weigh(evicted.open.len(), 0);
            (evicted.open, evicted.is_evicted) = (VecDeque::new(), true);
        };
        Arc::clone(self.by_place().get_or_insert(place, place.name_bytes(), Shared::default, evict))
    }

    /// Adds delivered messages that wait for their commit, and empties the list. Over the limit the
    /// oldest are dropped.
    pub fn wait(&self, progress: &mut Progress, opened: &mut Vec<Open>) {
        let before = progress.open.len();
        let most = match self.open.load(Ordering::Relaxed) < self.max_open.load(Ordering::Relaxed) {
            _ if progress.is_evicted => 0,
            true => MAX_OPEN,
            false => 1,
        };
        let excess = before.saturating_add(opened.len()).saturating_sub(most);
        progress.open.drain(..excess.min(before));
        progress.open.extend(opened.drain(..).skip(excess.saturating_sub(before)));
        self.weigh(before, progress.open.len());
    }

    /// The group has committed.
    pub fn commit(&self, progress: &mut Progress, offset: i64) -> Covered {
        let before = progress.open.len();
        let covered = progress.commit(offset);
        // Capacity that was needed once is not kept for ever.
        if progress.open.capacity() > progress.open.len().saturating_mul(4).saturating_add(MAX_SHOWN) {
            progress.open.shrink_to(progress.open.len().saturating_mul(2));
        }
        self.weigh(before, progress.open.len());
        covered
    }

    fn weigh(&self, before: usize, after: usize) {
        if after >= before {
            self.open.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.open.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
    }
}

impl Store for AllProgress {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        let partitions = self.by_place().len();
        vec![("partitions of groups", partitions), ("open messages", self.open.load(Ordering::Relaxed))]
    }

    fn bytes(&self) -> usize {
        let (partitions, names) = {
            let by_place = self.by_place();
            (by_place.len(), by_place.bytes())
        };
        let open = self.open.load(Ordering::Relaxed).saturating_mul(OPEN_BYTES);
        partitions.saturating_mul(PARTITION_BYTES).saturating_add(names).saturating_add(open)
    }

    fn hold_at_most(&self, part: f64) {
        self.by_place().hold_at_most(part);
        self.max_open.store(part_of(MAX_OPEN_IN_ALL, part), Ordering::Relaxed);
    }

    fn take_evicted(&self) -> u64 {
        self.by_place().take_evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(progress: &Progress) -> Vec<(i64, i64, u32)> {
        progress.stretches.iter().map(|one| (one.offsets.start, one.offsets.end, one.times)).collect()
    }

    #[test]
    fn what_is_delivered_again_is_counted() {
        let mut progress = Progress::default();
        progress.deliver(10..20);
        progress.deliver(20..30);
        assert_eq!(stretches(&progress), [(10, 30, 1)]);
        let new = Before { times: 0, is_behind: false, until: i64::MAX };
        assert_eq!(progress.before(30), new);
        assert_eq!(progress.before(15), Before { times: 1, is_behind: false, until: 30 });
        assert_eq!(progress.before(5), Before { times: 0, is_behind: true, until: 10 });
        progress.deliver(15..35);
        assert_eq!(stretches(&progress), [(10, 15, 1), (15, 30, 2), (30, 35, 1)]);
        progress.deliver(35..36);
        progress.deliver(0..40);
        assert_eq!(stretches(&progress), [(0, 10, 1), (10, 15, 2), (15, 30, 3), (30, 36, 2), (36, 40, 1)]);
        progress.deliver(50..60);
        assert_eq!(progress.before(45), Before { times: 0, is_behind: true, until: 50 });
        progress.deliver(7..7);
    }

    /// Against a count of each offset.
    #[test]
    fn it_agrees_with_counting_each() {
        let (mut progress, mut counts) = (Progress::default(), [0_u32; 64]);
        let mut random = 7_u64;
        for _ in 0..1000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (from, len) = ((random >> 33) % 60, (random >> 50) % 9);
            let offsets = from as i64..((from + len).min(64)) as i64;
            for offset in offsets.clone() {
                counts[offset as usize] += 1;
            }
            progress.deliver(offsets);
            for (offset, count) in (0..).zip(counts) {
                let before = progress.before(offset);
                assert_eq!(before.times, count);
                let end = counts.iter().rposition(|count| *count > 0).unwrap_or(0) as i64;
                assert_eq!(before.is_behind, count == 0 && offset < end);
                for same in offset..before.until.min(64) {
                    assert_eq!(counts[same as usize], count);
                }
            }
        }
    }

    #[test]
    fn a_commit_of_nothing_but_own_telemetry_is_known() {
        let mut progress = Progress::default();
        progress.deliver(0..100);
        for own in [10..20, 30..40, 20..25, 26..30, 25..26, 60..61, 60..61] {
            progress.deliver_own(own);
        }
        assert_eq!(progress.own, [10..40, 60..61]);
        let mut commit = |offset| {
            let covered = progress.commit(offset);
            (covered.messages, covered.own, covered.is_own())
        };
        assert_eq!(commit(10), (10, 0, false));
        assert_eq!(commit(25), (15, 15, true));
        assert_eq!(commit(40), (15, 15, true));
        assert_eq!(commit(40), (0, 0, false));
        assert_eq!(commit(61), (21, 1, false));
        for at in 0..10 * MAX_STRETCHES as i64 {
            progress.deliver_own(at * 2..at * 2 + 1);
        }
        assert_eq!(progress.own.len(), MAX_STRETCHES);
    }

    #[test]
    fn stretches_are_bounded() {
        let mut progress = Progress::default();
        for at in 0..10 * MAX_STRETCHES as i64 {
            progress.deliver(at * 2..at * 2 + 1);
        }
        assert_eq!(progress.stretches.len(), MAX_STRETCHES);
        assert_eq!(progress.before(20 * MAX_STRETCHES as i64 - 2).times, 1);
    }

    #[test]
    fn a_log_that_is_shorter_is_another() {
        let mut progress = Progress::default();
        progress.deliver(0..100);
        progress.log_ends(100);
        assert_eq!(progress.before(5).times, 1);
        progress.log_ends(99);
        progress.log_ends(100);
        progress.log_ends(99);
        assert_eq!(progress.before(5).times, 1, "once is not enough");
        progress.log_ends(99);
        assert_eq!(progress.before(5).times, 0);
    }

    #[test]
    fn a_topic_of_another_id_is_another() {
        let mut progress = Progress::default();
        progress.log_is(1);
        progress.deliver(0..100);
        progress.log_is(1);
        assert_eq!(progress.before(5).times, 1);
        progress.log_is(2);
        assert_eq!(progress.before(5).times, 0);
    }

    fn open(offset: i64) -> Open {
        let byte = u8::try_from(offset + 1).unwrap();
        Open { offset, trace_id: TraceId::new([byte; 16]).unwrap(), span_id: SpanId::new([byte; 8]).unwrap() }
    }

    fn place(partition: i32) -> ProgressKey {
        ProgressKey { cluster: None, group: "g".into(), topic: "t".into(), partition }
    }

    #[test]
    fn partitions_are_bounded_and_the_one_read_least_recently_is_evicted() {
        let all = AllProgress::default();
        let kept = all.of(&place(-1));
        for partition in 0..MAX_PARTITIONS as i32 {
            all.of(&place(partition));
            assert!(Arc::ptr_eq(&kept, &all.of(&place(-1))));
        }
        assert_eq!((all.rows()[0].1, all.take_evicted(), all.take_evicted()), (MAX_PARTITIONS, 1, 0));
    }

    /// A commit may come later, as at its transaction's end.
    #[test]
    fn what_is_evicted_is_no_longer_counted() {
        let all = AllProgress::default();
        let first = all.of(&place(0));
        lock(&first).deliver(0..9);
        all.wait(&mut lock(&first), &mut vec![open(1), open(2)]);
        assert_eq!(all.open.load(Ordering::Relaxed), 2);
        (1..=MAX_PARTITIONS as i32).for_each(|partition| drop(all.of(&place(partition))));
        assert_eq!((all.take_evicted(), all.open.load(Ordering::Relaxed)), (1, 0));
        all.wait(&mut lock(&first), &mut vec![open(3), open(4)]);
        let covered = all.commit(&mut lock(&first), 5);
        assert_eq!((covered.messages, covered.shown.len(), all.open.load(Ordering::Relaxed)), (5, 0, 0));
    }

    /// Hostile: millions of groups with long names.
    #[test]
    fn names_are_bounded_too() {
        let all = AllProgress::default();
        for group in 0..100_000 {
            let group = format!("{group}-{}", "x".repeat(1000));
            all.of(&ProgressKey { group: group.into(), ..place(0) });
            assert!(all.by_place().bytes() <= MAX_NAME_BYTES);
        }
        let left = all.by_place().len();
        assert!(left * 1000 <= MAX_NAME_BYTES);
        assert_eq!(all.take_evicted() + left as u64, 100_000);
    }

    #[test]
    fn room_for_open_messages_is_given_back() {
        let all = AllProgress::default();
        let progress = all.of(&place(0));
        let mut progress = lock(&progress);
        all.wait(&mut progress, &mut (0..100).cycle().take(3 * MAX_OPEN).map(open).collect());
        assert!(progress.open.capacity() <= 2 * MAX_OPEN);
        all.commit(&mut progress, 1000);
        assert!(progress.open.capacity() <= MAX_SHOWN);
    }

    #[test]
    fn a_commit_covers_what_no_other_has() {
        let all = AllProgress::default();
        let progress = all.of(&place(0));
        assert!(Arc::ptr_eq(&progress, &all.of(&place(0))));
        let mut progress = lock(&progress);
        progress.deliver(0..10);
        all.wait(&mut progress, &mut (0..10).map(open).collect());
        let covered = all.commit(&mut progress, 4);
        assert_eq!((covered.messages, covered.is_known), (4, false));
        assert_eq!(covered.shown, [open(3), open(2), open(1), open(0)]);
        let covered = all.commit(&mut progress, 6);
        assert_eq!((covered.messages, covered.shown.len(), progress.open.len()), (2, 2, 4));
        assert!(all.commit(&mut progress, 5).goes_back);
        assert_eq!(all.commit(&mut progress, 6), Covered { messages: 1, ..Covered::default() });
        assert_eq!(all.commit(&mut progress, 6), Covered { is_known: true, ..Covered::default() });
        assert_eq!(all.open.load(Ordering::Relaxed), 4);
        all.wait(&mut progress, &mut (0..100).cycle().take(2 * MAX_OPEN).map(open).collect());
        assert_eq!((progress.open.len(), all.open.load(Ordering::Relaxed)), (MAX_OPEN, MAX_OPEN));
    }
}
