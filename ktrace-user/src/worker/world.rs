//! What every event of a worker is handled with: the time, what all workers know, what the user
//! wants, and what is lost.

use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::protocol::error::{self, Outcome, Purpose};
use ktrace_kafka::record::Record;
use ktrace_kafka::{Head, Operation, Partition};

use super::connection::in_flight::{self, Delay};
use super::losses;
use super::pending_commits::PendingCommit;
use super::shared::Shared;
use super::stand_ins::StandIns;
use crate::hop::appends::Sent;
use crate::hop::progress;
use crate::hop::sampling::{Exceptions, Sampling};
use crate::hop::stamp::Stamp;
use crate::hop::topics::Topics;
use crate::hop::transactions::{State, Transaction};
use crate::hop::uncommitted::Uncommitted;
use crate::hop::{Hop, Kind, Topic, TopicName, shown};
use crate::losses::Reason;

/// What a look at a hop finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Wait,
    /// Another hop shows it.
    Drop,
}

/// What the user wants of every worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// Both ends of a connection may be captured.
    pub both_ends: bool,
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
    /// What is not committed in time is shown, and nothing else.
    pub uncommitted: Option<Arc<Uncommitted>>,
}

/// One for each worker; stages and listener get it with each call.
pub(super) struct World {
    /// The time of the current event.
    pub now_ns: u64,
    pub shared: Arc<Shared>,
    pub settings: Settings,
    /// Names of topics that the worker has looked up.
    pub topics: Topics,
    pub ended: Ended,
    pub stand_ins: StandIns,
    /// Messages of share groups that were not acknowledged yet, of all connections.
    pub acquired: usize,
    pub losses: losses::Own,
}

impl World {
    pub fn new(settings: Settings, recognised: bool, shared: &Arc<Shared>) -> Self {
        Self {
            now_ns: 0,
            shared: Arc::clone(shared),
            topics: Topics::default(),
            ended: Ended::default(),
            stand_ins: StandIns::default(),
            acquired: 0,
            losses: losses::Own::new(recognised),
            settings,
        }
    }

    /// Whether a stage has to hear of a hop whatever filters, sampling and limits say: what covers
    /// messages of other traces.
    pub fn has_to_hear_of(&self, hop: &Hop) -> bool {
        self.settings.uncommitted.is_some()
            && matches!(hop.passage.kind, Kind::Committed(_) | Kind::Acknowledged(_))
    }

    /// Whether what a group has done with messages of a trace is shown.
    pub fn keeps(&mut self, trace_id: TraceId) -> bool {
        self.settings.uncommitted.is_some()
            || (self.settings.sampling.keeps(trace_id) && self.is_within(trace_id))
    }

    /// Whether the agent's limits leave room for it; else it is counted.
    pub fn is_within(&mut self, trace_id: TraceId) -> bool {
        self.losses.is_within(&self.shared.within, trace_id)
    }

    /// Whether what has failed is shown, that is no message.
    pub fn keeps_failed(&mut self, trace_id: TraceId) -> bool {
        let wanted = self.settings.exceptions.decide(None, None, true);
        wanted.unwrap_or_else(|| self.settings.sampling.keeps(trace_id)) && self.is_within(trace_id)
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
        let wanted = if self.settings.exceptions == Exceptions::default() {
            None
        } else {
            let since_ns = match partition.operation {
                Operation::Produce { .. } => Some(head.request_start_ns),
                // Old, and not late.
                _ if is_catching_up => None,
                _ => match delay.map(|delay| delay.sent(record, head.end_ns(), self.now_ns, &self.shared)) {
                    Some(Sent::At(sent_ns)) => Some(sent_ns),
                    _ => Stamp::of(record.timestamp_ms, head.end_ns()).ns(),
                },
            };
            let took_ns = since_ns.map(|since| head.end_ns().saturating_sub(since));
            let flags = record.context.context.and_then(|context| context.flags);
            let outcome = error::outcome(Purpose::of(head.api_key), partition.error);
            self.settings.exceptions.decide(flags, took_ns, outcome != Outcome::Success)
        };
        wanted.unwrap_or_else(|| self.settings.sampling.keeps(trace_id)) && self.is_within(trace_id)
    }

    /// A topic as far as it is known by now.
    pub fn topic(&mut self, topic: kafka::Topic<'_>) -> Topic {
        match topic {
            kafka::Topic::Name(name) => Topic::Named(self.topics.named(name)),
            kafka::Topic::Id(id) => self.name_of(id).map_or(Topic::Id(id), Topic::Named),
        }
    }

