//! How much is held of what outlives single exchanges: by kind, and in bytes.

use super::shared::StoreEntry;
use super::{Shared, Worker};
use crate::hop::store::Store;
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

impl Shared {
    /// What all stores take, in bytes, about; `uncommitted` is one store more that all workers
    /// share.
    pub(super) fn known_bytes(&self, uncommitted: Option<&Uncommitted>) -> usize {
        let of_stores: usize = self.stores().iter().map(|StoreEntry { store, .. }| store.bytes()).sum();
        of_stores + uncommitted.map_or(0, Store::bytes)
    }

    /// What all stores hold, by kind.
    #[must_use]
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        self.stores().iter().flat_map(|StoreEntry { store, .. }| store.rows()).collect()
    }
}
