//! What several workers know together: a value behind a short lock, versioned by its changes.
//!
//! Whoever looks something up keeps what it got with the number from before, and looks again when the number has changed: so no
//! lock lies on the way of every record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub struct Versioned<T> {
    version: AtomicU64,
    value: Mutex<T>,
}

impl<T> Versioned<T> {
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { version: AtomicU64::default(), value: Mutex::new(value) }
    }

    /// The number of changes so far. What is looked up after it is as new as it says, or newer.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Looks something up.
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something to it that is no news.
    pub fn write_quiet<R>(&self, write: impl FnOnce(&mut T) -> R) -> R {
        write(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the value something; `learn` says whether that was news.
    pub fn update(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut value) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_count() {
        let versioned = Versioned::<Vec<u8>>::default();
        versioned.update(|value| {
            value.push(1);
            true
        });
        assert_eq!((versioned.version(), versioned.read(Vec::len)), (1, 1));
        versioned.update(|_| false);
        assert_eq!(versioned.version(), 1);
    }
}
