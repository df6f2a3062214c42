//! Names of topics: each kept once, with the span names made of it; ids resolved from Metadata seen on any connection.
//!
//! Topic ids are UUIDs, so those of several clusters do not meet.

use std::collections::HashMap;
use std::sync::Arc;

/// A topic's name, and the names of its spans.
#[derive(Debug, PartialEq, Eq)]
pub struct TopicName {
    pub name: Arc<str>,
    /// `send T`
    pub send: Arc<str>,
    /// `poll T`
    pub poll: Arc<str>,
}

impl TopicName {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            send: format!("send {name}").into(),
            poll: format!("poll {name}").into(),
        })
    }
}

/// Topics kept at once. A cluster has fewer; past it, what is known is learnt anew.
const MAX_TOPICS: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: HashMap<Arc<str>, Arc<TopicName>>,
    by_id: HashMap<u128, Arc<TopicName>>,
}

impl Topics {
    /// The topic of this name.
    pub fn named(&mut self, name: &str) -> Arc<TopicName> {
        if let Some(topic) = self.by_name.get(name) {
            return Arc::clone(topic);
        }
        if self.by_name.len() >= MAX_TOPICS {
            self.by_name.clear();
        }
        let topic = TopicName::new(name);
        self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        topic
    }

    /// The topic of this id, if its name has been seen.
    #[must_use]
    pub fn of(&self, id: u128) -> Option<Arc<TopicName>> {
        self.by_id.get(&id).cloned()
    }

    /// Metadata told the name of an id. Returns whether that is news.
    pub fn learn(&mut self, id: u128, name: &str) -> bool {
        if self.by_id.get(&id).is_some_and(|topic| &*topic.name == name) {
            return false;
        }
        if self.by_id.len() >= MAX_TOPICS {
            self.by_id.clear();
        }
        let topic = self.named(name);
        self.by_id.insert(id, topic);
        true
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
    fn ids_become_names_and_names_may_change() {
        let mut topics = Topics::default();
        assert_eq!(topics.of(7), None);
        assert!(topics.learn(7, "orders"));
        assert!(!topics.learn(7, "orders"));
        assert_eq!(&*topics.of(7).unwrap().send, "send orders");
        assert!(topics.learn(7, "orders-2"));
        assert_eq!(&*topics.of(7).unwrap().poll, "poll orders-2");
    }

    #[test]
    fn ids_print_as_kafka_prints_them() {
        assert_eq!(base64(0), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(u128::MAX), "_____________________w");
    }
}
