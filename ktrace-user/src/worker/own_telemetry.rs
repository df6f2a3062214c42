//! ktrace's own telemetry among the messages, and what groups do with it: left out, unless the user wants it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ktrace_kafka::record::Record;
use ktrace_kafka::{Operation, Partition};

use super::listener::Listener;
use super::told::Told;
use crate::hop::own::{Watch, Watched};
use crate::hop::{Hop, Kind, Topic, shown};
use crate::losses::Reason;

/// Topics with telemetry that are known by name. A cluster has a few; of more than this, messages are left
/// out just the same.
const MAX_TOPICS: usize = 1024;

/// What was found in the values at hand.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Values that carry ktrace's own telemetry.
    own: u64,
    /// Values that were looked at and do not, before the topic was known to carry telemetry at least one.
    others: u64,
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
    fn add(&self, topic: Arc<str>, Found { own, others }: Found) {
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
    fn is_all_of(&self, topic: &str) -> bool {
        self.is_any.load(Ordering::Relaxed) && {
            let by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
            by_topic.get(topic).is_some_and(|carried| carried.own > 0 && carried.others == 0)
        }
    }
}

impl Listener<'_> {
    /// How the values of a topic are looked at, from now on.
    pub(super) fn watch(&self, topic: &Topic) -> Watch {
        if self.told.own_telemetry {
            return Watch::OFF;
        }
        Watch::of(of(topic, &self.peer.unnamed), self.peer.skip)
    }

    /// Whether the record at hand, which does not pass without a look, carries ktrace's own telemetry.
    #[cold]
    pub(super) fn is_own(&mut self, partition: &Partition<'_>, record: &Record<'_>) -> bool {
        let (Some(at), Some(value)) = (&mut self.peer.at, record.value) else { return false };
        if !at.watch.look(value) {
            at.found.others = at.found.others.saturating_add(1);
            return false;
        }
        at.found.own = at.found.own.saturating_add(1);
        at.own(record.offset);
        if let (Operation::ShareFetch { .. }, Some(id)) = (partition.operation, at.id) {
            self.acquires((id, partition.index), record.offset, None);
        }
        true
    }

    /// No more of these values come for now.
    pub(super) fn watched(&mut self, topic: &Topic, watch: Watch, found: Found) {
        if self.told.own_telemetry {
            return;
        }
        self.peer.skip = watch.settle(of(topic, &self.peer.unnamed), self.peer.skip);
        if watch.is_close() {
            self.told.own_losses.lose_n(Reason::OwnTelemetry, found.own);
            self.told.shared.own.add(Arc::clone(&shown(topic).name), found);
        }
    }
}

/// Where it is kept what is known of a topic: with its name, or with the connection as long as that is not
/// known.
fn of<'x>(topic: &'x Topic, unnamed: &'x Watched) -> &'x Watched {
    match topic {
        Topic::Named(topic) => &topic.watched,
        Topic::Id(_) => unnamed,
    }
}

impl Told {
    /// What looks for uncommitted messages has to hear of all commits, and shows none.
    pub(super) fn leaves_out_own_commits(&self) -> bool {
        !self.own_telemetry && self.uncommitted.is_none()
    }

    /// Whether it is not known what a commit covers, but all that was seen of its topic is ktrace's own.
    pub(super) fn is_of_own_topic(&self, commit: &Hop) -> bool {
        let covers_none = match &commit.passage.kind {
            Kind::Committed(commit) => commit.covered.messages == 0,
            _ => false,
        };
        covers_none && self.shared.own.is_all_of(&shown(&commit.topic).name)
    }
}
