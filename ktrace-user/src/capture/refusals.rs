//! Connections of which the kernel side is to copy no more: they speak something else than Kafka,
//! or belong to a process that is not watched.

use super::calls::Calls;
use crate::seen::ConnectionId;

/// Refuses connections, from any thread.
#[derive(Clone)]
pub struct Refusals {
    calls: Calls,
}

impl Refusals {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// Nothing more of this connection. A failure only means that its bytes are copied in vain.
    pub fn refuse(&self, connection: ConnectionId) {
        self.calls.refuse(connection);
    }
}
