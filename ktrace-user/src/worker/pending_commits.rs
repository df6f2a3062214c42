//! Commits that cannot be told yet: in a transaction they count when it ends; and with several rings, what they cover may lie in one
//! that is read a little later.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::listener::Listener;
use super::memory::HOP_BYTES;
use super::told::Told;
use crate::hop::deadline::{LATE_NS, is_over};
use crate::hop::store::Store;
use crate::hop::transactions::{Producer, State};
use crate::hop::{Hop, Kind, progress};
use crate::seen::ConnectionId;

/// Producers with such offsets, and offsets of one of them; past it they are told as they are.
const MAX_PRODUCERS: usize = 1024;
const MAX_COMMITS: usize = 256;
/// Of all producers.
const MAX_IN_ALL: usize = 32 << 10;

/// What waits for `late_ns` has waited for long enough. If it is due later than all that waits, the clock was set back.
pub(super) fn is_due(due_ns: u64, now_ns: u64, late_ns: u64) -> bool {
    due_ns <= now_ns || is_over(due_ns.saturating_sub(late_ns), late_ns, now_ns)
}

/// Nothing is due later: times do not come quite in order, but nearly.
pub(super) fn last_due_ns(now_ns: u64, late_ns: u64) -> u64 {
    now_ns.saturating_add(late_ns.saturating_mul(2))
}

/// What waits for that in a worker, of each kind; past it the oldest does not.
pub(super) const MAX_LATE: usize = 16 << 10;

/// A transaction that has not ended after this is not waited for: Kafka aborts it after a minute by default
/// (`transaction.timeout.ms`).
const PATIENCE_NS: u64 = 70_000_000_000;

/// An offset that a transaction commits.
pub(super) struct PendingCommit {
    pub hop: Hop,
    pub progress: Option<progress::Shared>,
}

/// See the module.
#[derive(Default)]
pub(super) struct PendingCommits {
    by_producer: Mutex<HashMap<Producer, Vec<PendingCommit>>>,
    len: AtomicUsize,
}

impl PendingCommits {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Gives it back if there are too many.
    pub fn wait(&self, producer: &Producer, commit: PendingCommit) -> Option<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !by_producer.contains_key(producer);
        if (by_producer.len() >= MAX_PRODUCERS && is_new) || self.len() >= MAX_IN_ALL {
            return Some(commit);
        }
        let commits = by_producer.entry(producer.clone()).or_default();
        if commits.len() >= MAX_COMMITS {
            return Some(commit);
        }
        commits.push(commit);
        self.len.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The transaction has ended.
    pub fn take(&self, producer: &Producer) -> Vec<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        let commits = by_producer.remove(producer).unwrap_or_default();
        self.len.fetch_sub(commits.len(), Ordering::Relaxed);
        commits
    }

    /// Those that have waited too long, or all of them.
    pub fn over(&self, now_ns: Option<u64>) -> Vec<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        by_producer.retain(|_, commits| {
            let is_over = now_ns.is_none_or(|now| {
                commits.first().is_none_or(|first| is_over(first.hop.passage.end_ns, PATIENCE_NS, now))
            });
            if is_over {
                over.append(commits);
            }
            !is_over
        });
        self.len.fetch_sub(over.len(), Ordering::Relaxed);
        over.sort_by_key(|commit| commit.hop.passage.end_ns);
        over
    }
}

/// Commits of one worker that wait for what other workers read, in order.
#[derive(Default)]
pub(super) struct LateCommits {
    queue: VecDeque<(ConnectionId, u64, PendingCommit, Option<State>)>,
}

