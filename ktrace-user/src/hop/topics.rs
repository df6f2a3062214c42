//! Names of topics: each kept once, with the span names made of it. Ids are resolved from Metadata
//! responses on any connection.
//!
//! Topic ids are UUIDs, so ids of several clusters do not collide. What one worker learns, all
//! workers know.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::own::Watched;
use super::store::{Bound, Bounded, Knowledge, drop_evicted};
use super::versioned::Versioned;

/// A topic's name, and the names of its spans.
#[derive(Debug)]
pub struct TopicName {
    pub name: Arc<str>,
    /// `send T`
    pub send: Arc<str>,
    /// `poll T`
    pub poll: Arc<str>,
    /// `commit T`
    pub commit: Arc<str>,
    /// `ack T`
    pub ack: Arc<str>,
    /// Whether its messages may carry telemetry.
    pub watched: Watched,
}

impl PartialEq for TopicName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TopicName {}

impl Hash for TopicName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl TopicName {
    /// What it takes, in bytes, about.
    fn bytes(&self) -> usize {
        self.name.len().saturating_mul(4).saturating_add(TOPIC_BYTES)
    }

    fn new(name: &str) -> Arc<Self> {
        // What is of no topic has an empty name.
        let of = |operation: &str| match name {
            "" => operation.into(),
            name => format!("{operation} {name}").into(),
        };
        Arc::new(Self {
            name: name.into(),
            send: of("send"),
            poll: of("poll"),
            commit: of("commit"),
            ack: of("ack"),
            watched: Watched::default(),
        })
    }
}

/// Topics kept at once, by id for all workers, and by name for each. Large clusters have some ten
/// thousand.
const MAX_TOPICS: usize = 64 << 10;

/// What their names may take in bytes, by id for all workers, and by name for each.
const MAX_BYTES: usize = 24 << 20;

/// What a topic takes beside its name.
const TOPIC_BYTES: usize = 256;

/// The longest name that Kafka allows (`org.apache.kafka.common.internals.Topic`). Longer ones are
/// cut.
const MAX_NAME_BYTES: usize = 249;

/// The topics that ids name, shared by all workers. A look-up counts as a use. Workers keep what
/// they looked up until the next change, so an id in use is looked up again before anything more is
/// evicted.
#[derive(Debug)]
pub struct TopicIds {
    by_id: Bounded<u128, Arc<TopicName>>,
}

impl Default for TopicIds {
    fn default() -> Self {
        Self { by_id: Bounded::new(Bound { entries: MAX_TOPICS, bytes: MAX_BYTES }) }
    }
}

impl TopicIds {
    /// The topic of this id.
    fn of(&mut self, id: u128) -> Option<Arc<TopicName>> {
        self.by_id.get(&id).cloned()
    }

    /// Metadata names an id. Returns whether that is news.
    pub fn learn(&mut self, id: u128, topic: Arc<TopicName>) -> bool {
        if self.by_id.peek(&id).is_some_and(|known| known.name == topic.name) {
            return false;
        }
        let bytes = topic.bytes();
        self.by_id.insert(id, topic, bytes, drop_evicted);
        true
    }
}

impl Knowledge for TopicIds {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("topic ids", self.by_id.len())]
    }

    fn bytes(&self) -> usize {
        self.by_id.bytes()
    }

    fn hold_at_most(&mut self, part: f64) {
        self.by_id.hold_at_most(part);
    }

    fn take_evicted(&mut self) -> u64 {
        self.by_id.take_evicted()
    }
}

/// The topics that one worker has met.
#[derive(Debug)]
pub struct Topics {
    by_name: Bounded<Arc<str>, Arc<TopicName>>,
    /// Look-ups made at this version of [`TopicIds`]; `None` for ids without a name. A cache: it is
    /// emptied with each change, and so it is when it is full. To look an id up again costs one
    /// lock.
    by_id: (u64, HashMap<u128, Option<Arc<TopicName>>>),
    /// The last topic that was named; the next is nearly always the same.
    last: Option<Arc<TopicName>>,
}

impl Default for Topics {
    fn default() -> Self {
        let by_name = Bounded::new(Bound { entries: MAX_TOPICS, bytes: MAX_BYTES });
        Self { by_name, by_id: Default::default(), last: None }
    }
}

