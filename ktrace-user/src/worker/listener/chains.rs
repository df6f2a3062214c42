//! Chains: which messages a process gets, and what it sends because of them.

use std::sync::Arc;

use ktrace_kafka::Head;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::record::Record;

use super::Listener;
use super::attempts::Attempt;
use crate::hop::chains::{Cause, Chain, Read, key};
use crate::hop::{Hop, Topic, identity, shown};
use crate::worker::stage::When;
use crate::worker::stage::awaiting_cause::Sought;

/// Messages that are noted together, under one lock.
const TOGETHER: usize = 1024;

impl Listener<'_> {
    /// The client's process, where chains are followed. Asked for each record.
    #[inline(always)]
    fn chain(&mut self) -> Option<&Chain> {
        if self.world.settings.infer { self.chain_of_process() } else { None }
    }

    #[inline(never)]
    fn chain_of_process(&mut self) -> Option<&Chain> {
        if self.may_find_other_end() {
            return None;
        }
        let now_ns = self.world.now_ns;
        self.state.client.chain(&self.world.shared, now_ns).map(|chain| &**chain)
    }

    /// The process writes, or is about to.
    pub(super) fn writes(&mut self, now_ns: u64) {
        if let Some(chain) = self.chain() {
            chain.writes(now_ns);
        }
    }

    /// The process has got something that was not seen, or may have: a part of a connection is
    /// missing, or its beginning.
    pub(in crate::worker) fn misses(&mut self, now_ns: u64) {
        match self.chain() {
            Some(chain) => chain.missed(now_ns),
            // Its process is not known yet.
            None => self.state.client.misses_reads = true,
        }
    }

    /// What is needed to find out what made the process send a message.
    pub(super) fn seeks(
        &mut self,
        head: &Head<'_>,
        attempt: &Attempt,
        record: &Record<'_>,
    ) -> Option<Sought> {
        if !self.world.settings.infer || self.may_find_other_end() {
            return None;
        }
        // Who only writes does not pay for it, nor wait.
        let chain = self
            .state
            .client
            .chain(&self.world.shared, self.world.now_ns)
            .filter(|chain| chain.has_read())
            .map(Arc::clone)?;
        let topic = self.state.cursor.as_ref().map(|at| Arc::clone(&shown(&at.topic).name))?;
        let is_first = attempt.before.attempts == 0;
        Some(Sought { chain, topic, key: key(record.key), sent_ns: attempt.start_ns(head), is_first })
    }

    /// A message was sent, and `hop` is there where it is shown: with one ring what made the
    /// process do so was read before, with several it may be read a little later.
    pub(super) fn caused(&mut self, sought: Sought, hop: Option<Hop>) {
        if !self.world.shared.is_read_by_several() {
            let cause = sought.find();
            if let Some(mut hop) = hop {
                hop.passage.caused_by(cause);
                self.pass(hop);
            }
            return;
        }
        if self.stages.awaiting_cause.push(self.id, self.world.now_ns, sought, hop) {
            self.stages.release(When::Full, self.world);
        }
    }

    /// The process gets a message; `hop` is there where it is shown.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        head: &Head<'_>,
        record: &Record<'_>,
        derived: impl FnOnce() -> TraceId,
        hop: Option<&Hop>,
    ) {
        let Some(key) = self.chain().filter(|chain| !chain.only_reads()).and_then(|_| key(record.key)) else {
            return;
        };
        let cause = hop.and_then(|hop| match &hop.topic {
            Topic::Named(topic) => Some(Cause {
                trace_id: hop.passage.trace_id(),
                span_id: hop.passage.span_id(&hop.parties, topic),
            }),
            Topic::Id(_) => None,
        });
        let Some(at) = &mut self.state.cursor else { return };
        let message = identity::send_span_id(derived(), &shown(&at.topic).name);
        at.reads.push(Read { key, message, end_ns: head.end_ns(), cause });
        if at.reads.len() >= TOGETHER {
            let mut reads = std::mem::take(&mut at.reads);
            self.note_reads(&mut reads);
        }
    }

    /// Notes what the process has got, for all workers.
    pub(super) fn note_reads(&mut self, reads: &mut Vec<Read>) {
        if reads.is_empty() {
            return;
        }
        if let Some(chain) = self.state.client.chain(&self.world.shared, self.world.now_ns) {
            self.world.shared.chains.read(chain, reads);
        }
    }
}
