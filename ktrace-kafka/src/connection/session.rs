//! Where a consumer stands in each partition: the offsets that its Fetch requests ask from.
//!
//! A response may begin below the offset asked for, at the start of the batch that holds it; the consumer drops what
//! is below. In a fetch session (KIP-227) a request names only the partitions that changed, so the offsets of the
//! others are those of requests before. A connection has one session, or several where a proxy puts the clients of many
//! connections on one.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::protocol::fetch::{Asked, Request};
use crate::protocol::sink::Topic;

/// Partitions remembered for one session; the offsets of more are taken as they come.
const MAX_PARTITIONS: usize = 64 << 10;

/// Sessions remembered for one connection; of more, the oldest is forgotten.
const MAX_SESSIONS: usize = 16;

/// What a request without a session has for its id, and one that wants a new session.
const NO_SESSION: i32 = 0;

struct Session {
    id: i32,
    offsets: HashMap<(u128, i32), i64>,
}

/// See the module.
#[derive(Default)]
pub struct Sessions {
    /// The oldest first.
    all: Vec<Session>,
    /// Which of them asked last.
    asking: usize,
    held_bytes: usize,
}

/// A topic's id, or a hash of its name: no session mixes both.
fn topic_key(topic: Topic<'_>) -> u128 {
    match topic {
        Topic::Id(id) => id,
        Topic::Name(name) => xxh3_128(name.as_bytes()),
    }
}

impl Sessions {
    /// A request asks: one that lists all partitions begins anew, and ends the session that it names.
    pub fn ask(&mut self, request: &Request<'_>) {
        let id = if request.is_full() { NO_SESSION } else { request.session_id };
        if id != request.session_id {
            self.end(request.session_id);
        }
        let known = self.all.iter().position(|session| session.id == id);
        self.asking = known.unwrap_or_else(|| {
            if self.all.len() >= MAX_SESSIONS {
                self.all.remove(0);
            }
            // Most connections have one.
            self.all.reserve_exact(usize::from(self.all.is_empty()));
            self.all.push(Session { id, offsets: HashMap::new() });
            self.all.len().saturating_sub(1)
        });
        if let Some(session) = self.all.get_mut(self.asking) {
            let room = session.offsets.capacity();
            session.ask(request);
            if session.offsets.capacity() != room || known.is_none() {
                self.weigh();
            }
        }
    }

    fn weigh(&mut self) {
        let sessions = self.all.capacity().saturating_mul(size_of::<Session>());
        self.held_bytes = self.all.iter().map(Session::held_bytes).fold(sessions, usize::saturating_add);
    }

    /// The broker has made a session of the request that asked last.
    pub fn begin(&mut self, request: &Request<'_>, id: i32) {
        if request.session_epoch == 0 && id != NO_SESSION {
            self.end(id);
            if let Some(session) = self.all.iter_mut().find(|session| session.id == NO_SESSION) {
                session.id = id;
            }
        }
    }

    fn end(&mut self, id: i32) {
        self.all.retain(|session| session.id != id);
        self.weigh();
    }

    /// From where on the consumer that asked last wants this partition's records; `None` if that was never seen.
    #[must_use]
    pub fn offset(&self, topic: Topic<'_>, partition: i32) -> Option<i64> {
        self.all.get(self.asking)?.offsets.get(&(topic_key(topic), partition)).copied()
    }

    /// Bytes that the offsets take.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl Session {
    fn ask(&mut self, request: &Request<'_>) {
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

    /// An entry is kept with a byte of its hash, and an eighth of the places stays free.
    fn held_bytes(&self) -> usize {
        let one = size_of::<((u128, i32), i64)>().saturating_add(1);
        self.offsets.capacity().saturating_mul(one).saturating_mul(8) / 7
    }
}
