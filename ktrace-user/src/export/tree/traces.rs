//! Hops gathered by trace, until a trace is quiet; traces of which one is known to have caused
//! another are one. Pure.

use std::collections::{HashMap, VecDeque};

use ktrace_kafka::context::TraceId;

use crate::hop::Hop;

/// A trace is printed when nothing of it was seen for this long: a consumer that has to join its
/// group first takes some seconds. It may take twice as long, since a trace that goes on is looked
/// at again after all others.
const QUIET_NS: u64 = 10_000_000_000;

/// A clock that goes back by more than this was set: a capture file of an earlier time follows.
const SET_BACK_NS: u64 = 60_000_000_000;

/// Traces and spans held at once, where the agent's memory is not limited. Over the limit the
/// oldest trace is printed as far as it goes (`trace_cut`).
const MAX_TRACES: usize = 64 << 10;
const MAX_SPANS: usize = 256 << 10;

/// The size in memory of a span, and of its place in its trace.
const SPAN_BYTES: usize = size_of::<Hop>() + 512;

/// Traces that are not printed yet.
#[derive(Default)]
pub struct Traces {
    by_id: HashMap<TraceId, Trace>,
    /// Traces that stand in another, and which.
    joined: HashMap<TraceId, TraceId>,
    /// When each trace is to be looked at, the oldest first: when something of it was seen, as
    /// known then.
    looks: VecDeque<(TraceId, u64)>,
    spans: usize,
    /// The most spans of all traces.
    max_spans: Option<usize>,
    now_ns: u64,
}

struct Trace {
    hops: Vec<Hop>,
    /// What was joined to it.
    others: Vec<TraceId>,
    last_ns: u64,
}

/// A trace that is shown.
pub struct Shown {
    pub id: TraceId,
    pub hops: Vec<Hop>,
    /// Room was needed, more may come of it.
    pub cut: bool,
}

