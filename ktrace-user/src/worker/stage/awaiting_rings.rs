//! Commits, where several rings are read: the messages that they cover may lie in one that is read
//! a little later.

use super::pending::Pending;
use super::{Next, Stage, When};
use crate::hop::deadline::LATE_NS;
use crate::hop::transactions::State;
use crate::seen::ConnectionId;
use crate::worker::pending_commits::PendingCommit;
use crate::worker::world::World;

/// Commits that wait in a worker.
const MAX_COMMITS: usize = 16 << 10;

/// A commit, with what became of its transaction if it is a part of one.
type Late = (PendingCommit, Option<State>);

/// Commits that wait, in the order in which they came, as each counts from the one before.
pub(in crate::worker) struct AwaitingRings {
    pending: Pending<Late>,
}

impl Default for AwaitingRings {
    fn default() -> Self {
        Self { pending: Pending::new(Self::PATIENCE_NS, Self::BOUND) }
    }
}

impl AwaitingRings {
    /// Holds a commit. Returns whether there are too many.
    pub fn push(&mut self, now_ns: u64, commit: PendingCommit, state: Option<State>) -> bool {
        self.pending.push(commit.connection, now_ns, (commit, state))
    }
}

fn hand_on(connection: ConnectionId, (commit, state): Late, world: &mut World, next: &mut impl Next) {
    if let Some(hop) = world.settled(commit, state) {
        next.push(connection, hop, world);
    }
}

impl Stage for AwaitingRings {
    const NAME: &'static str = "awaiting_rings";
    const PATIENCE_NS: u64 = LATE_NS;
    const BOUND: usize = MAX_COMMITS;

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        match when {
            When::Due(_) | When::News(_) | When::Amended(_) | When::Ending => {}
            When::Full => {
                while let Some((connection, late)) = self.pending.pop_excess() {
                    self.pending.count_early(1);
                    hand_on(connection, late, world, next);
                }
            }
            When::Sweep(_) | When::Shed | When::End => {
                while let Some((connection, late)) = self.pending.pop_due(when.now_ns()) {
                    hand_on(connection, late, world, next);
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.pending.len()
    }

    fn take_early(&mut self) -> u64 {
        self.pending.take_early()
    }
}
