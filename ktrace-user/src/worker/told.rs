//! What the connections of a worker share, and what all their hops pass: whether they are shown, and whether they wait.

use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use ktrace_kafka::record::Record;
use ktrace_kafka::{Head, Operation, Partition};

use super::chained::LateSends;
use super::delays::{self, Delay};
use super::late_runs::LateRuns;
use super::losses;
use super::peer::StandIns;
use super::pending_commits::LateCommits;
use super::shared::Shared;
use super::transactional::Ended;
use crate::capture::ConnectionId;
use crate::hop::appends::Sent;
use crate::hop::sampling::{Exceptions, Sampling};
use crate::hop::stamp::Stamp;
use crate::hop::topics::Topics;
use crate::hop::transactions::State;
use crate::hop::uncommitted::{Due, Uncommitted};
use crate::hop::{Hop, Kind, Topic, Verdict, Waiting};

/// What the connections of a worker share.
pub(super) struct Told {
    /// The time of the event at hand.
    pub now_ns: u64,
    pub shared: Arc<Shared>,
    /// Both ends of a connection may be seen.
    pub both: bool,
    pub topics: Topics,
    pub ended: Ended,
    /// Hops wait for what was unknown when what is known of topics, transactions, attempts and appends had these numbers.
    pub numbers: [u64; 4],
    pub stand_ins: StandIns,
    pub waiting: Waiting,
    /// Commits that wait for what other workers read.
    pub late: LateCommits,
    /// So do messages that were sent.
    pub late_sends: LateSends,
    /// Messages that wait for that.
    pub late_runs: LateRuns,
    /// Messages of share groups that were not acknowledged yet.
    pub acquired: usize,
    /// Hops held while the other ends of their connections are sought.
    pub sought_hops: usize,
    /// What the user wants.
    pub sampling: Sampling,
    pub exceptions: Exceptions,
    /// Hops bear their records' keys.
    pub keys: bool,
    /// Chains are followed.
    pub infer: bool,
    /// Messages that carry ktrace's own telemetry are shown as all others.
    pub own_telemetry: bool,
    /// What clients catch up with is late, too.
    pub old_is_late: bool,
    /// What is not committed in time is told, and nothing else.
    pub uncommitted: Option<Arc<Uncommitted>>,
    pub own_losses: losses::Own,
    pub sink: Box<dyn FnMut(Hop) + Send>,
}

impl Told {
    /// Whether something that is waited for may have come, from whichever worker.
    fn has_news(&mut self, now_ns: u64) -> bool {
        let Shared { topics, transactions, attempts, appends, .. } = &*self.shared;
        let numbers = [topics.number(), transactions.number(), attempts.number(), appends.number()];
        if self.numbers == numbers {
            return false;
        }
        if self.numbers[..3] == numbers[..3] && !self.waiting.is_due(now_ns) {
            return false;
        }
        let before = std::mem::replace(&mut self.numbers, numbers);
        if before[1..] != numbers[1..] {
            return !self.waiting.is_empty();
        }
        let Self { waiting, topics, shared, .. } = self;
        waiting.topics().any(|id| topics.of(&shared.topics, id).is_some())
    }

    /// Where something of it may have come, gives the hops that need not wait any more.
    pub fn release_news(&mut self, now_ns: u64) {
        if self.has_news(now_ns) {
            self.release(Some(now_ns));
        }
    }

    pub fn release(&mut self, now_ns: Option<u64>) {
        let Self { waiting, topics, ended, shared, own_losses, sink, uncommitted, .. } = self;
        let give = |hop: Hop| {
            let settles = matches!(hop.passage.kind, Kind::Committed(_) | Kind::Acknowledged(_));
            // While it waited the limits may have become stricter; what covers messages of other traces has to be known all the same.
            let is_needed = settles && uncommitted.is_some();
            if is_needed || own_losses.is_within(&shared.within, hop.passage.trace_id()) {
                sink(hop);
            }
        };
        waiting.release(|hop| judge(hop, topics, ended, shared, now_ns), now_ns, give);
    }

    /// Tells of what was not committed in time.
    pub fn give_uncommitted(&mut self, now_ns: u64) {
        let Some(uncommitted) = &self.uncommitted else { return };
        let Due { hops, left_out } = uncommitted.due(now_ns);
        self.own_losses.left_out = self.own_losses.left_out.saturating_add(left_out);
        hops.into_iter().for_each(&mut self.sink);
    }

