//! Where a consumer stands in each partition: the offsets that its Fetch requests ask from.
//!
//! A response may begin below the offset asked for, at the start of the batch that holds it; the consumer drops what
//! is below. In a fetch session (KIP-227) a request names only the partitions that changed, so the offsets of the
//! others are those of requests before.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::protocol::fetch::{Asked, Request};
use crate::protocol::sink::Topic;

/// Partitions remembered for one connection; the offsets of more are taken as they come.
const MAX_PARTITIONS: usize = 64 << 10;

/// See the module.
#[derive(Default)]
pub struct Session {
    offsets: HashMap<(u128, i32), i64>,
}

/// A topic's id, or a hash of its name: no session mixes both.
fn topic_key(topic: Topic<'_>) -> u128 {
    match topic {
        Topic::Id(id) => id,
        Topic::Name(name) => xxh3_128(name.as_bytes()),
    }
}

impl Session {
    /// A request asks: one that lists all partitions forgets those of before.
    pub fn ask(&mut self, request: &Request<'_>) {
        if request.is_full() {
            self.offsets.clear();
        }
        for (topic, Asked { partition, offset }) in request.topics.partitions() {
            let place = (topic_key(topic), partition);
            if self.offsets.len() < MAX_PARTITIONS || self.offsets.contains_key(&place) {
                self.offsets.insert(place, offset);
            }
        }
        for (topic, partition) in request.forgotten.partitions() {
            self.offsets.remove(&(topic_key(topic), partition));
        }
    }

    /// From where on the consumer wants this partition's records; `None` if that was never seen.
    #[must_use]
    pub fn offset(&self, topic: Topic<'_>, partition: i32) -> Option<i64> {
        self.offsets.get(&(topic_key(topic), partition)).copied()
    }
}
