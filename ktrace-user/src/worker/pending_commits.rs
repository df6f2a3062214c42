//! Offsets that a transaction commits: they count when it does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::hop::transactions::Producer;
use crate::hop::{Hop, progress};

/// Producers with such offsets, and offsets of one of them; past it they are told as they are.
const MAX_PRODUCERS: usize = 1024;
const MAX_COMMITS: usize = 256;

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
}

impl PendingCommits {
    /// Gives it back if there are too many.
    pub fn wait(&self, producer: &Producer, commit: PendingCommit) -> Option<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        if by_producer.len() >= MAX_PRODUCERS && !by_producer.contains_key(producer) {
            return Some(commit);
        }
        let commits = by_producer.entry(producer.clone()).or_default();
        if commits.len() >= MAX_COMMITS {
            return Some(commit);
        }
        commits.push(commit);
        None
    }

    /// The transaction has ended.
    pub fn take(&self, producer: &Producer) -> Vec<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        by_producer.remove(producer).unwrap_or_default()
    }

    /// Those that have waited too long, or all of them.
    pub fn over(&self, now_ns: Option<u64>) -> Vec<PendingCommit> {
        let mut by_producer = self.by_producer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        by_producer.retain(|_, commits| {
            let is_over = now_ns.is_none_or(|now| {
                commits.first().is_none_or(|first| now.saturating_sub(first.hop.passage.end_ns) > PATIENCE_NS)
            });
            if is_over {
                over.append(commits);
            }
            !is_over
        });
        over.sort_by_key(|commit| commit.hop.passage.end_ns);
        over
    }
}
