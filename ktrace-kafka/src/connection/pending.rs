//! A request that waits for its response.

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
    /// It may be one that has no response: a Produce whose acks were not seen, or what a search has found and nothing has
    /// confirmed.
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

    /// Whether a response may be the one to this request. What was read to tell is added to `cost`.
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
