//! The end of the table: the function that hands hops to the sinks' queues.

use super::Next;
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Where hops that are to be shown go. `emit` is called where the hop is: a method between would
/// copy it.
pub(in crate::worker) struct Sink {
    pub emit: Box<dyn FnMut(Hop) + Send>,
}

impl Next for Sink {
    fn push(&mut self, _connection: ConnectionId, hop: Hop, _world: &mut World) {
        (self.emit)(hop);
    }
}
