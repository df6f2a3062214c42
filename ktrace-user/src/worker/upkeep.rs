//! Periodic work: releases what is due, sweeps connections and expires stores.

use super::stage::When;
use super::{SWEEP_NS, Worker};
use crate::losses::Reason;
use crate::purge;
use crate::seen::ConnectionId;

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
        let Self { unread_tls, connections, totals, world, .. } = self;
        unread_tls.retain(|(id, since_ns)| {
            let Some(connection) = connections.get(id) else { return false };
            if !connection.state.client.is_owned() && now_ns.saturating_sub(*since_ns) < OWNER_NS {
                return true;
            }
            connection.count_tls(totals, &world.shared);
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
        // In one order, whatever that of the table is: what they yet emit of a capture file is the
        // same each time.
        over.sort_unstable();
        holes.sort_unstable();
        for id in over {
            self.forget(id);
        }
        for id in holes {
            self.act(id, |kafka, scratch, listener| kafka.give_up_holes(scratch, listener));
        }
    }

    /// The clock has advanced to this time.
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.world.now_ns = now_ns;
        self.take_keys(now_ns);
        // A clock that was set back begins anew.
        if now_ns >= self.swept_ns && now_ns - self.swept_ns < SWEEP_NS {
            // What commits of other workers cover is not overtaken by them.
            self.stages.release(When::Due(now_ns), &mut self.world);
            self.stages.release(When::News(now_ns), &mut self.world);
            return;
        }
        self.swept_ns = now_ns;
        if now_ns < self.looked_ns || now_ns - self.looked_ns >= LOOK_NS {
            self.looked_ns = now_ns;
            self.look_through(now_ns);
            self.scratch.wipe();
            purge::overwrite_stack();
        }
        self.stages.release(When::Sweep(now_ns), &mut self.world);
        self.world.shared.turn(now_ns);
        self.look_through_tls(now_ns);
        self.count_tls(now_ns);
        let shared = &self.world.shared;
        shared.stores().iter().for_each(|entry| entry.store.expire(now_ns));
        shared.memory.know(shared.known_bytes(self.world.settings.uncommitted.as_deref()));
        self.weigh_all(true);
        self.publish_losses();
    }

    /// Evicts the half of the connections that was silent longest. Half at once, and by times in
    /// the connections instead of an order of use: a segment then touches no list, and the table
    /// shrinks.
    pub(super) fn make_room(&mut self) {
        let mut times: Vec<u64> = self.connections.values().map(|connection| connection.last_ns).collect();
        let half = times.len() / 2;
        let (_, &mut median, _) = times.select_nth_unstable(half);
        let mut silent: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| (connection.last_ns <= median).then_some(*id))
            .collect();
        silent.sort_unstable();
        self.world.losses.lose_n(Reason::ConnectionForgotten, silent.len() as u64);
        for id in silent {
            self.forget(id);
        }
        // The table is most of what idle connections take.
        self.connections.shrink_to_fit();
    }
}
