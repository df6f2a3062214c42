//! Stages: what lies between a hop and the sinks. In each, hops can wait, be dropped, or be
//! changed.
//!
//! A stage is a file of this folder with a type that implements [`Stage`], and a line of the table
//! in [`table`]. The table's order is the way of a hop. The worker knows no stage by name: it asks
//! the table once, and the table asks each stage in turn.
//!
//! A stage can hold something other than hops, such as runs of messages whose reader is unknown.
//! Its file then has a method that the listener calls, and what comes of its items enters the table
//! behind it.

pub(super) mod attempts;
pub(super) mod awaiting_cause;
pub(super) mod awaiting_group;
pub(super) mod awaiting_news;
pub(super) mod awaiting_rings;
pub(super) mod awaiting_transaction;
pub(super) mod both_ends;
pub(super) mod filter;
pub(super) mod follow;
pub(super) mod limits;
mod pending;
#[cfg(test)]
mod samples;
pub(super) mod sink;
pub(super) mod table;
pub(super) mod uncommitted;

use std::collections::HashSet;

use super::memory::HOP_BYTES;
use super::world::World;
use crate::hop::Hop;
use crate::seen::ConnectionId;

/// What becomes of a hop that comes to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admit {
    /// It goes on to the next stage.
    Pass,
    /// The stage is to hold it: see [`Stage::hold`].
    Wait,
    /// It is not emitted.
    Drop,
}

/// Why stages are asked to release what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// A segment or a tick of this time is about to be handled: hops of it must not overtake what
    /// is due.
    Due(u64),
    /// It has been handled: what it brought may be what hops wait for.
    News(u64),
    /// Hops that wait were amended, see [`Stage::amend`].
    Amended(u64),
    /// Four times a second.
    Sweep(u64),
    /// A stage holds more than its bound: only such stages release, and count it as early.
    Full,
    /// Memory is short: everything that this worker holds goes out as it is.
    Shed,
    /// No more events come. Connections are still known, and with them who reads on them.
    Ending,
    /// No more events come, and no connection is left: everything goes out.
    End,
}

impl When {
    /// The time, or `None` where everything goes out whatever the time is.
    pub fn now_ns(self) -> Option<u64> {
        match self {
            Self::Due(now_ns) | Self::News(now_ns) | Self::Amended(now_ns) | Self::Sweep(now_ns) => {
                Some(now_ns)
            }
            Self::Full | Self::Shed | Self::Ending | Self::End => None,
        }
    }
}

/// Which of the hops that wait are amended.
#[derive(Clone, Copy)]
pub(super) struct Scope<'x> {
    pub connection: ConnectionId,
    /// Other partitions may be skipped; `None` for all.
    pub partitions: Option<&'x HashSet<i32>>,
}

/// The stages behind one, up to the sinks.
pub(super) trait Next {
    /// Hands a hop on.
    fn push(&mut self, connection: ConnectionId, hop: Hop, world: &mut World);
}

/// One stage of the table.
///
/// All methods but `NAME` have a default: that of a stage that holds nothing and lets all pass.
/// Time is an argument: that of the event in [`World::now_ns`], that of a release in [`When`].
pub(super) trait Stage {
    /// As sizes show it.
    const NAME: &'static str;

    /// How long something waits at most, by [`pending::is_over`].
    const PATIENCE_NS: u64 = 0;

    /// How many items wait at most. With more, the oldest is released early, which is counted.
    const BOUND: usize = 0;

    /// Whether a hop of this connection of which nothing is unknown need not come here. Asked for
    /// each hop.
    #[inline]
    fn is_clear(&self, _connection: ConnectionId) -> bool {
        true
    }

    /// Whether every hop passes unchanged for as long as the worker lives, as the user asks for
    /// nothing of the stage.
    fn lets_all_pass(&self) -> bool {
        false
    }

    /// Looks at a hop that comes from the stage before, or from the listener.
    #[inline]
    fn admit(&mut self, _connection: ConnectionId, _hop: &mut Hop, _world: &mut World) -> Admit {
        Admit::Pass
    }

    /// Takes a hop for which `admit` said [`Admit::Wait`].
    fn hold(&mut self, connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
        next.push(connection, hop, world);
    }

    /// Something became known about hops that wait: changes each of `scope`. They are amended in
    /// all stages before any is released.
    fn amend(&mut self, _scope: Scope<'_>, _change: &mut dyn FnMut(&mut Hop), _world: &mut World) {}

    /// Hands on what need not wait any more. A stage is not asked with [`When::Due`] and
    /// [`When::News`] while none holds anything.
    fn release(&mut self, _when: When, _world: &mut World, _next: &mut impl Next) {}

    /// The connection has ended, though late segments may still come. Returns whether the stage has
    /// to know who read on it until what it holds of it is released.
    fn hung_up(&mut self, _connection: ConnectionId) -> bool {
        false
    }

    /// The connection is forgotten: hands on what cannot be decided without it.
    fn connection_over(&mut self, _connection: ConnectionId, _world: &mut World, _next: &mut impl Next) {}

    /// How many items this worker holds here: 0 if and only if there is nothing to release with a
    /// segment.
    #[inline]
    fn len(&self) -> usize {
        0
    }

    /// What they take in memory, about.
    fn weight(&self) -> usize {
        self.len().saturating_mul(HOP_BYTES)
    }

    /// How many hops were released early, over the limit, since this was asked last.
    fn take_early(&mut self) -> u64 {
        0
    }
}
