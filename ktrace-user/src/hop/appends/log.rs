//! One log: the appends whose offsets are known, and the requests whose offsets are pending.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Append, Found, Request, Sought, What};
use crate::hop::deadline::{LATE_NS, is_over};

/// Appends of one log that are kept; over the limit those with the lowest offsets are evicted. A
/// busy partition takes a few hundred requests a second, so this holds about ten seconds of it.
pub(super) const MAX_APPENDS: usize = 4096;

/// Pending requests to one log; over the limit the oldest is dropped, and deliveries no longer wait
/// for it. Clients have at most five in flight (`max.in.flight.requests.per.connection`), so this
/// is a dozen producers.
const MAX_REQUESTS: usize = 64;

/// How long a delivery waits for a pending request that may have brought it. The broker answers
/// both at about the same time.
pub(super) const PATIENCE_NS: u64 = 1_000_000_000;

/// A request without a response after this will get none: producers give up then (Kafka's default
/// of `request.timeout.ms`).
pub(super) const REQUEST_NS: u64 = 30_000_000_000;

/// The appends of one partition, and its pending requests. Locked for each call; look-ups cost a
/// binary search at most.
#[derive(Debug, Default)]
pub struct Log(Mutex<State>);

/// By identity: two logs with equal contents differ.
impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Log {}

#[derive(Debug, Default)]
struct State {
    /// In order of offsets, without overlap.
    appends: VecDeque<Append>,
    /// From the lowest to the highest offset of evicted appends.
    forgotten: Range<i64>,
    requests: VecDeque<Pending>,
    topic_id: Option<u128>,
    /// When a message of it was first looked up.
    first_ns: Option<u64>,
    /// A delivery waits for a change.
    is_awaited: bool,
    /// It was evicted from the store; appends are no longer counted, so none is kept.
    is_over: bool,
}

/// A pending request.
#[derive(Debug)]
struct Pending {
    request: Request,
    start_ns: u64,
    /// Its messages get this offset or a later one: what was appended before it began is not its
    /// own.
    from: i64,
}

impl Log {
    fn known(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the topic's id. If it had another, the log is a new one under the old name, and is
    /// emptied. Returns the number of appends before and after.
    pub(super) fn is(&self, id: u128) -> (usize, usize) {
        let mut known = self.known();
        let before = known.appends.len();
        if known.topic_id.replace(id).is_some_and(|before| before != id) {
            known.begin_anew();
        }
        (before, known.appends.len())
    }

    /// A request was sent and is pending.
    pub fn asked(&self, request: Request, start_ns: u64) {
        let mut known = self.known();
        if known.requests.len() >= MAX_REQUESTS {
            known.requests.pop_front();
        }
        // What was appended before it began is not its own.
        let mut latest = known.appends.iter().rev().take(MAX_REQUESTS);
        let before = latest.find(|append| append.end_ns <= start_ns);
        let from = before.map_or(0, |append| append.offsets.end);
        known.requests.push_back(Pending { request, start_ns, from });
    }

    /// A request is no longer pending. Returns whether a delivery waits for that.
    pub(super) fn answered(&self, request: Request) -> bool {
        let mut known = self.known();
        known.requests.retain(|asked| asked.request != request);
        std::mem::take(&mut known.is_awaited)
    }

    /// Adds an append. Returns the number of appends before and after, and whether a delivery waits
    /// for a change.
    pub(super) fn append(&self, append: Append) -> (usize, usize, bool) {
        let mut known = self.known();
        let before = known.appends.len();
        if !known.is_over {
            known.append(append);
        }
        (before, known.appends.len(), std::mem::take(&mut known.is_awaited))
    }

    /// Evicts the older half. Returns the number of appends before and after.
    pub(super) fn forget_half(&self) -> (usize, usize) {
        let mut known = self.known();
        let before = known.appends.len();
        known.forget(before / 2);
        known.appends.shrink_to_fit();
        (before, known.appends.len())
    }

    /// The log is evicted from its store. Returns how many appends it had.
    pub(super) fn end(&self) -> usize {
        let mut known = self.known();
        known.is_over = true;
        std::mem::take(&mut known.appends).len()
    }

    /// Looks an offset up. The answer holds for its neighbours, too.
    #[must_use]
    pub fn find(&self, sought: Sought) -> Found {
        self.known().find(sought)
    }
}

impl State {
    fn append(&mut self, append: Append) {
        let Range { start, end } = append.offsets;
        if append.offsets.is_empty() {
            return;
        }
        let at = match self.appends.back() {
            // Nearly always the next.
            Some(last) if last.offsets.end > start => self.after(start),
            _ => self.appends.len(),
        };
        match self.appends.get_mut(at) {
            Some(known) if known.offsets.start < end => {
                // A retry of what had arrived, or seen at both ends.
                let is_late = append.start_ns > known.end_ns;
                let is_again = append.number.is_some() && append.number == known.number;
                if known.offsets == append.offsets && (is_again || !is_late) {
                    known.start_ns = known.start_ns.min(append.start_ns);
                } else if is_late {
                    // An offset is given once: the log is another one, under the old name.
                    self.begin_anew();
                    self.appends.push_back(append);
                }
            }
            _ => self.appends.insert(at, append),
        }
        self.forget(self.appends.len().saturating_sub(MAX_APPENDS));
    }

