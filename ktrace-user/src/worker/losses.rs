//! What is lost while it is lost: a line when it begins, and one when it has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ktrace_kafka::counters::Counters;
use ktrace_kafka::context::TraceId;
use ktrace_kafka::counters::{Lost, Malformed};
use serde::Serialize;

use super::shared::Shared;
use super::throttle::{Limit, Within};

/// A loss has ended when nothing was lost for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Connections that the summary names, of those that lost bytes.
const MAX_NAMED: usize = 16;

/// The workers' own losses that are told while they go on. Others, such as requests without a response, are told at the end.
const TOLD_AT_ONCE: [&str; 8] = [
    "gap_bytes",
    "held_too_much",
    "too_many_pending",
    "memory_limit",
    "inflation_limit",
    "connection_forgotten",
    "cpu_limit",
    "span_limit",
];

/// Messages that were not committed in time, and not listed for want of room.
const LEFT_OUT: &str = "uncommitted_left_out";

/// Of what is refused as malformed, what is told while it goes on: it may be an attack on the agent.
const BOMB: Malformed = Malformed::DecompressionBomb;

/// Beside [`Lost`]: what a worker counts itself, and bytes.
const MORE: [&str; 19] = [
    "gap_bytes",
    "skipped_bytes",
    "topic_unnamed",
    "connection_forgotten",
    "cpu_limit",
    "span_limit",
    "progress_forgotten",
    "chain_forgotten",
    "member_forgotten",
    "attempt_forgotten",
    "transaction_forgotten",
    "topic_forgotten",
    "cluster_forgotten",
    "twin_forgotten",
    "shown_early",
    LEFT_OUT,
    "append_forgotten",
    "acquired_forgotten",
    "own_telemetry",
];

/// How many reasons there are.
const REASONS: usize = Lost::ALL.len() + MORE.len();

fn reasons() -> impl Iterator<Item = &'static str> {
    Lost::ALL.iter().map(|reason| reason.name()).chain(MORE)
}

/// All workers' losses so far, summed.
#[derive(Debug)]
pub(super) struct Losses {
    counts: [AtomicU64; REASONS],
    /// Refused, which is no loss: [`BOMB`].
    bombs: AtomicU64,
}

impl Default for Losses {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; REASONS], bombs: AtomicU64::new(0) }
    }
}

/// What was told, by reason.
#[derive(Clone, Copy, Debug)]
struct Told([u64; REASONS]);

impl Default for Told {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

/// One worker's losses, and what it has told of them.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Nobody has said that the connections are Kafka: it is no loss that some are not.
    pub recognised: bool,
    /// Connections forgotten to make room.
    pub forgotten: u64,
    /// Messages skipped because of the CPU limit.
    pub cpu_limit: u64,
    /// Messages skipped because of the limit of spans a second.
    pub span_limit: u64,
    /// Partitions of groups whose deliveries are counted anew.
    pub progress_forgotten: u64,
    /// Messages that may have made their process send others, forgotten before their time.
    pub chain_forgotten: u64,
    /// Members of groups, learnt anew.
    pub member_forgotten: u64,
    /// Failed messages, whose next attempts count as their first.
    pub attempt_forgotten: u64,
    /// Ends of transactions that something may have waited for.
    pub transaction_forgotten: u64,
    /// Ids of topics whose names have to be learnt anew.
    pub topic_forgotten: u64,
    /// Brokers and clients of which it has to be learnt anew to which cluster they belong.
    pub cluster_forgotten: u64,
    /// Exchanges by which the other ends of their connections were to be known.
    pub twin_forgotten: u64,
    /// Hops and commits that were shown before what they waited for, as too many waited.
    pub shown_early: u64,
    /// Messages that were not committed in time, and not shown for that.
    pub left_out: u64,
    /// Messages and partitions whose producers' requests were forgotten.
    pub append_forgotten: u64,
    /// Messages that members of share groups hold.
    pub acquired_forgotten: u64,
    /// Messages that carry ktrace's own telemetry, and what groups have done with such alone.
    own_telemetry: u64,
    told: Told,
    bombs_told: u64,
}

impl Own {
    pub fn new(recognised: bool) -> Self {
        Self { recognised, ..Self::default() }
    }

