//! How much is held of what has no part in the bytes at hand: what there is of each kind that has a bound.

use super::{Shared, Worker};

impl Worker {
    /// What this worker holds, by kind.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("connections", self.connections.len()),
            ("waiting hops", self.told.waiting.len()),
            ("hops whose other end is sought", self.told.sought_hops),
            ("late commits", self.told.late.len()),
            ("topics", self.told.topics.len()),
        ]
    }
}

impl Shared {
    /// What the workers hold together, by kind.
    pub fn sizes(&self) -> [(&'static str, usize); 9] {
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
            ("topic ids", self.topics.look(|ids| ids.len())),
        ]
    }
}