    /// Tells all workers' losses what is new of this one's.
    pub fn tell_losses(&mut self, counters: &kafka::counters::Counters) {
        self.own_losses.ask(&self.shared);
        let early = self.waiting.take_early();
        self.own_losses.shown_early = self.own_losses.shown_early.saturating_add(early);
        self.own_losses.tell(&self.shared.losses, counters, self.waiting.unnamed());
    }

    pub fn pass(&mut self, id: ConnectionId, mut hop: Hop) {
        let now_ns = Some(self.now_ns);
        if hop.waits()
            && judge(&mut hop, &mut self.topics, &mut self.ended, &self.shared, now_ns) == Verdict::Drop
        {
            return;
        }
        if let Some(hop) = self.waiting.pass(id, hop.passage.end_ns, hop) {
            (self.sink)(hop);
        }
    }

    /// Whether what a group has done with messages of a trace is shown.
    pub fn keeps(&mut self, trace_id: TraceId) -> bool {
        self.uncommitted.is_some() || (self.sampling.keeps(trace_id) && self.is_within(trace_id))
    }

    /// Whether the agent's limits leave room for it; else it is counted.
    pub fn is_within(&mut self, trace_id: TraceId) -> bool {
        self.own_losses.is_within(&self.shared.within, trace_id)
    }

    /// Whether what has failed is shown, that is no message.
    pub fn keeps_failed(&mut self, trace_id: TraceId) -> bool {
        let wanted = self.exceptions.decide(None, None, true);
        wanted.unwrap_or_else(|| self.sampling.keeps(trace_id)) && self.is_within(trace_id)
    }

    /// Whether a message is shown.
    pub fn keeps_message(
        &mut self,
        trace_id: TraceId,
        head: &Head<'_>,
        (partition, is_catching_up): (&Partition<'_>, bool),
        record: &Record<'_>,
        delay: Option<&mut Delay>,
    ) -> bool {
        let wanted = if self.exceptions == Exceptions::default() {
            None
        } else {
            let since_ns = match partition.operation {
                Operation::Produce { .. } => Some(head.request_start_ns),
                // Old, and not late.
                _ if is_catching_up => None,
                _ => match delay.map(|delay| delay.sent(record, head.end_ns(), self)) {
                    Some(Sent::At(sent_ns)) => Some(sent_ns),
                    _ => Stamp::of(record.timestamp_ms, head.end_ns()).ns(),
                },
            };
            let took_ns = since_ns.map(|since| head.end_ns().saturating_sub(since));
            let flags = record.context.context.and_then(|context| context.flags);
            let outcome = error::outcome(Purpose::of(head.api_key), partition.error);
            self.exceptions.decide(flags, took_ns, outcome != Outcome::Success)
        };
        wanted.unwrap_or_else(|| self.sampling.keeps(trace_id)) && self.is_within(trace_id)
    }

    /// A topic as it is known by now.
    pub fn topic(&mut self, topic: kafka::Topic<'_>) -> Topic {
        match topic {
            kafka::Topic::Name(name) => Topic::Named(self.topics.named(name)),
            kafka::Topic::Id(id) => {
                self.topics.of(&self.shared.topics, id).map_or(Topic::Id(id), Topic::Named)
            }
        }
    }
}

/// Finds out what is not known of a hop yet, as far as it is known by now.
fn judge(
    hop: &mut Hop,
    topics: &mut Topics,
    ended: &mut Ended,
    shared: &Shared,
    now_ns: Option<u64>,
) -> Verdict {
    if let Topic::Id(id) = hop.topic
        && let Some(name) = topics.of(&shared.topics, id)
    {
        hop.topic = Topic::Named(name);
    }
    let passage = &mut hop.passage;
    if let (Some((transaction, state @ State::Open)), Kind::Produced { .. }) =
        (&mut passage.transaction, &passage.kind)
    {
        *state = ended.of(shared, transaction, passage.end_ns);
    }
    delays::look_again(passage, now_ns, shared.is_read_by_several());
    if let Kind::Produced { attempt, pending: Some(message), .. } = &passage.kind
        && shared.attempts.is_followed(**message, attempt.saturating_sub(1))
    {
        return Verdict::Drop;
    }
    if hop.waits() { Verdict::Wait } else { Verdict::Go }
}