    /// What had to make room in what all workers know is told by whoever asks first.
    pub fn ask(&mut self, shared: &Shared) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        shared.groups.look_through(|groups| add(&mut self.member_forgotten, groups.take_forgotten()));
        add(&mut self.attempt_forgotten, shared.attempts.take_forgotten());
        shared
            .transactions
            .look_through(|known| add(&mut self.transaction_forgotten, known.take_forgotten()));
        shared.clusters.look_through(|clusters| add(&mut self.cluster_forgotten, clusters.take_forgotten()));
        add(&mut self.twin_forgotten, shared.twins.take_forgotten());
        shared.topics.look_through(|ids| add(&mut self.topic_forgotten, ids.take_forgotten()));
    }

    /// Whether all limits leave room for a message of this trace; else it is counted.
    pub fn is_within(&mut self, within: &Within, trace: TraceId) -> bool {
        let count = match within.skips(trace) {
            None => return true,
            Some(Limit::Cpu) => &mut self.cpu_limit,
            Some(Limit::Spans) => &mut self.span_limit,
        };
        *count = count.saturating_add(1);
        false
    }

    /// So many messages carry ktrace's own telemetry, or commits cover such alone, and are left out.
    pub fn leave_out_own(&mut self, messages: u64) {
        self.own_telemetry = self.own_telemetry.saturating_add(messages);
    }

    /// By reason, zeros too. `unnamed`: hops shown without their topic's name.
    pub fn counts(&self, counters: &Counters, unnamed: u64) -> impl Iterator<Item = (&'static str, u64)> {
        let recognised = self.recognised;
        let lost = counters.lost().map(move |(reason, count)| match reason {
            Lost::NotKafka if recognised => 0,
            _ => count,
        });
        let more = [
            counters.gap_bytes,
            counters.skipped_bytes,
            unnamed,
            self.forgotten,
            self.cpu_limit,
            self.span_limit,
            self.progress_forgotten,
            self.chain_forgotten,
            self.member_forgotten,
            self.attempt_forgotten,
            self.transaction_forgotten,
            self.topic_forgotten,
            self.cluster_forgotten,
            self.twin_forgotten,
            self.shown_early,
            self.left_out,
            self.append_forgotten,
            self.acquired_forgotten,
            self.own_telemetry,
        ];
        reasons().zip(lost.chain(more))
    }

    /// Tells all workers' losses what is new of this one's.
    pub fn tell(&mut self, losses: &Losses, counters: &Counters, unnamed: u64) {
        let mut told = self.told;
        for ((sum, told), (_, count)) in
            losses.counts.iter().zip(&mut told.0).zip(self.counts(counters, unnamed))
        {
            if count > *told {
                sum.fetch_add(count - *told, Ordering::Relaxed);
                *told = count;
            }
        }
        self.told = told;
        let bombs = counters.refused_by(BOMB);
        losses.bombs.fetch_add(bombs.saturating_sub(self.bombs_told), Ordering::Relaxed);
        self.bombs_told = bombs;
    }
}

impl Losses {
    /// By reason, zeros too.
    pub fn so_far(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        reasons().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Messages that were not committed in time, and not listed.
    pub fn left_out(&self) -> u64 {
        self.so_far().find_map(|(reason, count)| (reason == LEFT_OUT).then_some(count)).unwrap_or(0)
    }

    /// Of them, those that are told while they go on.
    pub fn to_tell(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let bombs = (BOMB.name(), self.bombs.load(Ordering::Relaxed));
        self.so_far().filter(|(reason, _)| TOLD_AT_ONCE.contains(reason)).chain([bombs])
    }
}

/// Makes the lines. `now` is the time of any clock.
#[derive(Debug, Default)]
pub struct LossLines {
    /// Counts before the loss at hand.
    before: BTreeMap<&'static str, u64>,
    /// Counts at the last look.
    last: BTreeMap<&'static str, u64>,
    /// When something was lost last, of a loss that goes on.
    rose: Option<Duration>,
}

impl LossLines {
    /// Looks at all counts so far, and gives the line that is due.
    pub fn look(
        &mut self,
        now: Duration,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Option<String> {
        let counts: BTreeMap<_, _> = counts.into_iter().collect();
        let before = std::mem::replace(&mut self.last, counts);
        if rises(&before, &self.last).next().is_some() {
            return match self.rose.replace(now) {
                Some(_) => None,
                None => {
                    let line = format!("losing data:{}", listed(rises(&before, &self.last)));
                    self.before = before;
                    Some(line)
                }
            };
        }
        let rose = self.rose?;
        if now.saturating_sub(rose) < QUIET {
            return None;
        }
        self.end()
    }

    /// The run ends: so does the loss at hand.
    pub fn end(&mut self) -> Option<String> {
        self.rose.take()?;
        Some(format!("loss has ended, in all:{}", listed(rises(&self.before, &self.last))))
    }
}

fn rises<'a>(
    before: &'a BTreeMap<&'static str, u64>,
    after: &'a BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = (&'static str, u64)> + 'a {
    let rise = |(reason, count): (&&'static str, &u64)| {
        let rise = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
        (rise > 0).then_some((*reason, rise))
    };
    after.iter().filter_map(rise)
}

