//! From Events to Spans: the pipeline of one ring or one file. So far it counts segments only.

use std::collections::{BTreeMap, HashSet};

use crate::capture::{ConnectionId, Event};
use crate::export::Span;

/// What the pipeline is told by the user.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// Trace header formats in the order in which they are tried; empty: all known. `key:NAME` is a user's own.
    pub context: Vec<String>,
}

/// What a worker has seen, as the summary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    pub segments: u64,
    pub bytes: u64,
    pub frames: u64,
    pub exchanges: u64,
    pub batches: u64,
    pub records: u64,
    /// What did not become spans, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// What could not be read, by reason.
    pub malformed: BTreeMap<&'static str, u64>,
}

/// Owns its connections; nothing is shared with other workers.
pub struct Worker {
    seen: HashSet<ConnectionId>,
    totals: Totals,
}

impl Worker {
    #[must_use]
    pub fn new(_options: WorkerOptions, _sink: Box<dyn FnMut(Span)>) -> Self {
        Self { seen: HashSet::new(), totals: Totals::default() }
    }

    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                self.totals.connections += u64::from(self.seen.insert(connection));
            }
            Event::Segment(segment) => {
                self.totals.segments += 1;
                self.totals.bytes += u64::from(segment.len);
            }
            Event::Closed { connection } => {
                self.seen.remove(&connection);
            }
            Event::Tick { .. } => {}
        }
    }

    /// Gives what is held to the sink.
    #[must_use]
    pub fn finish(self) -> Totals {
        self.totals
    }
}
