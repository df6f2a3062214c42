//! The end of the table: the function that hands hops to the sinks' queues.

use super::Next;
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Counts hops, for the limit of spans a second, and emits them.
pub(in crate::worker) struct Sink(Box<dyn FnMut(Hop) + Send>);

impl Sink {
    pub fn new(emit: Box<dyn FnMut(Hop) + Send>) -> Self {
        Self(emit)
    }
}

impl Next for Sink {
    #[inline]
    fn push(&mut self, _connection: ConnectionId, hop: Hop, world: &mut World) {
        world.shared.count_span();
        (self.0)(hop);
    }
}
