//! Names of topics: each kept once, with the span names made of it; ids resolved from Metadata seen on any connection.
//!
//! Topic ids are UUIDs, so those of several clusters do not meet. What one worker learns of them, all know.

use std::collections::HashMap;
use std::sync::Arc;

use super::numbered::Numbered;

/// A topic's name, and the names of its spans.
#[derive(Debug, PartialEq, Eq, Hash)]
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
}

impl TopicName {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            send: format!("send {name}").into(),
            poll: format!("poll {name}").into(),
            commit: format!("commit {name}").into(),
            ack: format!("ack {name}").into(),
        })
    }
}

/// Topics kept at once. A cluster has fewer; past it, what is known is learnt anew.
const MAX_TOPICS: usize = 64 << 10;

/// Which topic an id names, as all workers know it.
#[derive(Debug, Default)]
pub struct TopicIds {
    by_id: HashMap<u128, Arc<TopicName>>,
}

impl TopicIds {
    /// Metadata told the name of an id. Returns whether that is news.
    pub fn learn(&mut self, id: u128, topic: Arc<TopicName>) -> bool {
        if self.by_id.get(&id).is_some_and(|known| known.name == topic.name) {
            return false;
        }
        if self.by_id.len() >= MAX_TOPICS {
            self.by_id.clear();
        }
        self.by_id.insert(id, topic);
        true
    }
}

/// The topics that one worker has met.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: HashMap<Arc<str>, Arc<TopicName>>,
    /// As looked up when all workers' knowledge had this number; `None` for ids without a name.
    by_id: (u64, HashMap<u128, Option<Arc<TopicName>>>),
    /// The last topic that was named; the next is nearly always the same.
    last: Option<Arc<TopicName>>,
}

impl Topics {
    /// The topic of this name.
    pub fn named(&mut self, name: &str) -> Arc<TopicName> {
        if let Some(last) = &self.last
            && *last.name == *name
        {
            return Arc::clone(last);
        }
        let topic = match self.by_name.get(name) {
            Some(topic) => Arc::clone(topic),
            None => {
                if self.by_name.len() >= MAX_TOPICS {
                    self.by_name.clear();
                }
                let topic = TopicName::new(name);
                self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
                topic
            }
        };
        self.last = Some(Arc::clone(&topic));
        topic
    }

    /// The topic of this id, if any worker has seen its name.
    pub fn of(&mut self, ids: &Numbered<TopicIds>, id: u128) -> Option<Arc<TopicName>> {
        let number = ids.number();
        let (known, by_id) = &mut self.by_id;
        if *known != number || by_id.len() >= MAX_TOPICS {
            *known = number;
            by_id.clear();
        }
        let topic = by_id.entry(id).or_insert_with(|| ids.look(|ids| ids.by_id.get(&id).cloned()));
        topic.clone()
    }

    /// Metadata told the name of an id; most often again.
    pub fn learn(&mut self, ids: &Numbered<TopicIds>, id: u128, name: &str) {
        if self.of(ids, id).is_none_or(|topic| *topic.name != *name) {
            let topic = self.named(name);
            ids.tell(|ids| ids.learn(id, topic));
        }
    }

    /// The stand-in for a topic whose name never came: its id as Kafka prints it.
    #[must_use]
    pub fn unnamed(id: u128) -> Arc<TopicName> {
        TopicName::new(&base64(id))
    }
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
        let ids = Numbered::default();
        let (mut mine, mut theirs) = (Topics::default(), Topics::default());
        assert_eq!(theirs.of(&ids, 7), None);
        mine.learn(&ids, 7, "orders");
        mine.learn(&ids, 7, "orders");
        assert_eq!(ids.number(), 1);
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

    #[test]
    fn ids_print_as_kafka_prints_them() {
        assert_eq!(base64(0), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(u128::MAX), "_____________________w");
    }
}