impl Traces {
    /// Takes no more memory than this.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.max_spans = Some((bytes / SPAN_BYTES).min(MAX_SPANS));
    }

    /// What all of it may take.
    pub fn most_bytes(&self) -> usize {
        self.max_spans() * SPAN_BYTES
    }

    fn max_spans(&self) -> usize {
        self.max_spans.unwrap_or(MAX_SPANS)
    }

    /// A hop was seen; its time is the clock's.
    pub fn add(&mut self, hop: Hop) {
        self.advance(hop.passage.end_ns);
        let now_ns = self.now_ns;
        let mut id = self.place(hop.passage.trace_id());
        if let Some(cause) = &hop.passage.cause {
            id = self.join(id, self.place(cause.trace_id));
        }
        let trace = self.by_id.entry(id).or_insert_with(|| {
            self.looks.push_back((id, now_ns));
            Trace { hops: Vec::new(), others: Vec::new(), last_ns: now_ns }
        });
        trace.last_ns = now_ns;
        trace.hops.push(hop);
        self.spans += 1;
    }

    /// Where a trace stands.
    fn place(&self, id: TraceId) -> TraceId {
        self.joined.get(&id).copied().unwrap_or(id)
    }

    /// A trace was caused by another, and stands in it from now on, if there is something of the
    /// other.
    fn join(&mut self, id: TraceId, cause: TraceId) -> TraceId {
        if id == cause || !self.by_id.contains_key(&cause) {
            return id;
        }
        let mut moved = self.by_id.remove(&id);
        if let Some(to) = self.by_id.get_mut(&cause) {
            let others = moved.as_mut().map(|moved| std::mem::take(&mut moved.others)).unwrap_or_default();
            for other in others.into_iter().chain([id]) {
                self.joined.insert(other, cause);
                to.others.push(other);
            }
            to.hops.extend(moved.into_iter().flat_map(|moved| moved.hops));
        }
        cause
    }

    /// It is as late as this.
    pub fn advance(&mut self, now_ns: u64) {
        if now_ns > self.now_ns || self.now_ns - now_ns > SET_BACK_NS {
            self.now_ns = now_ns;
        }
    }

    /// The next trace that is to be shown: any where this is the `end`.
    pub fn next(&mut self, end: bool) -> Option<Shown> {
        loop {
            let &(id, seen_ns) = self.looks.front()?;
            let is_over = self.by_id.len() > MAX_TRACES || self.spans > self.max_spans();
            let may_go = end || is_over;
            // A clock that was set back makes all quiet that came before.
            if !may_go && self.now_ns.abs_diff(seen_ns) < QUIET_NS {
                return None;
            }
            self.looks.pop_front();
            let Some(trace) = self.by_id.get(&id) else { continue };
            let is_quiet = self.now_ns.abs_diff(trace.last_ns) >= QUIET_NS;
            if !may_go && !is_quiet {
                self.looks.push_back((id, trace.last_ns));
                continue;
            }
            let Trace { hops, others, .. } = self.by_id.remove(&id)?;
            for other in &others {
                self.joined.remove(other);
            }
            self.spans -= hops.len();
            return Some(Shown { id, hops, cut: !end && !is_quiet });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::chains::Cause;
    use crate::hop::{identity, samples};

    const SECOND: u64 = 1_000_000_000;

    fn hop(trace: i64, second: u64) -> Hop {
        let mut hop = samples::sent();
        hop.passage.derived = identity::derived_trace_id(0, trace, 0, None, None);
        hop.passage.end_ns = second * SECOND;
        hop
    }

    /// How many spans each trace has that is to be shown now.
    fn shown(traces: &mut Traces, end: bool) -> Vec<(usize, bool)> {
        std::iter::from_fn(|| traces.next(end)).map(|shown| (shown.hops.len(), shown.cut)).collect()
    }

    #[test]
    fn a_trace_is_shown_once_it_is_quiet_and_all_at_the_end() {
        let mut traces = Traces::default();
        for (trace, second) in [(1, 100), (2, 102), (2, 104), (1, 106), (1, 108)] {
            traces.add(hop(trace, second));
        }
        assert_eq!(shown(&mut traces, false), []);
        traces.advance(114 * SECOND);
        assert_eq!(shown(&mut traces, false), [(2, false)]);
        traces.advance(118 * SECOND);
        assert_eq!(shown(&mut traces, false), [(3, false)]);
        traces.add(hop(1, 119));
        assert_eq!(shown(&mut traces, true), [(1, false)]);
        assert_eq!((traces.spans, traces.by_id.len(), traces.looks.len()), (0, 0, 0));
    }

    #[test]
    fn a_trace_that_another_caused_stands_in_it() {
        let caused = |by: i64, trace, second| {
            let mut hop = hop(trace, second);
            let trace_id = identity::derived_trace_id(0, by, 0, None, None);
            hop.passage.cause =
                Some(Cause { trace_id, span_id: identity::send_span_id(trace_id, "x") }.into());
            hop
        };
        let mut traces = Traces::default();
        // The third was seen before what it follows from; of the ninth's cause nothing is there.
        for hop in
            [hop(3, 100), caused(8, 9, 100), hop(1, 100), caused(1, 2, 101), caused(2, 3, 102), hop(2, 103)]
        {
            traces.add(hop);
        }
        let first = traces.next(true).unwrap();
        assert_eq!((first.id, first.hops.len()), (hop(9, 0).passage.trace_id(), 1));
        let all = traces.next(true).unwrap();
        assert_eq!((all.id, all.hops.len()), (hop(1, 0).passage.trace_id(), 5));
        assert!(traces.next(true).is_none() && traces.joined.is_empty() && traces.spans == 0);
        // In a circle.
        for hop in [hop(1, 100), hop(2, 100), caused(1, 2, 101), caused(2, 1, 102)] {
            traces.add(hop);
        }
        assert_eq!(shown(&mut traces, true), [(4, false)]);
        assert!(traces.joined.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing() {
        let mut traces = Traces::default();
        traces.add(hop(1, 1000));
        traces.add(hop(2, 992));
        assert_eq!(shown(&mut traces, false), [], "late, but of the same time");
        traces.add(hop(3, 100));
        assert_eq!(shown(&mut traces, false), [(1, false), (1, false)]);
        traces.advance(110 * SECOND);
        assert_eq!(shown(&mut traces, false), [(1, false)]);
    }

    #[test]
    fn too_many_are_cut_the_oldest_first() {
        let mut traces = Traces::default();
        for trace in 0..=MAX_TRACES as i64 {
            traces.add(hop(trace, 100));
        }
        let first = traces.next(false).unwrap();
        assert!(first.cut && first.id == hop(0, 0).passage.trace_id());
        assert!(traces.next(false).is_none());
        let mut traces = Traces::default();
        for _ in 0..=MAX_SPANS {
            traces.add(hop(1, 100));
        }
        assert_eq!(shown(&mut traces, false), [(MAX_SPANS + 1, true)]);
        traces.hold_at_most(10 * SPAN_BYTES);
        for trace in 0..=10 {
            traces.add(hop(trace, 100));
        }
        assert_eq!((shown(&mut traces, false), traces.most_bytes()), (vec![(1, true)], 10 * SPAN_BYTES));
    }
}
