//! Ports on which TLS is taken for Kafka, as they come to be known while the capture runs.

use super::calls::Calls;

/// Adds ports, from any thread.
#[derive(Clone)]
pub struct TakenPorts {
    calls: Calls,
}

impl TakenPorts {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// TLS connections to this port are copied from now on: those that begin, and those whose next
    /// packet begins with a record.
    pub fn take(&self, port: u16) {
        self.calls.take_port(port);
    }
}
