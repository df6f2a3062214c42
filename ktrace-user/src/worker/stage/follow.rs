//! With `--follow-key`: one message's way, which is hops with a key, and all hops of the traces
//! that those belong to.
//!
//! It stands before the filter, as it learns also from hops that the filter drops.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ktrace_kafka::context::TraceId;

use super::{Admit, Stage};
use crate::hop::{Hop, Key};
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// Traces followed at once. With more, the oldest is forgotten.
const MAX_TRACES: usize = 16 << 10;

/// Traces of messages with the key. One for all workers: the hops of a trace come from connections
/// of any of them.
#[derive(Debug)]
pub struct Follow {
    /// As keys are shown, so that one which is no text is followed by its hex digits.
    key: Box<str>,
    traces: Mutex<Traces>,
}

#[derive(Debug, Default)]
struct Traces {
    known: HashSet<TraceId>,
    order: VecDeque<TraceId>,
    forgotten: u64,
}

impl Follow {
    pub fn new(key: &str) -> Self {
        Self { key: Key::new(key.as_bytes()).text().into(), traces: Mutex::default() }
    }

    /// Whether the hop is on the way; those that follow on its trace are, too, and the traces that
    /// it causes.
    pub fn keeps(&self, hop: &Hop) -> bool {
        let trace = hop.passage.trace_id();
        let has_key = hop.passage.key.as_ref().is_some_and(|key| *key.text() == *self.key);
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = hop.passage.cause.as_ref();
        let goes_on = has_key || cause.is_some_and(|cause| traces.known.contains(&cause.trace_id));
        if goes_on {
            traces.add(trace);
        }
        goes_on || traces.known.contains(&trace)
    }

    /// How many traces were forgotten to make room.
    pub fn forgotten(&self) -> u64 {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).forgotten
    }
}

impl Traces {
    fn add(&mut self, trace: TraceId) {
        if !self.known.insert(trace) {
            return;
        }
        self.order.push_back(trace);
        if self.order.len() > MAX_TRACES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.forgotten += 1;
        }
    }
}

/// The stage. `None` follows nothing, and lets all pass.
pub(in crate::worker) struct Following(pub Option<Arc<Follow>>);

impl Stage for Following {
    const NAME: &'static str = "follow";

    fn lets_all_pass(&self) -> bool {
        self.0.is_none()
    }

    fn admit(&mut self, _connection: ConnectionId, hop: &mut Hop, world: &mut World) -> Admit {
        match &self.0 {
            Some(follow) if !world.has_to_hear_of(hop) && !follow.keeps(hop) => Admit::Drop,
            _ => Admit::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::chains::Cause;
    use crate::hop::{identity, samples};

    fn hop(key: Option<&[u8]>, offset: i64) -> Hop {
        let mut hop = samples::sent();
        hop.passage.key = key.map(Key::new);
        hop.passage.derived = identity::derived_trace_id(0, offset, 0, None, None);
        hop
    }

    #[test]
    fn a_key_is_followed_through_its_traces() {
        let follow = Follow::new("order-7");
        assert!(!follow.keeps(&hop(Some(b"invoice-1"), 1)), "before the key was seen");
        assert!(follow.keeps(&hop(Some(b"order-7"), 1)));
        assert!(follow.keeps(&hop(Some(b"invoice-1"), 1)) && follow.keeps(&hop(None, 1)));
        assert!(!follow.keeps(&hop(Some(b"order-77"), 2)) && !follow.keeps(&hop(None, 2)));
        assert!(Follow::new("0x0007").keeps(&hop(Some(&[0, 7]), 1)));
        let long = "k".repeat(10_000);
        assert!(Follow::new(&long).keeps(&hop(Some(long.as_bytes()), 1)));
    }

    #[test]
    fn it_goes_on_where_a_message_made_its_reader_send_another() {
        let follow = Follow::new("order-7");
        let first = hop(Some(b"order-7"), 1);
        let mut next = hop(Some(b"invoice-1"), 2);
        let span_id = identity::send_span_id(first.passage.derived, "x");
        next.passage.cause = Some(Cause { trace_id: first.passage.derived, span_id }.into());
        assert!(!follow.keeps(&next) && follow.keeps(&first) && follow.keeps(&next));
        next.passage.cause = None;
        assert!(follow.keeps(&next));
    }

    #[test]
    fn the_oldest_trace_is_forgotten_and_counted() {
        let follow = Follow::new("k");
        (0..MAX_TRACES as i64).for_each(|at| assert!(follow.keeps(&hop(Some(b"k"), at))));
        assert!(follow.keeps(&hop(None, 0)) && follow.forgotten() == 0);
        assert!(follow.keeps(&hop(Some(b"k"), -1)));
        assert!(!follow.keeps(&hop(None, 0)) && follow.keeps(&hop(None, 1)) && follow.forgotten() == 1);
    }
}
