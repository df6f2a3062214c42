//! Makes hops of what a connection's exchanges say, and notes what all workers know from them.
//!
//! One file for each family of events. Nothing waits here: what a hop waits for is the business of
//! the [stages](super::stage).

mod attempts;
mod chains;
mod end_to_end;
mod groups;
mod own_telemetry;
mod partitions;
mod records;
mod refusals;
mod shares;
mod transactions;

use std::sync::Arc;

use super::connection::state::State;
use super::stage::table::Stages;
use super::world::World;
use crate::hop::groups::Reader;
use crate::hop::{Hop, Parties};
use crate::seen::ConnectionId;

/// The sink of one connection's parser, for as long as it reads a piece of it.
pub(super) struct Listener<'x> {
    pub id: ConnectionId,
    pub state: &'x mut State,
    pub world: &'x mut World,
    pub stages: &'x mut Stages,
}

impl Listener<'_> {
    /// Hands a hop to the stages.
    #[inline(always)]
    fn pass(&mut self, hop: Hop) {
        self.stages.pass(self.id, self.world, hop);
    }

    /// Whether the other end of the connection is captured too, and shows it.
    #[inline(always)]
    fn has_found_other_end(&self) -> bool {
        self.stages.both_ends.has_found(self.id)
    }

    /// Whether it is, or may be found to be.
    #[inline(always)]
    fn may_find_other_end(&self) -> bool {
        self.stages.both_ends.may_find(self.id)
    }

    /// Who takes part in the current exchange, read for this reader.
    fn parties_of(&mut self, reader: &Reader) -> Arc<Parties> {
        self.state.client.parties(reader, &self.world.shared, &mut self.world.stand_ins)
    }

    /// A response names a broker: TLS connections to it may be opened.
    fn names_broker(&self, host: &str, port: i32) {
        let pid = self.state.client.holder().map_or(0, |owner| owner.pid);
        self.world.shared.brokers.named(pid, host, port);
    }

    /// A commit may be among what was missed.
    pub fn missed_commits(&mut self) {
        if let Some(uncommitted) = &self.world.settings.uncommitted {
            uncommitted.missed(self.state.client.resource(&mut self.world.stand_ins));
        }
    }
}