fn listed(losses: impl Iterator<Item = (&'static str, u64)>) -> String {
    losses.fold(String::new(), |mut text, (reason, count)| {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma} {count} {reason}");
        text
    })
}

/// A connection of which bytes were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lossy {
    pub service: String,
    pub client: String,
    pub broker: String,
    pub gaps: u64,
    pub gap_bytes: u64,
}

/// Keeps those that lost most.
pub fn keep_lossiest(list: &mut Vec<Lossy>, more: impl IntoIterator<Item = Lossy>) {
    list.extend(more);
    list.sort_by(|a, b| b.gap_bytes.cmp(&a.gap_bytes).then_with(|| a.client.cmp(&b.client)));
    list.truncate(MAX_NAMED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_the_beginning_and_one_at_the_end() {
        let mut lines = LossLines::default();
        let mut look =
            |s, ring, gap| lines.look(Duration::from_secs(s), [("ring_full", ring), ("gap_bytes", gap)]);
        assert_eq!(look(0, 0, 0), None);
        assert_eq!(look(1, 5, 0).unwrap(), "losing data: 5 ring_full");
        assert_eq!(look(2, 9, 700), None);
        assert_eq!(look(6, 9, 700), None, "not quiet for long enough");
        assert_eq!(look(7, 9, 700).unwrap(), "loss has ended, in all: 700 gap_bytes, 9 ring_full");
        assert_eq!(look(20, 9, 700), None);
        assert_eq!(look(21, 9, 701).unwrap(), "losing data: 1 gap_bytes");
        assert_eq!(lines.end().unwrap(), "loss has ended, in all: 1 gap_bytes");
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn workers_losses_add_up() {
        let losses = Losses::default();
        let mut counters = Counters::default();
        counters.gap_bytes = 7;
        let (mut one, mut two) = (Own::default(), Own { cpu_limit: 3, ..Own::default() });
        one.tell(&losses, &counters, 0);
        counters.lose(Lost::MemoryLimit);
        counters.lose(Lost::Unanswered);
        counters.refuse(Malformed::DecompressionBomb);
        counters.refuse(Malformed::Batch);
        one.tell(&losses, &counters, 2);
        two.tell(&losses, &Counters::default(), 1);
        let so_far: Vec<_> = losses.so_far().filter(|(_, count)| *count > 0).collect();
        let told = [("memory_limit", 1), ("gap_bytes", 7), ("cpu_limit", 3)];
        assert_eq!(so_far, [("unanswered", 1), told[0], told[1], ("topic_unnamed", 3), told[2]]);
        let told = told.into_iter().chain([("decompression_bomb", 1)]);
        assert!(losses.to_tell().filter(|(_, count)| *count > 0).eq(told));
    }

    #[test]
    fn that_a_connection_is_not_kafka_is_a_loss_only_where_it_should_be() {
        let mut counters = Counters::default();
        counters.lose(Lost::NotKafka);
        for (recognised, lost) in [(false, 1), (true, 0)] {
            let own = Own::new(recognised);
            let told = own.counts(&counters, 0).find(|(reason, _)| *reason == "not_kafka");
            assert_eq!(told, Some(("not_kafka", lost)));
        }
    }
}
