//! Where a consumer stands in each partition: the offsets that its Fetch requests ask from.
//!
//! A response may begin below the offset asked for, at the start of the batch that holds it; the
//! consumer drops what is below. In a fetch session (KIP-227) a request names only the partitions
//! that changed, so the offsets of the others are those of requests before. A connection has one
//! session, or several where a proxy puts the clients of many connections on one.

use std::collections::HashMap;
use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::fetch::{Asked, Fetched, Request};
use crate::protocol::topic::Topic;
use crate::sink::Began;

/// Partitions remembered for one session; the offsets of more are taken as they come. More than a
/// broker is advised to lead, and 3 MiB at most.
const MAX_PARTITIONS: usize = 64 << 10;

/// Sessions remembered for one connection; of more, the oldest is evicted. A client has one a
/// connection; only a proxy that shares its connections has several.
const MAX_SESSIONS: usize = 16;

/// What a request without a session has for its id, and one that wants a new session.
const NO_SESSION: i32 = 0;

struct Session {
    id: i32,
    standings: HashMap<u64, Standing>,
}

/// Where the client stands in a partition. It is kept while the client does not ask for the
/// partition: those that are full of what it has not processed yet are left out of requests.
struct Standing {
    /// From where on it asked last.
    offset: i64,
    /// It asks for it at present.
    is_asked: bool,
    /// When it asked first, or went back, and from where on.
    began_ns: u64,
    began_offset: i64,
    /// The log has nothing before that.
    is_log_start: bool,
    /// How far it went on from there when that was answered, as far as a number of 32 bits goes;
    /// `None` before. An offset would be the largest part of an idle connection.
    ahead: Option<NonZeroU32>,
}

/// The fetch sessions of a connection, and where its consumers stand in each.
#[derive(Default)]
pub struct Sessions {
    /// The oldest first.
    all: Vec<Session>,
    /// Which of them asked last.
    asking: usize,
    held_bytes: usize,
}

/// A partition of a topic's id or name: no session mixes both.
fn key(topic: Topic<'_>, partition: i32) -> u64 {
    let seed = u64::from(partition.cast_unsigned());
    match topic {
        Topic::Id(id) => xxh3_64_with_seed(&id.to_be_bytes(), seed),
        Topic::Name(name) => xxh3_64_with_seed(name.as_bytes(), seed),
    }
}

impl Sessions {
    /// A request asks, whose first byte passed at this time: one that lists all partitions begins
    /// anew, and ends the session that it names.
    pub fn ask(&mut self, request: &Request<'_>, now_ns: u64) {
        let id = if request.is_full() { NO_SESSION } else { request.session_id };
        // Its partitions are asked for in another one, at the same place.
        let ended = if id == request.session_id { None } else { self.end(request.session_id) };
        let known = self.all.iter().position(|session| session.id == id);
        self.asking = known.unwrap_or_else(|| {
            if self.all.len() >= MAX_SESSIONS {
                self.all.remove(0);
            }
            // Most connections have one.
            self.all.reserve_exact(usize::from(self.all.is_empty()));
            let standings = ended.map(|session| session.standings).unwrap_or_default();
            self.all.push(Session { id, standings });
            self.all.len().saturating_sub(1)
        });
        if let Some(session) = self.all.get_mut(self.asking) {
            let room = session.standings.capacity();
            session.ask(request, now_ns);
            if session.standings.capacity() != room || known.is_none() {
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

    fn end(&mut self, id: i32) -> Option<Session> {
        let at = self.all.iter().position(|session| session.id == id)?;
        let ended = self.all.remove(at);
        self.weigh();
        Some(ended)
    }

    /// A partition is answered. Gives from where on the consumer that asked last wants its records,
    /// `None` if that was never seen, and where it began to read it.
    pub fn answer(&mut self, topic: Topic<'_>, fetched: &Fetched<'_>) -> (Option<i64>, Option<Began>) {
        let asking = self.all.get_mut(self.asking);
        let standing = asking.and_then(|session| session.standings.get_mut(&key(topic, fetched.partition)));
        let Some(standing) = standing.filter(|standing| standing.is_asked) else { return (None, None) };
        // The first answer has it: brokers leave out of later ones what has not changed.
        if standing.ahead.is_none() && fetched.error == 0 && fetched.high_watermark >= 0 {
            let ahead = fetched.high_watermark.saturating_sub(standing.began_offset).max(0);
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
            standing.ahead = NonZeroU32::new(ahead);
            standing.is_log_start = standing.began_offset == 0 || standing.began_offset == fetched.log_start;
        }
        (Some(standing.offset), standing.began())
    }

    /// Bytes that the offsets take.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl Session {
    fn ask(&mut self, request: &Request<'_>, now_ns: u64) {
        if request.is_full() {
            self.standings.values_mut().for_each(|standing| standing.is_asked = false);
        }
        for (topic, Asked { partition, offset }) in request.topics.partitions() {
            let key = key(topic, partition);
            let is_full = self.standings.len() >= MAX_PARTITIONS;
            match self.standings.get_mut(&key) {
                Some(standing) if standing.offset <= offset => {
                    (standing.offset, standing.is_asked) = (offset, true);
                }
                Some(standing) => *standing = Standing::new(offset, now_ns),
                None if is_full => {}
                None => {
                    self.standings.insert(key, Standing::new(offset, now_ns));
                }
            }
        }
        for (topic, partition) in request.forgotten.partitions() {
            if let Some(standing) = self.standings.get_mut(&key(topic, partition)) {
                standing.is_asked = false;
            }
        }
    }

    /// An entry is kept with a byte of its hash, and an eighth of the places stays free.
    fn held_bytes(&self) -> usize {
        let one = size_of::<(u64, Standing)>().saturating_add(1);
        self.standings.capacity().saturating_mul(one).saturating_mul(8) / 7
    }
}

impl Standing {
    fn new(offset: i64, now_ns: u64) -> Self {
        Self {
            offset,
            is_asked: true,
            began_ns: now_ns,
            began_offset: offset,
            is_log_start: false,
            ahead: None,
        }
    }

    fn began(&self) -> Option<Began> {
        let ahead = i64::from(self.ahead?.get()).saturating_sub(1);
        Some(Began {
            ns: self.began_ns,
            offset: self.began_offset,
            log_end: self.began_offset.saturating_add(ahead),
            is_log_start: self.is_log_start,
        })
    }
}
