//! Memory that is asked for before it is taken.

use std::sync::Arc;

/// Grants memory to all who share a bound.
pub trait Room: Send + Sync {
    /// Takes `bytes`, if there is room for them.
    fn take(&self, bytes: usize) -> bool;
    /// Gives back what was taken.
    fn give_back(&self, bytes: usize);
}

/// Grants everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundless;

impl Room for Boundless {
    fn take(&self, _bytes: usize) -> bool {
        true
    }

    fn give_back(&self, _bytes: usize) {}
}

/// What one user of a [`Room`] has taken of it, given back when this is dropped.
pub(crate) struct Taken {
    room: Arc<dyn Room>,
    bytes: usize,
}

impl Taken {
    #[must_use]
    pub fn nothing_of(room: Arc<dyn Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Takes `more` bytes, if there is room for them.
    pub fn take(&mut self, more: usize) -> bool {
        let granted = self.room.take(more);
        if granted {
            self.bytes = self.bytes.saturating_add(more);
        }
        granted
    }

    /// Gives back `bytes`.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.room.give_back(bytes);
    }

    /// Holds `bytes` from now on, or as many as before if there is no room for them.
    pub fn hold(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(more) => more == 0 || self.take(more),
            None => {
                self.give_back(self.bytes.saturating_sub(bytes));
                true
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}
