//! What several workers know together: a value behind a short lock, numbered by its changes.
//!
//! Whoever looks something up keeps what it got with the number from before, and looks again when the number has changed: so no
//! lock lies on the way of every record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub struct Numbered<T> {
    changes: AtomicU64,
    value: Mutex<T>,
}

impl<T> Numbered<T> {
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { changes: AtomicU64::default(), value: Mutex::new(value) }
    }

    /// The number of changes so far. What is looked up after it is as new as it says, or newer.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Looks something up.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something to it that is no news.
    pub fn look_through<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the value something; `learn` says whether that was news.
    pub fn tell(&self, learn: impl FnOnce(&mut T) -> bool) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if learn(&mut value) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_count() {
        let numbered = Numbered::<Vec<u8>>::default();
        numbered.tell(|value| {
            value.push(1);
            true
        });
        assert_eq!((numbered.number(), numbered.look(Vec::len)), (1, 1));
        numbered.tell(|_| false);
        assert_eq!(numbered.number(), 1);
    }
}
