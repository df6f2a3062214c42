//! What a connection tells of chains: what its process gets, and what it sends because of that.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrace_kafka::Head;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::record::Record;

use super::listener::Listener;
use super::pending_commits::{MAX_LATE, is_due};
use super::told::Told;
use super::transactional::Attempt;
use crate::hop::chains::{self, Cause, Chain, Read, key};
use crate::hop::deadline::LATE_NS;
use crate::hop::{Hop, Topic, identity, shown};
use crate::seen::ConnectionId;

/// So many messages are told at once.
const TOGETHER: usize = 1024;

/// See [`Listener::seeks`].
pub(super) struct Sought {
    chain: chains::Shared,
    topic: Arc<str>,
    key: Option<u64>,
    sent_ns: u64,
    /// It was not sent before.
    is_first: bool,
}

impl Sought {
    fn find(&self) -> Option<Cause> {
        self.chain.sends(&self.topic, self.key, self.sent_ns, self.is_first)
    }
}

/// Messages that were sent and wait for what other workers read, in order.
#[derive(Default)]
pub(super) struct LateSends {
    queue: VecDeque<(ConnectionId, u64, Sought, Option<Hop>)>,
}

impl LateSends {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Told {
    /// Tells of what was sent and has waited long enough, or of all.
    pub(super) fn give_sent(&mut self, now_ns: Option<u64>) {
        while let Some((_, due_ns, ..)) = self.late_sends.queue.front()
            && now_ns.is_none_or(|now| is_due(*due_ns, now, LATE_NS))
        {
            self.give_first_sent();
        }
    }

    fn give_first_sent(&mut self) {
        let Some((id, _, sought, hop)) = self.late_sends.queue.pop_front() else { return };
        let cause = sought.find();
        if let Some(mut hop) = hop {
            hop.passage.caused_by(cause);
            self.pass(id, hop);
        }
    }
}

impl Listener<'_> {
    /// The client's process, where chains are followed.
    fn chain(&mut self) -> Option<&Chain> {
        if !self.told.infer || self.peer.search.is_superfluous() {
            return None;
        }
        let now_ns = self.told.now_ns;
        self.peer.chain(&self.told.shared, now_ns).map(|chain| &**chain)
    }

    /// The process writes, or is about to.
    pub(super) fn writes(&mut self, now_ns: u64) {
        if let Some(chain) = self.chain() {
            chain.writes(now_ns);
        }
    }

    /// The process has got something that was not seen, or may have: a part of a connection is missing, or its beginning.
    pub(super) fn misses(&mut self, now_ns: u64) {
        match self.chain() {
            Some(chain) => chain.missed(now_ns),
            // Its process is not known yet.
            None => self.peer.misses_reads = true,
        }
    }

    /// What is needed to find out what made the process send a message.
    pub(super) fn seeks(
        &mut self,
        head: &Head<'_>,
        attempt: &Attempt,
        record: &Record<'_>,
    ) -> Option<Sought> {
        if !self.told.infer || self.peer.search.is_superfluous() {
            return None;
        }
        // Who only writes does not pay for it, nor wait.
        let chain = self
            .peer
            .chain(&self.told.shared, self.told.now_ns)
            .filter(|chain| chain.has_read())
            .map(Arc::clone)?;
        let topic = self.peer.at.as_ref().map(|at| Arc::clone(&shown(&at.topic).name))?;
        let is_first = attempt.before.attempts == 0;
        Some(Sought { chain, topic, key: key(record.key), sent_ns: attempt.start_ns(head), is_first })
    }

    /// A message was sent, and `hop` is there where it is shown: with one ring what made the process do so was read before, with
    /// several it may be read a little later.
    pub(super) fn caused(&mut self, sought: Sought, hop: Option<Hop>) {
        if !self.told.shared.is_read_by_several() {
            let cause = sought.find();
            if let Some(mut hop) = hop {
                hop.passage.caused_by(cause);
                self.pass(hop);
            }
            return;
        }
        let due_ns = self.told.now_ns.saturating_add(LATE_NS);
        self.told.late_sends.queue.push_back((self.id, due_ns, sought, hop));
        if self.told.late_sends.queue.len() > MAX_LATE {
            let is_shown = self.told.late_sends.queue.front().is_some_and(|(.., hop)| hop.is_some());
            let count = &mut self.told.own_losses.shown_early;
            *count = count.saturating_add(is_shown.into());
            self.told.give_first_sent();
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
        let Some(at) = &mut self.peer.at else { return };
        let message = identity::send_span_id(derived(), &shown(&at.topic).name);
        at.reads.push(Read { key, message, end_ns: head.end_ns(), cause });
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
        if let Some(chain) = self.peer.chain(&self.told.shared, self.told.now_ns) {
            self.told.shared.chains.read(chain, reads);
        }
    }
}
