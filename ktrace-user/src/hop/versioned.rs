//! Knowledge that several workers share: a value behind a lock, with a version that counts its
//! changes.
//!
//! A reader keeps what it looked up together with the version from before the look-up, and looks
//! again only when the version has changed. So no lock is taken for each record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A value behind a mutex, with a version. Locks are held for the closure's duration; they never
/// poison.
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

    /// The number of changes so far. What is read after this call is at least as new.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Reads the value.
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the value in a way that readers need not see: the version stays.
    pub fn write_quiet<R>(&self, write: impl FnOnce(&mut T) -> R) -> R {
        write(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the value. `change` returns whether readers have to look again: then the version
    /// grows.
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
