//! Connections inside TLS that lack keys: since when, and what was tried for each.

mod keys;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::client::ClientState;
use super::may_open::Opening;
use super::shared::Shared;
use super::tls_options::TlsOptions;
use crate::keys::uprobes::Store;
use crate::keys::{Keys, SharedKeyLog};
use crate::seen::ConnectionId;

/// Connections that lack keys.
pub(super) struct Tls {
    log: Option<SharedKeyLog>,
    derived: Option<Arc<Store>>,
    search: Option<Arc<Keys>>,
    options: TlsOptions,
    /// The worker's number, by which the search answers.
    worker: usize,
    waiting: HashMap<ConnectionId, Waiting>,
    /// The number of changes of the key log when it was last looked at.
    log_number: u64,
    /// The same of what probes have seen.
    derived_number: u64,
}

/// A connection that lacks a key.
struct Waiting {
    /// Since when keys are looked for.
    since_ns: u64,
    /// It may be opened; not known yet else.
    allowed: bool,
    /// Its process was asked for, with samples of this number.
    asked: Option<u32>,
    /// What probes had seen, of all processes and of its own, and the number of the samples, when
    /// the one was last tried with the other.
    tried: Option<(u64, Option<u64>, u32)>,
    /// The key log was looked at, with this number of its changes and of samples.
    logged: Option<(u64, u32)>,
    held_bytes: usize,
}

impl Tls {
    pub fn new(
        (log, derived): (Option<SharedKeyLog>, Option<Arc<Store>>),
        search: Option<Arc<Keys>>,
        options: TlsOptions,
        worker: usize,
    ) -> Self {
        Self {
            log,
            derived,
            search,
            options,
            worker,
            waiting: HashMap::new(),
            log_number: 0,
            derived_number: 0,
        }
    }

    /// Whether keys may be looked for that open this connection, whose client has offered protocols
    /// (`alpn`), or has not, as far as is known.
    pub fn may_open(&self, client: &ClientState, alpn: bool, shared: &Shared) -> Opening {
        if self.log.is_none() && self.search.is_none() {
            return Opening::No;
        }
        // A capture file's secrets were given for it.
        if !self.options.is_on() {
            return Opening::Yes;
        }
        shared.brokers.may_open(&client.ends, client.holder().map(AsRef::as_ref), alpn, &self.options)
    }

    /// So much is held of this connection for want of keys now.
    fn weigh(&mut self, id: ConnectionId, bytes: usize, shared: &Shared) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            let before = std::mem::replace(&mut waiting.held_bytes, bytes);
            shared.tls_held.fetch_add(bytes, Ordering::Relaxed);
            shared.tls_held.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// Of those that wait, the one that holds most.
    fn heaviest(&self) -> Option<ConnectionId> {
        let heaviest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.held_bytes);
        heaviest.filter(|(_, waiting)| waiting.held_bytes > 0).map(|(id, _)| *id)
    }

    /// Whether keys are still looked for that open it.
    pub fn is_waiting(&self, id: ConnectionId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// A connection is over, or lacks nothing any more.
    pub fn forget(&mut self, id: ConnectionId, shared: &Shared) {
        self.weigh(id, 0, shared);
        if let Some(Waiting { asked: Some(_), .. }) = self.waiting.remove(&id)
            && let Some(search) = &self.search
        {
            search.withdraw(id);
        }
    }
}
