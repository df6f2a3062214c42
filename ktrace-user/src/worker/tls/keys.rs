//! Keys for connections inside TLS: who is asked for them, and what becomes of connections that
//! none is found for.
//!
//! ```text
//!  records that no key opens ─┬─▶ the key log, by the client's random ────────────────┐
//!                             ├─▶ what probes have seen of the connection's process ───┤
//!                             └─▶ the connection's process is known ─▶ search ─▶ key ─┴─▶ what was held is read
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ktrace_kafka::Speaks;
use ktrace_tls::keylog::KeyLog;
use ktrace_tls::session::{Closed, Plain, Session};

use super::Waiting;
use crate::keys::{Answer, Ask};
use crate::seen::{ConnectionId, Side};
use crate::worker::may_open::Opening;
use crate::worker::shared::count;
use crate::worker::{Sides, Worker};

/// Ciphertext of one connection that may wait for a key, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// And so much of all connections of all workers.
const MOST_OF_ALL_BYTES: usize = 64 << 20;

/// A broker's memory is searched so much later where clients' ends are read too: a client's is
/// mostly smaller.
const OTHER_END: Duration = Duration::from_millis(100);

/// It waits for so long.
const PATIENCE_NS: u64 = 10_000_000_000;

impl Worker {
    /// A segment came of a connection inside TLS, or its process has become known.
    pub(in crate::worker) fn look_at_tls(&mut self, id: ConnectionId, now_ns: u64) {
        self.note_read_tls(id);
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(session) = connection.kafka.tls() else {
            return self.tls.forget(id, &self.world.shared);
        };
        let lacks = !session.lacks().is_empty();
        // The beginning of a record is not counted: it waits for its rest.
        let held = session.held().map_or(0, |_| session.held_bytes());
        if !lacks && held == 0 {
            if session.is_open() {
                self.tls.forget(id, &self.world.shared);
            }
            return;
        }
        self.tls.waiting.entry(id).or_insert(Waiting {
            since_ns: now_ns,
            allowed: false,
            asked: None,
            logged: None,
            tried: None,
            held_bytes: 0,
        });
        self.tls.weigh(id, held, &self.world.shared);
        if lacks && self.may_go_on(id, now_ns) {
            if self.take_logged(id) || self.take_derived(id) {
                return;
            }
            self.search_for(id);
        }
        if held > MOST_BYTES {
            self.shed_tls(id);
        }
        while self.world.shared.tls_held.load(Ordering::Relaxed) > MOST_OF_ALL_BYTES
            && let Some(heaviest) = self.tls.heaviest()
        {
            self.shed_tls(heaviest);
        }
    }

    /// Kafka was found inside TLS: counts the connection, once, and learns where its broker is.
    fn note_read_tls(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.kafka.tls().is_some()
            && connection.kafka.speaks() == Speaks::Kafka
            && !std::mem::replace(&mut connection.tls_is_read, true)
        {
            self.world.shared.brokers.spoke(connection.state.client.ends.broker);
            count(&mut self.totals.tls_read, &connection.state.client.service());
        }
    }

    /// Whether keys may be looked for that open this connection, as far as that is known by now.
    /// What may not be opened is left.
    fn may_go_on(&mut self, id: ConnectionId, now_ns: u64) -> bool {
        let (Some(connection), Some(waiting)) = (self.connections.get(&id), self.tls.waiting.get(&id)) else {
            return false;
        };
        if waiting.allowed {
            return true;
        }
        let alpn = connection.kafka.tls().is_some_and(|session| session.hello().alpn);
        match self.tls.may_open(&connection.state.client, alpn, &self.world.shared) {
            Opening::NotYet => return false,
            Opening::No => {
                self.act(id, |kafka, scratch, _| kafka.leave_tls(scratch));
                self.settle_tls(id, now_ns);
                return false;
            }
            Opening::Yes => {}
        }
        if let Some(waiting) = self.tls.waiting.get_mut(&id) {
            waiting.allowed = true;
        }
        true
    }