impl LateCommits {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Listener<'_> {
    /// Tells of a commit, and what has become of its transaction if it is a part of one.
    pub(super) fn settle_commit(&mut self, commit: PendingCommit, state: Option<State>) {
        let is_alone = !self.told.shared.is_read_by_several();
        if is_alone || self.peer.search.is_superfluous() {
            if let Some(hop) = self.told.settled(commit, state) {
                self.pass(hop);
            }
            return;
        }
        let due_ns = self.told.now_ns.saturating_add(LATE_NS);
        self.told.late.queue.push_back((self.id, due_ns, commit, state));
        if self.told.late.len() > MAX_LATE {
            self.told.own_losses.shown_early = self.told.own_losses.shown_early.saturating_add(1);
            self.told.give_first_late();
        }
    }
}

impl Told {
    /// Tells of the commits that have waited long enough, or of all.
    pub(super) fn give_late(&mut self, now_ns: Option<u64>) {
        while let Some((_, due_ns, ..)) = self.late.queue.front()
            && now_ns.is_none_or(|now| is_due(*due_ns, now, LATE_NS))
        {
            self.give_first_late();
        }
    }

    fn give_first_late(&mut self) {
        if let Some((id, _, commit, state)) = self.late.queue.pop_front()
            && let Some(hop) = self.settled(commit, state)
        {
            self.pass(id, hop);
        }
    }

    /// A commit that counts, or that does not as its transaction was not committed; if it is shown.
    pub(super) fn settled(&mut self, commit: PendingCommit, state: Option<State>) -> Option<Hop> {
        let PendingCommit { mut hop, progress } = commit;
        if let (Some((_, known)), Some(state)) = (&mut hop.passage.transaction, state) {
            *known = state;
        }
        let counts = state.is_none_or(|state| state == State::Committed);
        if let (Kind::Committed(commit), Some(of_group), true, Some(offset)) =
            (&mut hop.passage.kind, progress, counts, hop.passage.offset)
        {
            let covered = self.shared.progress.commit(&mut progress::lock(&of_group), offset);
            // Who commits by the clock does so again and again.
            if state.is_none() && covered.is_known && covered.messages == 0 {
                return None;
            }
            if covered.is_own() && self.leaves_out_own_commits() {
                self.own_losses.leave_out_own(1);
                return None;
            }
            if let Some(last) = covered.shown.first() {
                hop.passage.derived = last.trace_id;
            }
            commit.covered = covered;
        }
        if self.is_of_own_topic(&hop) && self.leaves_out_own_commits() {
            self.own_losses.leave_out_own(1);
            return None;
        }
        self.keeps(hop.passage.derived).then_some(hop)
    }
}

impl Store for PendingCommits {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("pending commits", self.len())]
    }

    fn bytes(&self) -> usize {
        self.len().saturating_mul(HOP_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::samples;

    /// Hostile: as many offsets of as many producers as there may be.
    #[test]
    fn commits_are_bounded_in_all() {
        let commits = PendingCommits::default();
        let producer = |id| Producer { cluster: None, id };
        let mut given_back = 0;
        for at in 0..200_000 {
            let commit = PendingCommit { hop: samples::sent(), progress: None };
            given_back += usize::from(commits.wait(&producer(at % 2000), commit).is_some());
        }
        assert_eq!((commits.len(), given_back), (MAX_IN_ALL, 200_000 - MAX_IN_ALL));
        let first = commits.take(&producer(0)).len();
        assert_eq!(commits.len(), MAX_IN_ALL - first);
        assert_eq!(commits.over(None).len(), MAX_IN_ALL - first);
        assert_eq!(commits.len(), 0);
    }

    #[test]
    fn nobody_waits_until_a_clock_that_was_set_back_is_there_again() {
        let from_ns = 3_600_000_000_000;
        for (back_ns, over) in [(2_000_000_000, 0), (PATIENCE_NS, 1), (from_ns, 1)] {
            let (commits, mut hop) = (PendingCommits::default(), samples::sent());
            hop.passage.end_ns = from_ns;
            let producer = Producer { cluster: None, id: 1 };
            assert!(commits.wait(&producer, PendingCommit { hop, progress: None }).is_none());
            assert_eq!(commits.over(Some(from_ns - back_ns)).len(), over, "{back_ns}");
        }
    }
}
