//! Periodic work: releases what is due, sweeps connections and expires stores.

use super::{ConnectionId, Listener, SWEEP_NS, Sides, Worker, count_tls};
use crate::hop::transactions::State;
use crate::purge;

/// A closed connection is kept for this long: segments on their way may still pass.
pub(super) const LINGER_NS: u64 = 5_000_000_000;

/// A client that has sent its FIN counts as closed after this, where no event says so: kernels
/// before 5.9 have none.
const HALF_CLOSED_NS: u64 = 60_000_000_000;

/// A hole is given up after this, where no acknowledgement shows that it is lost (acks=0).
pub(super) const HOLE_NS: u64 = 10_000_000_000;

/// How long a TLS connection waits for its process to be known before it is counted without.
pub(super) const OWNER_NS: u64 = 1_000_000_000;

/// How often all connections are swept: there may be many, and most of them idle.
const LOOK_NS: u64 = 1_000_000_000;

impl Worker {
    /// Counts TLS connections by service, when their processes have had time to become known.
    fn count_tls(&mut self, now_ns: u64) {
        let Self { unread_tls, connections, totals, told, .. } = self;
        unread_tls.retain(|(id, since_ns)| {
            let Some(connection) = connections.get(id) else { return false };
            if !connection.peer.is_owned() && now_ns.saturating_sub(*since_ns) < OWNER_NS {
                return true;
            }
            count_tls(connection, totals, &told.shared);
            false
        });
    }

    /// Drops connections that are over, and gives up holes that will not be filled.
    fn look_through(&mut self, now_ns: u64) {
        let hole_ns = now_ns.saturating_sub(HOLE_NS);
        let (mut over, mut holes) = (Vec::new(), Vec::new());
        for (id, connection) in &self.connections {
            let silent_ns = now_ns.saturating_sub(connection.last_ns);
            if ((connection.closed || connection.reset) && silent_ns > LINGER_NS && !self.tls.is_waiting(*id))
                || (connection.fin.0 && silent_ns > HALF_CLOSED_NS)
            {
                over.push(*id);
            } else if connection.kafka.has_hole_since(hole_ns) {
                holes.push(*id);
            }
        }
        for id in over {
            self.forget(id);
        }
        for id in holes {
            self.act(id, |kafka, scratch, listener| kafka.give_up_holes(scratch, listener));
        }
    }

    /// The clock has advanced to this time.
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.told.now_ns = now_ns;
        self.take_keys(now_ns);
        // A clock that was set back begins anew.
        if now_ns >= self.swept_ns && now_ns - self.swept_ns < SWEEP_NS {
            // Deliveries are released before the commits of other workers that cover them.
            self.told.give_late_runs(Some(now_ns));
            self.told.give_sent(Some(now_ns));
            self.told.release_news(now_ns);
            return;
        }
        self.swept_ns = now_ns;
        if now_ns < self.looked_ns || now_ns - self.looked_ns >= LOOK_NS {
            self.looked_ns = now_ns;
            self.look_through(now_ns);
            self.scratch.wipe();
            purge::overwrite_stack();
        }
        if self.sides == Sides::Both {
            for (id, connection) in self.connections.iter_mut().filter(|(_, c)| c.peer.search.is_open()) {
                Listener { id: *id, peer: &mut connection.peer, told: &mut self.told }.turn(Some(now_ns));
            }
        }
        self.told.give_sent(Some(now_ns));
        self.told.give_late_runs(Some(now_ns));
        self.told.give_late(Some(now_ns));
        self.told.release(Some(now_ns));
        self.told.shared.turn(now_ns);
        self.told.give_uncommitted(now_ns);
        self.look_through_tls(now_ns);
        self.count_tls(now_ns);
        self.give_up_commits(Some(now_ns));
        self.told.shared.stores().iter().for_each(|entry| entry.store.expire(now_ns));
        let known = self.told.shared.known_bytes(self.told.uncommitted.as_deref());
        self.told.shared.memory.know(known);
        self.weigh_all(true);
        self.told.tell_losses(&self.scratch.counters);
    }

    /// Evicts the half of the connections that was silent longest. Half at once, and by times in
    /// the connections instead of an order of use: a segment then touches no list, and the table
    /// shrinks.
    pub(super) fn make_room(&mut self) {
        let mut times: Vec<u64> = self.connections.values().map(|connection| connection.last_ns).collect();
        let half = times.len() / 2;
        let (_, &mut median, _) = times.select_nth_unstable(half);
        let silent: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| (connection.last_ns <= median).then_some(*id))
            .collect();
        let forgotten = &mut self.told.own_losses.forgotten;
        *forgotten = forgotten.saturating_add(silent.len() as u64);
        for id in silent {
            self.forget(id);
        }
        // The table is most of what idle connections take.
        self.connections.shrink_to_fit();
    }

    /// Releases commits whose transactions take too long, as they are.
    pub(super) fn give_up_commits(&mut self, now_ns: Option<u64>) {
        for commit in self.told.shared.commits.over(now_ns) {
            if let Some(hop) = self.told.settled(commit, Some(State::Open)) {
                (self.told.sink)(hop);
            }
        }
    }
}
