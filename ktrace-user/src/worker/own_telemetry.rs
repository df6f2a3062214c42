//! ktrace's own telemetry among the messages, and what groups do with it: left out, unless the user
//! wants it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::hop::own::Watch;

/// Topics with telemetry that are known by name. A cluster has a few; of more than this, messages
/// are left out just the same.
const MAX_TOPICS: usize = 1024;

/// What was found in the values of the current partition.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Values that carry ktrace's own telemetry.
    pub own: u64,
    /// Values that were looked at and do not, before the topic was known to carry telemetry at
    /// least one.
    pub others: u64,
}

impl Found {
    pub fn new(watch: Watch) -> Self {
        Self { own: 0, others: watch.has_seen_others().into() }
    }
}

/// Topics that carry telemetry, as all workers know them.
#[derive(Debug, Default)]
pub(super) struct OwnTelemetry {
    by_topic: Mutex<BTreeMap<Arc<str>, Carried>>,
    is_any: AtomicBool,
}

/// Messages of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    own: u64,
    others: u64,
}

impl OwnTelemetry {
    pub fn add(&self, topic: Arc<str>, Found { own, others }: Found) {
        let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        if by_topic.len() >= MAX_TOPICS && !by_topic.contains_key(&topic) {
            return;
        }
        let carried = by_topic.entry(topic).or_default();
        carried.own = carried.own.saturating_add(own);
        carried.others = carried.others.saturating_add(others);
        self.is_any.fetch_or(own > 0, Ordering::Relaxed);
    }

    /// Messages with ktrace's own, by topic.
    pub fn left_out(&self) -> BTreeMap<String, u64> {
        if !self.is_any.load(Ordering::Relaxed) {
            return BTreeMap::new();
        }
        let by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by_topic.iter().filter(|(_, carried)| carried.own > 0);
        own.map(|(topic, carried)| ((**topic).to_owned(), carried.own)).collect()
    }

    /// Whether all that was seen of a topic is ktrace's own.
    pub fn is_all_of(&self, topic: &str) -> bool {
        self.is_any.load(Ordering::Relaxed) && {
            let by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
            by_topic.get(topic).is_some_and(|carried| carried.own > 0 && carried.others == 0)
        }
    }
}
