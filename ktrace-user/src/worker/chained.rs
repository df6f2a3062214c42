//! What a connection tells of chains: what its process gets, and what it sends because of that.

use ktrace_kafka::Head;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::record::Record;

use super::listener::Listener;
use super::transactional::Attempt;
use crate::hop::chains::{Cause, Chain, Read, key};
use crate::hop::{Hop, Topic, shown};

/// So many messages are told at once.
const TOGETHER: usize = 1024;

impl Listener<'_> {
    /// The client's process, where chains are followed.
    fn chain(&mut self) -> Option<&Chain> {
        if !self.told.infer || self.peer.search.is_superfluous() {
            return None;
        }
        self.peer.chain(&self.told.shared).map(|chain| &**chain)
    }

    /// The process writes, or is about to.
    pub(super) fn writes(&mut self, now_ns: u64) {
        if let Some(chain) = self.chain() {
            chain.begins_to_write(now_ns);
        }
    }

    /// What made the process send a message, if that can be shown.
    pub(super) fn cause(&mut self, head: &Head<'_>, attempt: &Attempt, record: &Record<'_>) -> Option<Cause> {
        let topic = self.peer.at.as_ref().map(|at| shown(&at.topic))?;
        let chain = self.chain()?;
        let is_first = attempt.before.attempts == 0;
        let sent_ns = if is_first { head.request_start_ns } else { attempt.before.start_ns };
        chain.sends(&topic.name, key(record.key), sent_ns)
    }

    /// The process gets a message; `hop` is there where it is shown.
    pub(super) fn read(
        &mut self,
        head: &Head<'_>,
        record: &Record<'_>,
        derived: impl FnOnce() -> TraceId,
        hop: Option<&Hop>,
    ) {
        let Some(key) = self.chain().filter(|chain| chain.writes()).and_then(|_| key(record.key)) else {
            return;
        };
        let cause = hop.and_then(|hop| match &hop.topic {
            Topic::Named(topic) => Some(Cause {
                trace_id: hop.passage.trace_id(),
                span_id: hop.passage.span_id(&hop.parties, topic),
            }),
            Topic::Id(_) => None,
        });
        let Some(at) = &mut self.peer.at else { return };
        at.reads.push(Read { key, message: derived(), end_ns: head.end_ns(), cause });
        if at.reads.len() >= TOGETHER {
            let mut reads = std::mem::take(&mut at.reads);
            self.tell_reads(&mut reads);
        }
    }

    /// What the process has got is told to all.
    pub(super) fn tell_reads(&mut self, reads: &mut Vec<Read>) {
        if reads.is_empty() {
            return;
        }
        if let Some(chain) = self.peer.chain(&self.told.shared) {
            let forgotten = self.told.shared.chains.read(chain, reads);
            let count = &mut self.told.own_losses.chain_forgotten;
            *count = count.saturating_add(forgotten);
        }
    }
}