    /// The index of the first append that ends after this offset.
    fn after(&self, offset: i64) -> usize {
        self.appends.partition_point(|append| append.offsets.end <= offset)
    }

    fn begin_anew(&mut self) {
        (self.appends, self.forgotten) = (VecDeque::new(), 0..0);
    }

    fn forget(&mut self, count: usize) {
        for Append { offsets, .. } in self.appends.drain(..count) {
            let Range { start, end } = &mut self.forgotten;
            *start = if *start == *end { offsets.start } else { offsets.start.min(*start) };
            *end = offsets.end.max(*end);
        }
    }

    fn find(&mut self, sought: Sought) -> Found {
        let offset = sought.offset;
        let found = |place: usize, append: &Append| {
            let Append { offsets, oldest_ms, newest_ms, start_ns, .. } = append.clone();
            Found { offsets, what: What::Append { oldest_ms, newest_ms, start_ns }, place }
        };
        let is_it = |append: &&Append| append.offsets.contains(&offset);
        let after = sought.after.saturating_add(1);
        if let Some(append) = self.appends.get(after).filter(is_it) {
            return found(after, append);
        }
        let place = self.after(offset);
        let next = self.appends.get(place);
        if let Some(append) = next.filter(is_it) {
            return found(place, append);
        }
        let first_ns = *self.first_ns.get_or_insert(sought.delivered_ns);
        // What holds for this offset holds for those behind it, up to the next append.
        let is_last = next.is_none();
        let mut until = next.map_or(i64::MAX, |next| next.offsets.start);
        let what = if self.forgotten.contains(&offset) {
            until = until.min(self.forgotten.end);
            What::Forgotten
        } else if self.may_come(sought, is_last, first_ns) {
            self.is_awaited = true;
            What::Sought
        } else {
            What::Nothing
        };
        Found { offsets: offset..until, what, place }
    }

    /// Whether a process of this host writes to it, or may: the worker that would see it may be
    /// behind.
    fn is_written(&self, sought: Sought, first_ns: u64) -> bool {
        !self.appends.is_empty()
            || !self.requests.is_empty()
            || !is_over(first_ns, LATE_NS, sought.delivered_ns)
    }

    /// Whether a response that is still to come may name the offset.
    fn may_come(&mut self, sought: Sought, is_last: bool, first_ns: u64) -> bool {
        let Some(now_ns) = sought.now_ns else { return false };
        let waits = |since_ns, patience_ns| !is_over(since_ns, patience_ns, now_ns);
        self.requests.retain(|asked| waits(asked.start_ns, REQUEST_NS));
        let brings = |asked: &Pending| asked.start_ns <= sought.delivered_ns && asked.from <= sought.offset;
        (waits(sought.delivered_ns, PATIENCE_NS) && self.requests.iter().any(brings))
            || (sought.several
                && is_last
                && waits(sought.delivered_ns, LATE_NS)
                && self.is_written(sought, first_ns))
    }
}
