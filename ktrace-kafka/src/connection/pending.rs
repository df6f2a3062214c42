//! Requests that wait for their response.

use std::collections::{VecDeque, vec_deque};
use std::sync::Arc;

use super::found::{Found, confirms};
use crate::sink::{Head, ResponseHead};

/// A request that waits for its response.
pub struct Pending {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Arc<str>>,
    pub seq: u32,
    pub start_ns: u64,
    pub end_ns: u64,
    /// Its body, where the API's is read; empty else.
    pub body: Box<[u8]>,
    /// A gap took a part, or it was too much to keep: its response is passed over.
    pub broken: bool,
    /// It may be one that has no response: a Produce whose acks were not seen, or what a search has
    /// found and nothing has confirmed.
    pub perhaps_silent: bool,
    /// How often requests may have been missed before it.
    pub misses: u32,
    /// The request before has another client id, so that this one is held for it.
    pub owns_id: bool,
}

impl Pending {
    /// Bytes that it holds beyond its own size.
    pub fn held_bytes(&self) -> usize {
        let id = self.client_id.as_ref().filter(|_| self.owns_id).map_or(0, |id| id.len());
        self.body.len().saturating_add(id)
    }

    /// Whether a response may be the one to this request. The bytes that were read to decide are
    /// added to `cost`.
    pub fn is_answered_by(&self, correlation_id: i32, response: &Found<'_>, cost: &mut usize) -> bool {
        self.correlation_id == correlation_id && confirms(self.api_key, self.version, response, cost)
    }

    pub fn head(&self, response: Option<ResponseHead>) -> Head<'_> {
        Head {
            api_key: self.api_key,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.as_deref(),
            request_start_ns: self.start_ns,
            request_end_ns: self.end_ns,
            request_seq: self.seq,
            response,
        }
    }
}

/// Heads of pending requests that stay when memory is given back, so that their responses are not
/// taken for those of others: three times what producers have in flight by default
/// (`max.in.flight.requests.per.connection`, 5).
const KEPT_HEADS: usize = 16;

/// The requests of a connection that wait for their response, the oldest first.
#[derive(Default)]
pub struct Queue {
    requests: VecDeque<Pending>,
    /// What they hold.
    bytes: usize,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Bytes that the requests hold beyond their own size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All bytes of it.
    pub fn held_bytes(&self) -> usize {
        self.requests.capacity().saturating_mul(size_of::<Pending>()).saturating_add(self.bytes)
    }

    pub fn iter(&self) -> vec_deque::Iter<'_, Pending> {
        self.requests.iter()
    }

    /// The oldest one.
    pub fn front(&self) -> Option<&Pending> {
        self.requests.front()
    }

    pub fn push(&mut self, request: Pending) {
        self.bytes = self.bytes.saturating_add(request.held_bytes());
        self.requests.push_back(request);
    }

    /// Takes the oldest one.
    pub fn pop(&mut self) -> Option<Pending> {
        let request = self.requests.pop_front()?;
        self.bytes = self.bytes.saturating_sub(request.held_bytes());
        // Room for a few stays, as the next request needs it soon.
        if self.requests.is_empty() && self.requests.capacity() > 4 {
            self.requests = VecDeque::new();
        }
        Some(request)
    }

    /// Takes the oldest `count`.
    pub fn drain(&mut self, count: usize) -> vec_deque::Drain<'_, Pending> {
        let count = count.min(self.requests.len());
        for request in self.requests.iter().take(count) {
            self.bytes = self.bytes.saturating_sub(request.held_bytes());
        }
        self.requests.drain(..count)
    }

    /// Gives back what the requests hold; their responses are passed over. Returns whether there
    /// were too many, so that none is left.
    pub fn shed(&mut self) -> bool {
        let all = self.requests.len() > KEPT_HEADS;
        if all {
            self.requests = VecDeque::new();
        }
        for request in &mut self.requests {
            request.broken |= !request.body.is_empty();
            request.body = Box::default();
            (request.client_id, request.owns_id) = (None, false);
        }
        self.requests.shrink_to_fit();
        self.bytes = 0;
        all
    }
}

impl IntoIterator for Queue {
    type Item = Pending;
    type IntoIter = vec_deque::IntoIter<Pending>;

    fn into_iter(self) -> Self::IntoIter {
        self.requests.into_iter()
    }
}
