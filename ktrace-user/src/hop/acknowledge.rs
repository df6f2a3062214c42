//! What members of share groups (KIP-932) acquire, and what they do with it: accept it, release it
//! for others, reject it, or keep it for longer.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use ktrace_kafka::context::{SpanId, TraceId};

use super::groups::Reader;
use super::progress::{MAX_SHOWN, Open};

/// Messages of one connection that are remembered until they are acknowledged. A member may hold
/// ten thousand of a partition (`share.partition.max.record.locks`). Over the limit the first ones
/// of the partition are evicted.
pub const MAX_ACQUIRED: usize = 16 << 10;

/// Runs that one range is split into; the rest is one run of an unknown type. A range has no more
/// messages than a member may hold.
const MAX_RUNS: usize = 16 << 10;

/// What becomes of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// There is no message at this offset.
    Gap,
    /// It was processed.
    Accept,
    /// It may be delivered again to any member.
    Release,
    /// It will not be delivered to the group again.
    Reject,
    /// Its member keeps it for longer (KIP-1222).
    Renew,
    /// An unknown type, or the number of types is not that of the offsets: brokers refuse both.
    Unknown,
}

impl AcknowledgeType {
    /// As the wire numbers them.
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Gap,
            1 => Self::Accept,
            2 => Self::Release,
            3 => Self::Reject,
            4 => Self::Renew,
            _ => Self::Unknown,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Accept => "accept",
            Self::Release => "release",
            Self::Reject => "reject",
            Self::Renew => "renew",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the member no longer holds it.
    #[must_use]
    pub fn leaves_its_member(self) -> bool {
        self.is_final() || self == Self::Release
    }

    /// Whether the group is done with the message.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Gap | Self::Accept | Self::Reject)
    }
}

/// Consecutive messages that a member acknowledged in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub of: AcknowledgeType,
    /// How many offsets, up to that of the hop.
    pub messages: u64,
    /// How long the client has to wait by its quota, in milliseconds.
    pub throttle_ms: u32,
    /// Those of them that are shown, as far as they are known, the last first.
    pub shown: Vec<Open>,
    /// Hashed into its span id, with the topic.
    pub place: u64,
}

/// Splits a range of offsets into runs that are acknowledged in the same way, in order. A single
/// type stands for all offsets.
pub fn runs(
    offsets: RangeInclusive<i64>,
    types: &[u8],
) -> impl Iterator<Item = (RangeInclusive<i64>, AcknowledgeType)> {
    let (first, last) = offsets.into_inner();
    let is_one_each = last.checked_sub(first).and_then(|more| usize::try_from(more).ok()?.checked_add(1))
        == Some(types.len());
    let types = if is_one_each || types.len() == 1 { types } else { &[u8::MAX] };
    let mut chunks = types.chunk_by(|one, next| one == next).take(MAX_RUNS);
    let mut next = Some(first);
    let mut left = types.len();
    std::iter::from_fn(move || {
        let begin = next?;
        let run = chunks.next();
        let len = run.map_or(left, <[u8]>::len);
        left = left.saturating_sub(len);
        let end = if left == 0 { last } else { begin.saturating_add_unsigned(len as u64).saturating_sub(1) };
        next = (left > 0).then(|| end.saturating_add(1));
        let of = run.and_then(<[u8]>::first).map_or(AcknowledgeType::Unknown, |of| AcknowledgeType::of(*of));
        Some((begin..=end, of))
    })
}

/// The ids of a delivered message's span; `None` for one that carries ktrace's own telemetry, and
/// has no span.
type Got = Option<(TraceId, SpanId)>;

/// The acquired messages of a range of offsets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The messages that have spans, the last first, at most [`MAX_SHOWN`].
    pub shown: Vec<Open>,
    /// How many others carry ktrace's own telemetry.
    pub own: u64,
}

/// What a member acquired on one connection and has not acknowledged yet. Brokers accept
/// acknowledgements on the same connection only.
#[derive(Debug, Default)]
pub struct Acquired {
    of: Reader,
    by_partition: HashMap<(u128, i32), BTreeMap<i64, Got>>,
    len: usize,
}

