//! The end of the table: the function that hands hops to the sinks' queues.

use super::Next;
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Where hops that are to be shown go. Whoever calls `emit` counts the hop first, for the limit of
/// spans a second; there is no method for both, as the compiler would copy the hop for it.
pub(in crate::worker) struct Sink {
    pub emit: Box<dyn FnMut(Hop) + Send>,
}

impl Next for Sink {
    fn push(&mut self, _connection: ConnectionId, hop: Hop, world: &mut World) {
        world.shared.count_span();
        (self.emit)(hop);
    }
}
