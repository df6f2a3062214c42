//! Offsets that were committed in transactions which have not ended, of all workers: a transaction
//! may end on another's connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::memory::HOP_BYTES;
use crate::hop::deadline::is_over;
use crate::hop::store::Store;
use crate::hop::transactions::Producer;
use crate::hop::{Hop, progress};
use crate::seen::ConnectionId;

/// Producers with such offsets, and offsets of one of them; over the limit a commit goes out as it
/// is.
const MAX_PRODUCERS: usize = 1024;
const MAX_COMMITS: usize = 256;
/// Of all producers.
pub(super) const MAX_IN_ALL: usize = 32 << 10;

/// A transaction that has not ended after this is not waited for: Kafka aborts it after a minute by
/// default (`transaction.timeout.ms`).
pub(super) const PATIENCE_NS: u64 = 70_000_000_000;

/// A commit whose hop is not emitted yet.
pub(super) struct PendingCommit {
    pub connection: ConnectionId,
    pub hop: Hop,
    pub progress: Option<progress::Shared>,
}

/// By producer, each with its commits in order.
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
        over.sort_by_key(|commit| {
            let passage = &commit.hop.passage;
            (passage.end_ns, passage.partition, passage.offset)
        });
        over
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
            let commit = PendingCommit { connection: ConnectionId(1), hop: samples::sent(), progress: None };
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
            assert!(
                commits
                    .wait(&producer, PendingCommit { connection: ConnectionId(1), hop, progress: None })
                    .is_none()
            );
            assert_eq!(commits.over(Some(from_ns - back_ns)).len(), over, "{back_ns}");
        }
    }
}
