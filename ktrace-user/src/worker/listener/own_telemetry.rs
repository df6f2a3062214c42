//! ktrace's own telemetry among the values, and how they are searched for it.

use std::sync::Arc;

use ktrace_kafka::record::Record;
use ktrace_kafka::{Operation, Partition};

use super::Listener;
use crate::hop::own::{Watch, Watched};
use crate::hop::{Topic, shown};
use crate::losses::Reason;
use crate::worker::own_telemetry::Found;

impl Listener<'_> {
    /// How the values of a topic are looked at, from now on.
    pub(super) fn watch(&self, topic: &Topic) -> Watch {
        if self.world.settings.own_telemetry {
            return Watch::OFF;
        }
        Watch::of(of(topic, &self.state.telemetry.unnamed), self.state.telemetry.skip)
    }

    /// Whether the current record, which does not pass without a look, carries ktrace's own
    /// telemetry.
    #[cold]
    pub(super) fn is_own(&mut self, partition: &Partition<'_>, record: &Record<'_>) -> bool {
        let (Some(at), Some(value)) = (&mut self.state.cursor, record.value) else { return false };
        if !at.watch.look(value) {
            at.found.others = at.found.others.saturating_add(1);
            return false;
        }
        at.found.own = at.found.own.saturating_add(1);
        at.own(record.offset);
        if let (Operation::ShareFetch { .. }, Some(id)) = (partition.operation, at.id) {
            self.acquires((id, partition.index), record.offset, None);
        }
        true
    }

    /// No more of these values come for now.
    pub(super) fn watched(&mut self, topic: &Topic, watch: Watch, found: Found) {
        if self.world.settings.own_telemetry {
            return;
        }
        self.state.telemetry.skip =
            watch.settle(of(topic, &self.state.telemetry.unnamed), self.state.telemetry.skip);
        if watch.is_close() {
            self.world.losses.lose_n(Reason::OwnTelemetry, found.own);
            self.world.shared.own.add(Arc::clone(&shown(topic).name), found);
        }
    }
}

/// Where it is kept what is known of a topic: with its name, or with the connection as long as that
/// is not known.
fn of<'x>(topic: &'x Topic, unnamed: &'x Watched) -> &'x Watched {
    match topic {
        Topic::Named(topic) => &topic.watched,
        Topic::Id(_) => unnamed,
    }
}
