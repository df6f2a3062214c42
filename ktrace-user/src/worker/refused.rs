//! What brokers refuse, and how long they make clients wait: counted by operation.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ktrace_kafka::protocol::error;

/// Refusals by operation (the API's name) and error.
pub type Refused = BTreeMap<(&'static str, &'static str), u64>;

/// Responses that made clients wait, and for how many milliseconds in all, by operation.
pub type Throttled = BTreeMap<&'static str, Waits>;

/// See [`Throttled`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Waits {
    pub responses: u64,
    pub ms: u64,
}

/// Of all workers together. Their keys are Kafka's, so there are not many.
#[derive(Default)]
pub(super) struct Counts {
    refused: Mutex<Refused>,
    throttled: Mutex<Throttled>,
}

impl Counts {
    pub fn refused(&self) -> Refused {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn throttled(&self) -> Throttled {
        self.throttled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add(&self, count: Count) {
        match count {
            Count::Refused(operation, error) => self.refuse(operation, error),
            Count::Throttled(operation, ms) => self.throttle(operation, ms),
        }
    }

    fn refuse(&self, operation: &'static str, error: i16) {
        let error = error::name(error).unwrap_or("_OTHER");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refused.entry((operation, error)).or_default();
        *count = count.saturating_add(1);
    }

    fn throttle(&self, operation: &'static str, ms: u32) {
        let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = throttled.entry(operation).or_default();
        waits.responses = waits.responses.saturating_add(1);
        waits.ms = waits.ms.saturating_add(ms.into());
    }
}

/// A response to be counted, by its API's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// With this error.
    Refused(&'static str, i16),
    /// The client has to wait for this many milliseconds.
    Throttled(&'static str, u32),
}
