//! What is known of a session: its handshake, both directions, and the records that are held.

use crate::Sender;
use crate::hello::Hello;
use crate::queue::Queue;
use crate::side::Side;

/// The state that records change, and that keys are tried on.
pub(crate) struct State {
    pub(crate) hello: Hello,
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) queue: Queue,
}

impl State {
    /// `from_beginning`: both directions are seen from their first byte on.
    pub(crate) fn new(from_beginning: bool) -> Self {
        Self {
            hello: Hello::default(),
            client: Side::new(from_beginning),
            server: Side::new(from_beginning),
            queue: Queue::default(),
        }
    }

    pub(crate) fn side(&mut self, sender: Sender) -> &mut Side {
        match sender {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    pub(crate) fn side_of(&self, sender: Sender) -> &Side {
        match sender {
            Sender::Client => &self.client,
            Sender::Server => &self.server,
        }
    }
}
