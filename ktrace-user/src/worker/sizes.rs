//! How much is held of what has no part in the bytes at hand: what there is of each kind that has a bound.

use super::memory::HOP_BYTES;
use super::{Shared, Worker};
use crate::hop::groups::Groups;
use crate::hop::topics::TopicIds;
use crate::hop::uncommitted::Uncommitted;

impl Worker {
    /// What this worker holds, by kind.
    #[must_use]
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = self.stages.sizes();
        sizes.extend([("connections", self.connections.len()), ("topics", self.world.topics.size())]);
        sizes
    }
}

/// What one of each kind takes, about, with its place in a table.
const PARTITION_BYTES: usize = 768;
const OPEN_BYTES: usize = 48;
const ATTEMPT_BYTES: usize = 128;
const END_BYTES: usize = 24;
const READ_BYTES: usize = 112;
const LOG_BYTES: usize = 256;
const APPEND_BYTES: usize = 72;
const GROUP_PARTITION_BYTES: usize = 160;

impl Shared {
    /// What all of it takes, about; `uncommitted` is looked for by all workers, too.
    pub(super) fn known_bytes(&self, uncommitted: Option<&Uncommitted>) -> usize {
        let (partitions, open) = self.progress.sizes();
        let (logs, appends) = self.appends.sizes();
        let (of_groups, uncommitted) = uncommitted.map_or((0, 0), Uncommitted::sizes);
        let (_, ends) = self.transactions.look(|known| known.sizes());
        [
            self.groups.look(Groups::bytes),
            self.topics.look(TopicIds::bytes),
            partitions * PARTITION_BYTES,
            open * OPEN_BYTES,
            self.attempts.len() * ATTEMPT_BYTES,
            ends * END_BYTES,
            self.chains.size() * READ_BYTES,
            self.commits.len() * HOP_BYTES,
            logs * LOG_BYTES,
            appends * APPEND_BYTES,
            of_groups * GROUP_PARTITION_BYTES,
            uncommitted * HOP_BYTES,
        ]
        .iter()
        .sum()
    }

    /// What the workers hold together, by kind.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 12] {
        let (clients, members) = self.groups.look(|groups| groups.sizes());
        let (partitions, open) = self.progress.sizes();
        let (producers, ends) = self.transactions.look(|known| known.sizes());
        [
            ("clients", clients),
            ("members", members),
            ("partitions of groups", partitions),
            ("open messages", open),
            ("failed messages", self.attempts.len()),
            ("producers", producers),
            ("ends of transactions", ends),
            ("pending commits", self.commits.len()),
            ("messages that may cause others", self.chains.size()),
            ("partitions written to", self.appends.sizes().0),
            ("appends", self.appends.sizes().1),
            ("topic ids", self.topics.look(|ids| ids.size())),
        ]
    }
}
