//! Limits of CPU time and of spans a second, for hops that have waited: a limit can have become
//! stricter since they were made.
//!
//! A hop that need not wait was held against the limits just before it was made, see
//! [`World::is_within`].

use super::{Admit, Stage};
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// The stage; what limits leave is in [`World`].
#[derive(Default)]
pub(in crate::worker) struct Limits;

impl Stage for Limits {
    const NAME: &'static str = "limits";

    fn admit(&mut self, _connection: ConnectionId, hop: &mut Hop, world: &mut World) -> Admit {
        // What covers messages of other traces has to be known whatever the limits say.
        if world.has_to_hear_of(hop) || world.is_within(hop.passage.trace_id()) {
            Admit::Pass
        } else {
            Admit::Drop
        }
    }
}