    /// The name of a topic's id, if it is known by now.
    pub fn name_of(&mut self, id: u128) -> Option<Arc<TopicName>> {
        self.topics.of(&self.shared.topics, id)
    }

    /// Finds out what is unknown of a hop, as far as it is known by now; for the last time where
    /// `now_ns` is `None`.
    pub fn judge(&mut self, hop: &mut Hop, now_ns: Option<u64>) -> Verdict {
        if let Topic::Id(id) = hop.topic
            && let Some(name) = self.name_of(id)
        {
            hop.topic = Topic::Named(name);
        }
        let passage = &mut hop.passage;
        if let (Some((transaction, state @ State::Open)), Kind::Produced { .. }) =
            (&mut passage.transaction, &passage.kind)
        {
            *state = self.ended.of(&self.shared, transaction, passage.end_ns);
        }
        in_flight::look_again(passage, now_ns, self.shared.is_read_by_several());
        if let Kind::Produced { attempt, pending: Some(message), .. } = &passage.kind
            && self.shared.attempts.is_followed(**message, attempt.saturating_sub(1))
        {
            return Verdict::Drop;
        }
        if hop.waits() { Verdict::Wait } else { Verdict::Go }
    }

    /// A hop that has waited goes out: it is counted if its topic's name never came.
    pub fn note_unnamed(&mut self, hop: &Hop) {
        if matches!(hop.topic, Topic::Id(_)) {
            self.losses.lose(Reason::TopicUnnamed);
        }
    }

    /// A commit that counts, or that does not as its transaction was not committed; if it is shown.
    pub fn settled(&mut self, commit: PendingCommit, state: Option<State>) -> Option<Hop> {
        let PendingCommit { mut hop, progress, .. } = commit;
        if let (Some((_, known)), Some(state)) = (&mut hop.passage.transaction, state) {
            *known = state;
        }
        let counts = state.is_none_or(|state| state == State::Committed);
        if let (Kind::Committed(commit), Some(of_group), true, Some(offset)) =
            (&mut hop.passage.kind, progress, counts, hop.passage.offset)
        {
            let covered = self.shared.progress.commit(&mut progress::lock(&of_group), offset);
            // Who commits by the clock does so again and again.
            if state.is_none() && covered.is_known && covered.messages == 0 {
                return None;
            }
            if covered.is_own() && self.leaves_out_own_commits() {
                self.losses.lose(Reason::OwnTelemetry);
                return None;
            }
            if let Some(last) = covered.shown.first() {
                hop.passage.derived = last.trace_id;
            }
            commit.covered = covered;
        }
        if self.is_of_own_topic(&hop) && self.leaves_out_own_commits() {
            self.losses.lose(Reason::OwnTelemetry);
            return None;
        }
        self.keeps(hop.passage.derived).then_some(hop)
    }

    /// What looks for uncommitted messages has to hear of all commits, and shows none.
    fn leaves_out_own_commits(&self) -> bool {
        !self.settings.own_telemetry && self.settings.uncommitted.is_none()
    }

    /// Whether it is not known what a commit covers, but all that was seen of its topic is ktrace's
    /// own.
    fn is_of_own_topic(&self, commit: &Hop) -> bool {
        let covers_none = match &commit.passage.kind {
            Kind::Committed(commit) => commit.covered.messages == 0,
            _ => false,
        };
        covers_none && self.shared.own.is_all_of(&shown(&commit.topic).name)
    }

    /// Adds what is new of this worker's losses to that of all.
    pub fn publish_losses(&mut self, counters: &kafka::counters::Counters, early: u64) {
        self.losses.take_evicted(&self.shared);
        self.losses.lose_n(Reason::ShownEarly, early);
        self.losses.publish(&self.shared.losses, counters);
    }
}

/// What became of the transaction of the message before: neighbours are most often of one.
#[derive(Default)]
pub(super) struct Ended {
    /// With when the message was acknowledged, and the number of what was known.
    last: Option<(Arc<Transaction>, u64, u64, State)>,
}

impl Ended {
    fn of(&mut self, shared: &Shared, transaction: &Arc<Transaction>, acked_ns: u64) -> State {
        let number = shared.transactions.version();
        if let Some((known, ns, of, state)) = &self.last
            && Arc::ptr_eq(known, transaction)
            && (*ns, *of) == (acked_ns, number)
        {
            return *state;
        }
        let state = shared.transactions.read(|known| known.of_sent(&transaction.producer, acked_ns));
        self.last = Some((Arc::clone(transaction), acked_ns, number, state));
        state
    }
}