    /// Asks for the connection's process to be searched, once it is known, and gives the search
    /// what has come since.
    fn search_for(&mut self, id: ConnectionId) {
        let (Some(search), Some(connection)) = (&self.tls.search, self.connections.get(&id)) else {
            return;
        };
        let (Some(session), Some(waiting)) = (connection.kafka.tls(), self.tls.waiting.get_mut(&id)) else {
            return;
        };
        let number = session.samples_number();
        // Records that come after all that was asked for is answered are asked for anew.
        let asked = waiting.asked.filter(|asked| *asked == number || search.more(id, session.samples()));
        let waited_ms =
            session.held().map_or(0, |(_, since)| self.world.now_ns.saturating_sub(since) / 1_000_000);
        tracing::debug!(
            connection = id.0,
            ?asked,
            number,
            waited_ms,
            owned = connection.state.client.holder().is_some(),
            "lacks keys"
        );
        match (asked, connection.state.client.holder()) {
            (Some(_), _) => {}
            (None, Some(process)) if waiting.allowed => search.ask(Ask {
                connection: id,
                worker: self.tls.worker,
                process: Arc::clone(process),
                ends: connection.state.client.ends,
                samples: session.samples(),
                delay: if self.sides == Sides::Both && connection.state.client.side == Side::Broker {
                    OTHER_END
                } else {
                    Duration::ZERO
                },
            }),
            (None, _) => return,
        }
        waiting.asked = Some(number);
    }

    /// Opens a connection by the key log. Returns whether that has its secrets.
    fn take_logged(&mut self, id: ConnectionId) -> bool {
        let (Some(log), Some(connection)) = (&self.tls.log, self.connections.get(&id)) else {
            return false;
        };
        let (Some(session), Some(waiting)) = (connection.kafka.tls(), self.tls.waiting.get_mut(&id)) else {
            return false;
        };
        // Not only of a connection that has just come to wait: what it holds first may be of no use
        // with a key.
        let now = Some((log.version(), session.samples_number()));
        if std::mem::replace(&mut waiting.logged, now) == now {
            return false;
        }
        let logged = |random: [u8; 32]| log.read(|log| log.secrets(&random).cloned());
        let Some(secrets) = session.hello().client_random.and_then(logged) else { return false };
        let mut taken = false;
        self.act(id, |kafka, scratch, listener| taken = kafka.take_secrets(&secrets, scratch, listener));
        if taken {
            self.settle_tls(id, self.world.now_ns);
        }
        taken
    }

    /// Opens a connection by what probes have seen of its process. Returns whether it lacks nothing
    /// any more.
    fn take_derived(&mut self, id: ConnectionId) -> bool {
        let (Some(derived), Some(connection)) = (&self.tls.derived, self.connections.get(&id)) else {
            return false;
        };
        let Some(pid) = connection.state.client.holder().map(|process| process.pid) else { return false };
        let (Some(session), Some(waiting)) = (connection.kafka.tls(), self.tls.waiting.get_mut(&id)) else {
            return false;
        };
        if session.lacks().is_empty() {
            return false;
        }
        let (all, samples) = (derived.number(), session.samples_number());
        if waiting.tried.is_some_and(|tried| (tried.0, tried.2) == (all, samples)) {
            return false;
        }
        let of_process = derived.number_of(pid);
        let before = waiting.tried.replace((all, of_process, samples));
        let tried = before.and_then(|(_, tried, _)| tried);
        // What others have derived is of no use to it.
        if of_process.is_none() || before.is_some_and(|(_, tried, of)| (tried, of) == (of_process, samples)) {
            return false;
        }
        let derived = Arc::clone(derived);
        let mut opened = false;
        self.act(id, |kafka, scratch, listener| {
            let open = |session: &mut Session, mut give: &mut dyn FnMut(_, Plain<'_>)| {
                derived.open(pid, tried, session, &mut give)
            };
            opened = kafka.open_tls(open, scratch, listener).unwrap_or(false);
        });
        if !opened {
            return false;
        }
        self.settle_tls(id, self.world.now_ns);
        !self.tls.is_waiting(id)
    }

    /// More was held of connections than may be, or for longer: this one's is lost.
    fn shed_tls(&mut self, id: ConnectionId) {
        self.act(id, |kafka, scratch, _| kafka.shed_tls(scratch));
        self.tls.weigh(id, 0, &self.world.shared);
    }

    /// Takes what the search has found.
    pub(in crate::worker) fn take_keys(&mut self, now_ns: u64) {
        let Some(search) = &self.tls.search else { return };
        if !search.has_answers(self.tls.worker) {
            return;
        }
        let mut answers = Vec::new();
        search.answers(self.tls.worker, &mut answers);
        for answer in answers {
            let id = answer.connection();
            let session = self.connections.get(&id).and_then(|connection| connection.kafka.tls());
            let waited_ms =
                session.and_then(Session::held).map(|(_, since)| now_ns.saturating_sub(since) / 1_000_000);
            tracing::debug!(
                connection = id.0,
                waited_ms,
                found = matches!(answer, Answer::Key { .. }),
                "answered"
            );
            match answer {
                Answer::Key { connection: id, key } => {
                    self.act(id, |kafka, scratch, listener| {
                        kafka.take_key(key, scratch, listener);
                    });
                    self.settle_tls(id, now_ns);
                }
                Answer::Nothing { connection: id, why } => {
                    if let Some(waiting) = self.tls.waiting.get_mut(&id) {
                        waiting.asked = None;
                    }
                    if self.take_derived(id) {
                        continue;
                    }
                    let Some(connection) = self.connections.get(&id) else { continue };
                    let Some(session) = connection.kafka.tls() else { continue };
                    // A connection that is over takes its key with it.
                    let is_over = connection.closed || connection.reset || connection.fin != (false, false);
                    match why {
                        // Too much is asked of the search: again at the next look.
                        Closed::Full => self.shed_tls(id),
                        _ if session.lacks().is_empty() && session.is_open() => {}
                        Closed::NoKey if is_over => self.give_up_tls(id, Closed::Ended, now_ns),
                        _ => self.give_up_tls(id, why, now_ns),
                    }
                }
            }
        }
    }

