//! Messages that wait for a commit in one partition.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::hop::{Hop, Kind};
use crate::span::Resource;

/// Messages that were emitted, and silent partitions, are forgotten after this.
pub(super) const FORGET_NS: u64 = 3_600_000_000_000;

/// Messages of one group in one partition that are followed at once, emitted ones included.
pub(super) const MAX_OF_PARTITION: usize = 512;

/// Processes of which bytes were missed since the last look. With more, nothing is known of any
/// process.
pub(super) const MAX_MISSED: usize = 64;

/// What has waited too long.
#[derive(Debug, Default)]
pub struct Due {
    /// In the order of their delivery.
    pub hops: Vec<Hop>,
    /// So many more were delivered and not committed.
    pub left_out: u64,
}

/// Whose bytes were missed, perhaps a commit among them: of what came to these processes nothing is
/// known any more.
#[derive(Debug, Default)]
pub(super) struct Missed {
    pub some: Vec<Arc<Resource>>,
    all: bool,
}

impl Missed {
    pub fn add(&mut self, of: Arc<Resource>) {
        if !self.has(&of) {
            self.all = self.some.len() >= MAX_MISSED;
            self.some.push(of);
        }
    }

    fn has(&self, of: &Arc<Resource>) -> bool {
        self.all || self.some.iter().any(|known| Arc::ptr_eq(known, of))
    }
}

/// One partition of a group, with what was delivered of it and not committed.
#[derive(Debug)]
pub(super) struct Partition {
    /// The group will go on here.
    pub committed: i64,
    /// By offset.
    waiting: BTreeMap<i64, Waiting>,
    /// Those for which there was no room.
    more: VecDeque<More>,
    /// When it was heard of last.
    pub last_ns: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Of the first delivery.
    since_ns: u64,
    /// Until it was emitted.
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

impl Partition {
    pub fn new() -> Self {
        Self { committed: i64::MIN, waiting: BTreeMap::new(), more: VecDeque::new(), last_ns: 0 }
    }

    /// How many wait, emitted ones included.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing of it has to be kept by now.
    pub fn is_over(&self, now_ns: u64) -> bool {
        let is_silent = now_ns.saturating_sub(self.last_ns) > FORGET_NS;
        is_silent && self.waiting.is_empty() && self.more.is_empty()
    }

    /// A message was delivered. Returns whether it waits from now on.
    pub fn hold(&mut self, offset: i64, mut hop: Hop, has_room: bool, patience_ns: u64) -> bool {
        // Delivered again, it has waited since the first time.
        if offset < self.committed || self.waiting.contains_key(&offset) {
            return false;
        }
        let since_ns = hop.passage.end_ns;
        let counted = self.more.iter_mut().find(|more| (more.first..=more.last).contains(&offset));
        if !has_room || self.waiting.len() >= MAX_OF_PARTITION {
            if counted.is_none() {
                self.count(offset, since_ns, patience_ns / 8);
            }
            return false;
        }
        let since_ns = counted.map_or(since_ns, |more| {
            more.count = more.count.saturating_sub(1);
            more.since_ns
        });
        if let Kind::Delivered { is_uncommitted, .. } = &mut hop.passage.kind {
            *is_uncommitted = true;
        }
        self.waiting.insert(offset, Waiting { since_ns, hop: Some(hop.into()) });
        true
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
    pub fn settle(&mut self, offsets: RangeInclusive<i64>) -> usize {
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

    /// Emits those that have waited long enough, and forgets those of which nothing is known any
    /// more.
    pub fn look(&mut self, now_ns: u64, patience_ns: u64, missed: &Missed, due: &mut Due) {
        let waits = |since_ns: u64| now_ns.saturating_sub(since_ns);
        self.waiting.retain(|_, Waiting { since_ns, hop }| {
            if hop.as_deref().is_some_and(|hop| missed.has(&hop.parties.resource)) {
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