impl Topics {
    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.by_name.len()
    }

    /// The topic of this name.
    pub fn named(&mut self, name: &str) -> Arc<TopicName> {
        let name = kept(name);
        if let Some(last) = &self.last
            && *last.name == *name
        {
            return Arc::clone(last);
        }
        let topic = match self.by_name.get(name) {
            Some(topic) => Arc::clone(topic),
            None => {
                let topic = TopicName::new(name);
                // Evictions are no loss: a name is all that there is to know.
                self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic), topic.bytes(), drop_evicted);
                topic
            }
        };
        self.last = Some(Arc::clone(&topic));
        topic
    }

    /// The topic of this id, if any worker has seen its name.
    pub fn of(&mut self, ids: &Versioned<TopicIds>, id: u128) -> Option<Arc<TopicName>> {
        let version = ids.version();
        let (known, by_id) = &mut self.by_id;
        if *known != version || by_id.len() >= MAX_TOPICS {
            *known = version;
            by_id.clear();
        }
        let topic = by_id.entry(id).or_insert_with(|| ids.write_quiet(|ids| ids.of(id)));
        topic.clone()
    }

    /// Metadata names an id; most often one that is known.
    pub fn learn(&mut self, ids: &Versioned<TopicIds>, id: u128, name: &str) {
        let name = kept(name);
        if self.of(ids, id).is_none_or(|topic| *topic.name != *name) {
            let topic = self.named(name);
            ids.update(|ids| ids.learn(id, topic));
        }
    }

    /// The name shown for a topic that was never named: its id as Kafka prints it.
    #[must_use]
    pub fn unnamed(id: u128) -> Arc<TopicName> {
        TopicName::new(&base64(id))
    }
}

/// The part of a name that is kept.
fn kept(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or(name)
}

/// A UUID as Kafka prints it: URL-safe base64 without padding (`org.apache.kafka.common.Uuid`).
fn base64(id: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 22 digits hold 132 bits: the id, and four zeros at the end.
    (0..22_u32)
        .map(|place| {
            let shift = 122_u32.saturating_sub(place.saturating_mul(6));
            let six = if place == 21 { id << 4 } else { id >> shift };
            let digit = usize::try_from(six & 63).unwrap_or(0);
            char::from(DIGITS.get(digit).copied().unwrap_or(b'?'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names_for_all_workers_and_names_may_change() {
        let ids = Versioned::default();
        let (mut mine, mut theirs) = (Topics::default(), Topics::default());
        assert_eq!(theirs.of(&ids, 7), None);
        mine.learn(&ids, 7, "orders");
        mine.learn(&ids, 7, "orders");
        assert_eq!(ids.version(), 1);
        assert_eq!(&*theirs.of(&ids, 7).unwrap().send, "send orders");
        mine.learn(&ids, 7, "orders-2");
        assert_eq!(&*theirs.of(&ids, 7).unwrap().poll, "poll orders-2");
    }

    #[test]
    fn one_name_is_one_topic() {
        let mut topics = Topics::default();
        let first = topics.named("orders");
        topics.named("payments");
        assert!(Arc::ptr_eq(&first, &topics.named("orders")));
    }

    /// Hostile: millions of names, long ones among them.
    #[test]
    fn names_are_bounded_and_ids_forgotten_are_counted() {
        let (ids, mut topics) = (Versioned::default(), Topics::default());
        let long = "é".repeat(20_000);
        assert_eq!(topics.named(&long).name.len(), MAX_NAME_BYTES - 1);
        for id in 0..200_000_u128 {
            topics.learn(&ids, id, &format!("{id}-{}", &long[..240]));
            assert!(topics.by_name.bytes() <= MAX_BYTES && topics.by_id.1.len() <= MAX_TOPICS);
        }
        let (left, bytes) = ids.read(|ids| (ids.by_id.len(), ids.bytes()));
        assert!(bytes <= MAX_BYTES && left <= MAX_TOPICS, "{left} {bytes}");
        assert_eq!(ids.write_quiet(TopicIds::take_evicted) + left as u64, 200_000);
    }

    /// One cluster has more topics than fit, as another one's few are used all the time.
    #[test]
    fn a_topic_in_use_keeps_its_name() {
        let (ids, mut topics) = (Versioned::default(), Topics::default());
        topics.learn(&ids, u128::MAX, "orders");
        let orders = topics.named("orders");
        for id in 0..2 * MAX_TOPICS as u128 {
            topics.learn(&ids, id, &format!("topic-{id}"));
            assert!(topics.of(&ids, u128::MAX).is_some(), "{id}");
            assert!(Arc::ptr_eq(&topics.named("orders"), &orders), "{id}");
        }
        assert!(ids.write_quiet(TopicIds::take_evicted) > MAX_TOPICS as u64);
    }

    #[test]
    fn ids_print_as_kafka_prints_them() {
        assert_eq!(base64(0), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(u128::MAX), "_____________________w");
    }
}