impl Acquired {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.by_partition.clear();
        self.len = 0;
    }

    /// An empty one for this member.
    #[must_use]
    pub fn of(member: Reader) -> Self {
        Self { of: member, ..Self::default() }
    }

    /// Whether it is this member's.
    #[must_use]
    pub fn is_of(&self, member: &Reader) -> bool {
        self.of == *member
    }

    /// Adds a delivered message. Returns how many others were evicted for it.
    pub fn add(&mut self, topic: u128, partition: i32, offset: i64, got: Got) -> usize {
        let mut forgotten = 0;
        if self.len >= MAX_ACQUIRED {
            let of_partition = self.by_partition.get_mut(&(topic, partition));
            forgotten = match of_partition.and_then(BTreeMap::pop_first) {
                Some(_) => {
                    self.len = self.len.saturating_sub(1);
                    1
                }
                None => {
                    let all = self.len;
                    self.clear();
                    all
                }
            };
        }
        let of_partition = self.by_partition.entry((topic, partition)).or_default();
        if of_partition.insert(offset, got).is_none() {
            self.len = self.len.saturating_add(1);
        }
        forgotten
    }

    /// The messages of a range. With `forget` they are removed: the member no longer holds them.
    pub fn take(&mut self, topic: u128, partition: i32, offsets: RangeInclusive<i64>, forget: bool) -> Taken {
        let Some(of_partition) = self.by_partition.get_mut(&(topic, partition)) else {
            return Taken::default();
        };
        if offsets.is_empty() {
            return Taken::default();
        }
        let open = |(offset, got): (&i64, &Got)| {
            got.map(|(trace_id, span_id)| Open { offset: *offset, trace_id, span_id })
        };
        let range = || of_partition.range(offsets.clone());
        let taken = Taken {
            shown: range().rev().filter_map(open).take(MAX_SHOWN).collect(),
            own: range().filter(|(_, got)| got.is_none()).count() as u64,
        };
        if forget {
            let gone = of_partition.extract_if(offsets, |_, _| true).count();
            self.len = self.len.saturating_sub(gone);
            if of_partition.is_empty() {
                self.by_partition.remove(&(topic, partition));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::AcknowledgeType::{Accept, Gap, Reject, Release, Renew, Unknown};
    use super::*;

    fn told(offsets: RangeInclusive<i64>, types: &[u8]) -> Vec<(i64, i64, AcknowledgeType)> {
        runs(offsets, types).map(|(offsets, of)| (*offsets.start(), *offsets.end(), of)).collect()
    }

    #[test]
    fn a_range_is_taken_apart_by_type() {
        assert_eq!(told(5..=9, &[1]), [(5, 9, Accept)]);
        assert_eq!(told(5..=5, &[2]), [(5, 5, Release)]);
        let expected = [(5, 6, Accept), (7, 7, Reject), (8, 8, Gap), (9, 9, Accept), (10, 10, Renew)];
        assert_eq!(told(5..=10, &[1, 1, 3, 0, 1, 4]), expected);
        assert_eq!(
            told(i64::MAX - 1..=i64::MAX, &[1, 2]),
            [(i64::MAX - 1, i64::MAX - 1, Accept), (i64::MAX, i64::MAX, Release)]
        );
    }

    #[test]
    fn what_no_broker_accepts_is_one_run_of_no_type() {
        for (first, last, types) in
            [(5, 9, &[][..]), (5, 9, &[1, 1]), (9, 5, &[1, 2]), (i64::MIN, i64::MAX, &[1, 2]), (5, 5, &[9])]
        {
            assert_eq!(told(RangeInclusive::new(first, last), types), [(first, last, Unknown)]);
        }
        assert_eq!(told(RangeInclusive::new(9, 5), &[1]), [(9, 5, Accept)]);
        assert_eq!(told(i64::MIN..=i64::MAX, &[1]), [(i64::MIN, i64::MAX, Accept)]);
    }

    #[test]
    fn runs_are_bounded() {
        let types: Vec<u8> = (0..MAX_RUNS + 10).map(|at| 1 + (at % 2) as u8).collect();
        let all = told(0..=types.len() as i64 - 1, &types);
        assert_eq!(all.len(), MAX_RUNS + 1);
        assert_eq!(*all.last().unwrap(), (MAX_RUNS as i64, types.len() as i64 - 1, Unknown));
    }

    fn add(acquired: &mut Acquired, partition: i32, Open { offset, trace_id, span_id }: Open) {
        acquired.add(7, partition, offset, Some((trace_id, span_id)));
    }

    fn open(offset: i64, byte: u8) -> Open {
        Open { offset, trace_id: TraceId::new([byte; 16]).unwrap(), span_id: SpanId::new([byte; 8]).unwrap() }
    }

    #[test]
    fn what_was_acquired_last_is_acknowledged() {
        let mut acquired = Acquired::default();
        for at in 0..4 {
            add(&mut acquired, 0, open(at, 1));
        }
        add(&mut acquired, 0, open(2, 2));
        add(&mut acquired, 1, open(2, 3));
        assert_eq!(acquired.take(7, 0, 1..=2, false).shown, [open(2, 2), open(1, 1)]);
        assert_eq!(acquired.take(7, 0, 1..=2, true).shown, [open(2, 2), open(1, 1)]);
        assert_eq!(acquired.take(7, 0, i64::MIN..=i64::MAX, true).shown, [open(3, 1), open(0, 1)]);
        assert_eq!(acquired.take(8, 0, 0..=9, true).shown, []);
        assert_eq!(acquired.take(7, 1, RangeInclusive::new(9, 0), true).shown, []);
        assert_eq!((acquired.len(), acquired.by_partition.len()), (1, 1));
    }

    #[test]
    fn own_telemetry_is_acquired_too() {
        let mut acquired = Acquired::default();
        acquired.add(7, 0, 1, None);
        add(&mut acquired, 0, open(2, 1));
        acquired.add(7, 0, 3, None);
        assert_eq!(acquired.take(7, 0, 1..=3, false), Taken { shown: vec![open(2, 1)], own: 2 });
        assert_eq!(acquired.take(7, 0, 3..=9, true), Taken { shown: vec![], own: 1 });
        assert_eq!(acquired.len(), 2);
    }

    #[test]
    fn what_is_acquired_is_bounded() {
        let mut acquired = Acquired::default();
        for at in 0..=MAX_ACQUIRED as i64 {
            add(&mut acquired, 0, open(at, 1));
        }
        assert_eq!(acquired.len(), MAX_ACQUIRED);
        assert_eq!(acquired.take(7, 0, 0..=1, false).shown, [open(1, 1)]);
        assert_eq!(acquired.take(7, 0, 0..=i64::MAX, false).shown.len(), MAX_SHOWN);
        add(&mut acquired, 1, open(0, 1));
        assert_eq!(acquired.len(), 1);
    }
}
