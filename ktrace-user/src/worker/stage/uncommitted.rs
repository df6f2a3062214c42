//! With `--uncommitted`: deliveries wait until their group commits or acknowledges them, and are
//! emitted where it does not in time.
//!
//! It stands behind the filter, so each hop passes that once. Commits and acknowledgements come
//! here whatever filters, sampling and limits say of them ([`World::has_to_hear_of`]). All
//! workers share the hops that wait ([`Uncommitted`]), so these are neither counted nor weighed here.

use std::sync::Arc;

use super::{Admit, Next, Stage, When};
use crate::hop::uncommitted::{Due, Uncommitted};
use crate::hop::{Hop, Kind};
use crate::losses::Reason;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Deliveries wait without their connections: only the sinks are behind this stage, and they do not
/// ask.
const OF_ANY: ConnectionId = ConnectionId(0);

/// The stage. `None` lets all pass.
pub(in crate::worker) struct AwaitingCommit(pub Option<Arc<Uncommitted>>);

impl Stage for AwaitingCommit {
    const NAME: &'static str = "uncommitted";

    fn lets_all_pass(&self) -> bool {
        self.0.is_none()
    }

    fn admit(&mut self, _connection: ConnectionId, hop: &mut Hop, _world: &mut World) -> Admit {
        let Some(uncommitted) = &self.0 else { return Admit::Pass };
        match hop.passage.kind {
            Kind::Delivered { .. } => Admit::Wait,
            Kind::Committed(_) | Kind::Acknowledged(_) => {
                uncommitted.cover(hop);
                Admit::Drop
            }
            Kind::Produced { .. } | Kind::Refused(_) => Admit::Drop,
        }
    }

    fn hold(&mut self, _connection: ConnectionId, hop: Hop, _world: &mut World, _next: &mut impl Next) {
        if let Some(uncommitted) = &self.0 {
            uncommitted.hold(hop);
        }
    }

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        let (Some(uncommitted), When::Sweep(now_ns)) = (&self.0, when) else { return };
        let Due { hops, left_out } = uncommitted.due(now_ns);
        world.losses.lose_n(Reason::UncommittedLeftOut, left_out);
        for hop in hops {
            next.push(OF_ANY, hop, world);
        }
    }
}
