//! Messages that a process has sent, where several rings are read: the message that made it send
//! them may lie in one that is read a little later.

use std::sync::Arc;

use super::pending::Pending;
use super::{Next, Stage, When};
use crate::hop::Hop;
use crate::hop::chains::{self, Cause};
use crate::hop::deadline::LATE_NS;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Messages that wait in a worker.
pub(in crate::worker) const MAX_SENT: usize = 16 << 10;

/// What is needed to find out what made a process send a message.
pub(in crate::worker) struct Sought {
    pub chain: chains::Shared,
    pub topic: Arc<str>,
    pub key: Option<u64>,
    pub sent_ns: u64,
    /// It was not sent before.
    pub is_first: bool,
}

impl Sought {
    pub fn find(&self) -> Option<Cause> {
        self.chain.sends(&self.topic, self.key, self.sent_ns, self.is_first)
    }
}

/// A message that was sent; without a hop if it is not shown.
type Sent = (Sought, Option<Hop>);

/// Messages that were sent, in the order in which they were sent, as each says something of the
/// process.
pub(in crate::worker) struct AwaitingCause {
    pending: Pending<Sent>,
}

impl Default for AwaitingCause {
    fn default() -> Self {
        Self { pending: Pending::new(Self::PATIENCE_NS, Self::BOUND) }
    }
}

impl AwaitingCause {
    /// Holds a message. Returns whether there are too many.
    pub fn push(&mut self, connection: ConnectionId, now_ns: u64, sought: Sought, hop: Option<Hop>) -> bool {
        self.pending.push(connection, now_ns, (sought, hop))
    }
}

fn hand_on(connection: ConnectionId, (sought, hop): Sent, world: &mut World, next: &mut impl Next) {
    let cause = sought.find();
    if let Some(mut hop) = hop {
        hop.passage.caused_by(cause);
        next.push(connection, hop, world);
    }
}

impl Stage for AwaitingCause {
    const NAME: &'static str = "awaiting_cause";
    const PATIENCE_NS: u64 = LATE_NS;
    const BOUND: usize = MAX_SENT;

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        match when {
            When::News(_) | When::Amended(_) | When::Ending => {}
            When::Full => {
                while let Some((connection, sent)) = self.pending.pop_excess() {
                    self.pending.count_early(sent.1.is_some().into());
                    hand_on(connection, sent, world, next);
                }
            }
            When::Due(_) | When::Sweep(_) | When::Shed | When::End => {
                while let Some((connection, sent)) = self.pending.pop_due(when.now_ns()) {
                    hand_on(connection, sent, world, next);
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.pending.len()
    }

    fn take_early(&mut self) -> u64 {
        self.pending.take_early()
    }
}
