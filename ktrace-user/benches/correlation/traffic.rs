//! What passes connections in simulated time.

use ktrace_user::seen::Event;

/// Gets the events of a connection.
pub type Read<'x> = &'x mut dyn FnMut(u64, &[Event<'_>]);

/// What passes in a millisecond, and how many records so far.
pub trait Traffic {
    fn millisecond(&mut self, read: Read<'_>);
    fn records(&self) -> u64;
}
