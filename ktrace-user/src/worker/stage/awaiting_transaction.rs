//! Offsets that were committed in a transaction: they count when it commits. Its end is most often
//! seen, on whichever worker, and settles them
//! ([`Listener::end_commits`](crate::worker::listener::Listener)); here they are given up.
//!
//! The items are shared by all workers
//! ([`PendingCommits`](crate::worker::pending_commits::PendingCommits)), so it is neither counted
//! nor weighed here.

use super::{Next, Stage, When};
use crate::hop::transactions::State;
use crate::worker::pending_commits::{MAX_IN_ALL, PATIENCE_NS};
use crate::worker::world::World;

/// The stage; the commits are in [`World::shared`].
#[derive(Default)]
pub(in crate::worker) struct AwaitingTransaction;

impl Stage for AwaitingTransaction {
    const NAME: &'static str = "awaiting_transaction";
    const PATIENCE_NS: u64 = PATIENCE_NS;
    const BOUND: usize = MAX_IN_ALL;

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        if !matches!(when, When::Sweep(_) | When::End) {
            return;
        }
        for commit in world.shared.commits.over(when.now_ns()) {
            let connection = commit.connection;
            if let Some(hop) = world.settled(commit, Some(State::Open)) {
                next.push(connection, hop, world);
            }
        }
    }
}
