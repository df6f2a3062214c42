//! What tests of single stages need: hops that wait, and what they hand on.

use std::sync::Arc;

use super::{Admit, Next, Stage};
use crate::hop::attempts::Message;
use crate::hop::topics::Topics;
use crate::hop::transactions::Producer;
use crate::hop::{Hop, Kind, Topic, samples};
use crate::seen::ConnectionId;
use crate::worker::shared::Shared;
use crate::worker::world::{Settings, World};

/// A worker's world at this time.
pub fn world(now_ns: u64) -> World {
    let mut world = World::new(Settings::default(), false, &Arc::<Shared>::default());
    world.now_ns = now_ns;
    world
}

/// A hop of a named topic.
pub fn named(offset: i64) -> Hop {
    let mut hop = Hop { topic: Topic::Named(Topics::default().named("orders")), ..samples::sent() };
    (hop.passage.offset, hop.passage.end_ns) = (Some(offset), 0);
    hop
}

/// A hop of a topic of which only the id is known.
pub fn of(topic: u128, offset: i64) -> Hop {
    Hop { topic: Topic::Id(topic), ..named(offset) }
}

/// A failed attempt that another may follow.
pub fn failed(offset: i64) -> Hop {
    let message = Message::numbered(&Producer { cluster: None, id: 1 }, 2, 3, "orders", 0);
    let mut hop = named(offset);
    hop.passage.kind = Kind::Produced { acks: -1, attempt: 1, pending: Some(message.into()), throttle_ms: 0 };
    hop
}

/// The stages behind one.
#[derive(Default)]
pub struct Out(Vec<Hop>);

impl Out {
    /// Gives a hop to a stage. Returns whether it waits there.
    pub fn holds(
        &mut self,
        stage: &mut impl Stage,
        connection: ConnectionId,
        mut hop: Hop,
        world: &mut World,
    ) -> bool {
        let admit = stage.admit(connection, &mut hop, world);
        if admit == Admit::Wait {
            stage.hold(connection, hop, world, self);
        }
        admit == Admit::Wait
    }

    /// Offsets of what was handed on since this was asked last, and whether their topics have
    /// names.
    pub fn take(&mut self) -> Vec<(i64, bool)> {
        let offset = |hop: Hop| (hop.passage.offset.unwrap(), matches!(hop.topic, Topic::Named(_)));
        std::mem::take(&mut self.0).into_iter().map(offset).collect()
    }
}

impl Next for Out {
    fn push(&mut self, _connection: ConnectionId, hop: Hop, _world: &mut World) {
        self.0.push(hop);
    }
}