    fn give_up_tls(&mut self, id: ConnectionId, why: Closed, now_ns: u64) {
        self.act(id, |kafka, scratch, listener| kafka.give_up_tls(why, scratch, listener));
        self.tls.forget(id, &self.world.shared);
        self.settle_tls(id, now_ns);
    }

    /// What was held may have shown what the connection is.
    fn settle_tls(&mut self, id: ConnectionId, now_ns: u64) {
        self.note_read_tls(id);
        if let Some(connection) = self.connections.get(&id) {
            match connection.kafka.tls() {
                Some(session) if !session.lacks().is_empty() || session.held().is_some() => {}
                _ => self.tls.forget(id, &self.world.shared),
            }
        }
        self.give_up(id, now_ns);
    }

    /// Looks through all that wait: the key log may have grown, processes may have become known,
    /// and patience ends.
    pub(in crate::worker) fn look_through_tls(&mut self, now_ns: u64) {
        if self.tls.waiting.is_empty() {
            return;
        }
        let number = self.tls.log.as_ref().map_or(0, |log| log.version());
        let has_grown = std::mem::replace(&mut self.tls.log_number, number) != number;
        let number = self.tls.derived.as_ref().map_or(0, |derived| derived.number());
        let has_derived = std::mem::replace(&mut self.tls.derived_number, number) != number;
        let mut ids: Vec<ConnectionId> = self.tls.waiting.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let was_allowed = self.tls.waiting.get(&id).is_some_and(|waiting| waiting.allowed);
            if self.may_go_on(id, now_ns) {
                if (has_grown || !was_allowed) && self.take_logged(id) {
                    continue;
                }
                if (has_derived || !was_allowed) && self.take_derived(id) {
                    continue;
                }
                self.search_for(id);
            }
            let (Some(waiting), Some(connection)) = (self.tls.waiting.get(&id), self.connections.get(&id))
            else {
                continue;
            };
            let Some(session) = connection.kafka.tls() else { continue };
            let is_over = connection.closed || connection.reset;
            let is_long = |since_ns| now_ns.saturating_sub(since_ns) >= PATIENCE_NS;
            let is_held_long = session.held().is_some_and(|(_, since_ns)| is_long(since_ns));
            if session.lacks().is_empty() && session.is_open() {
                // The other direction is silent: it has no records that a key could be proved by.
                if is_held_long {
                    self.act(id, |kafka, scratch, listener| {
                        kafka.give_up_tls(Closed::NoKey, scratch, listener);
                    });
                    self.settle_tls(id, now_ns);
                }
            } else if is_long(waiting.since_ns) && (is_over || waiting.asked.is_none()) {
                self.end_tls(id);
            } else if is_held_long {
                self.shed_tls(id);
            }
        }
    }

    /// A connection has waited for keys as long as it may.
    pub(in crate::worker) fn end_tls(&mut self, id: ConnectionId) {
        let now_ns = self.world.now_ns;
        let allowed = self.tls.waiting.get(&id).is_some_and(|waiting| waiting.allowed);
        match (&self.tls.search, &self.tls.log) {
            // Or its process is not known.
            (Some(search), _) if allowed => self.give_up_tls(id, search.unknown(), now_ns),
            // It may not be opened as far as is known, or is of a capture file that has no secrets:
            // it was not asked for.
            (_, log)
                if !allowed
                    || (!self.tls.options.is_on()
                        && log.as_ref().is_none_or(|log| log.read(KeyLog::is_empty))) =>
            {
                self.act(id, |kafka, scratch, _| kafka.leave_tls(scratch));
                self.tls.forget(id, &self.world.shared);
                self.give_up(id, now_ns);
            }
            _ => self.give_up_tls(id, Closed::NoKey, now_ns),
        }
    }
}
