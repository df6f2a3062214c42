//! Spans a second, kept below the user's limit.
//!
//! Spans are counted where they are given to the sinks, so those that filters leave out do not
//! count. The share that is kept is set anew each second from the second before. A burst does not
//! wait for that: when a second's spans are used up the share is halved, and again with each
//! sixteenth more, so that no second has more than about twice the limit.
//!
//! Time is that of the events, so a capture file gives the same spans each time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::throttle::{Limit, Throttle, Within};

const SECOND_NS: u64 = 1_000_000_000;

/// Counts spans, and sets the share of traces that is kept.
#[derive(Debug)]
pub(super) struct SpanLimit {
    /// Spans so far.
    shown: AtomicU64,
    /// At this number of spans the share is halved.
    due: AtomicU64,
    second: Mutex<Option<Second>>,
}

impl Default for SpanLimit {
    /// No limit.
    fn default() -> Self {
        Self { shown: AtomicU64::new(0), due: AtomicU64::new(u64::MAX), second: Mutex::default() }
    }
}

/// The current second.
#[derive(Debug)]
struct Second {
    throttle: Throttle,
    begin_ns: Option<u64>,
    /// The share at its beginning.
    share: f64,
    /// Spans so far when the share became what it is.
    since: u64,
    /// Spans of this second up to then, had all been kept.
    offered: f64,
}

impl Second {
    /// The share is about to change; `shown` spans were emitted so far.
    fn settle(&mut self, shown: u64) {
        self.offered += shown.saturating_sub(self.since) as f64 / self.throttle.share();
        self.since = shown;
    }

    /// The share for the next second, where `rate` spans a second would have been shown without a
    /// limit.
    fn next_share(&self, rate: f64) -> f64 {
        let limit = self.throttle.limit();
        let wanted = if rate <= limit { 1.0 } else { 0.9 * limit / rate };
        // What fits stays: each time that it moves some trace is shown in part.
        if rate > limit && (0.8..=1.0).contains(&(self.share * rate / limit)) {
            self.share
        } else {
            wanted.min(2.0 * self.share)
        }
    }
}

impl SpanLimit {
    /// So many a second from now on. Before the first span.
    pub fn set(&self, limit: u32) {
        let throttle = Throttle::new(limit.into());
        let second = Second { throttle, begin_ns: None, share: 1.0, since: 0, offered: 0.0 };
        *self.second.lock().unwrap_or_else(PoisonError::into_inner) = Some(second);
        self.due.store(limit.into(), Ordering::Relaxed);
    }

    pub fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }

    /// A span is given to the sinks.
    pub fn count(&self, within: &Within) {
        let shown = self.shown.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if shown >= self.due.load(Ordering::Relaxed) {
            self.exceed(within);
        }
    }

    #[cold]
    fn exceed(&self, within: &Within) {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, Some(second)) = (self.shown(), &mut *second) else { return };
        // Another worker may have seen to it.
        if shown >= self.due.load(Ordering::Relaxed) {
            second.settle(shown);
            within.keep(Limit::Spans, second.throttle.set(second.throttle.share() / 2.0));
            let more = (second.throttle.limit() / 16.0).ceil() as u64;
            self.due.store(shown.saturating_add(more), Ordering::Relaxed);
        }
    }

    /// It is as late as this.
    pub fn turn(&self, now_ns: u64, within: &Within) {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(second) = &mut *second else { return };
        let begin_ns = *second.begin_ns.get_or_insert(now_ns);
        let took_ns = now_ns.saturating_sub(begin_ns);
        // Workers are not equally far; but a clock that was set back begins anew.
        if took_ns < SECOND_NS && begin_ns.saturating_sub(now_ns) < SECOND_NS {
            return;
        }
        let shown = self.shown();
        second.settle(shown);
        let rate = second.offered * SECOND_NS as f64 / took_ns.max(SECOND_NS) as f64;
        let share = second.next_share(rate);
        within.keep(Limit::Spans, second.throttle.set(share));
        self.due.store(shown.saturating_add(second.throttle.limit() as u64), Ordering::Relaxed);
        (second.begin_ns, second.share, second.offered) = (Some(now_ns), second.throttle.share(), 0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ktrace_kafka::context::TraceId;
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    /// An agent, a message at a time.
    struct Agent {
        limit: SpanLimit,
        within: Within,
        now_ns: u64,
        kept: HashSet<u64>,
    }

    impl Agent {
        fn new(limit: u32) -> Self {
            let agent = Self {
                limit: SpanLimit::default(),
                within: Within::default(),
                now_ns: 5 * SECOND_NS,
                kept: HashSet::new(),
            };
            agent.limit.set(limit);
            agent.limit.turn(agent.now_ns, &agent.within);
            agent
        }

        /// A second of `count` messages, of traces from `first` on. Returns how many were kept.
        fn second(&mut self, first: u64, messages: u64) -> u64 {
            let before = self.limit.shown();
            for step in 0..4 {
                for trace in first + messages * step / 4..first + messages * (step + 1) / 4 {
                    let id = TraceId::new(xxh3_128(&trace.to_be_bytes()).to_be_bytes()).unwrap();
                    if self.within.skips(id).is_none() {
                        self.limit.count(&self.within);
                        self.kept.insert(trace);
                    }
                }
                self.now_ns += SECOND_NS / 4;
                self.limit.turn(self.now_ns, &self.within);
            }
            self.limit.shown() - before
        }
    }

    #[test]
    fn a_burst_is_over_the_limit_for_a_second_and_twice_at_most() {
        for limit in [100, 1000, 20_000] {
            let mut agent = Agent::new(limit);
            let most = u64::from(limit);
            assert_eq!(agent.second(0, 50), 50);
            let first = agent.second(1000, 1_000_000);
            assert!((most..=most * 9 / 4).contains(&first), "{limit}: {first}");
            for second in 1..10 {
                let kept = agent.second(1_000_000 * second, 1_000_000);
                assert!((most / 2..=most * 9 / 8).contains(&kept), "{limit}, second {second}: {kept}");
            }
        }
    }

    #[test]
    fn all_is_kept_again_after_a_burst() {
        let mut agent = Agent::new(1000);
        agent.second(0, 100_000);
        agent.second(1_000_000, 100_000);
        let kept: Vec<u64> = (2..12).map(|second| agent.second(1_000_000 * second, 800)).collect();
        assert!(kept.is_sorted() && kept.last() == Some(&800), "{kept:?}");
        assert_eq!(agent.second(0, 990), 990);
    }

    #[test]
    fn below_the_limit_nothing_is_skipped_and_without_one_neither() {
        let mut agent = Agent::new(1000);
        assert!((0..20).all(|second| agent.second(second * 10_000, 1000) == 1000));
        let free =
            Agent { limit: SpanLimit::default(), within: Within::default(), now_ns: 0, kept: HashSet::new() };
        let mut free = free;
        assert_eq!(free.second(0, 100_000), 100_000);
    }

    /// What the one under more pressure keeps, the other keeps, once both have found their shares.
    #[test]
    fn agents_under_different_pressure_keep_comparable_sets() {
        let (mut one, mut other) = (Agent::new(1000), Agent::new(200));
        for agent in [&mut one, &mut other] {
            for second in 0..3 {
                agent.second(1_000_000 * second, 20_000);
            }
            agent.kept.clear();
            agent.second(100_000_000, 20_000);
        }
        assert!(other.kept.len() > 100 && one.kept.len() > 4 * other.kept.len());
        assert!(other.kept.is_subset(&one.kept));
    }

    #[test]
    fn a_share_that_fits_stays() {
        let mut agent = Agent::new(1000);
        let share = |agent: &Agent| agent.limit.second.lock().unwrap().as_ref().unwrap().share;
        for second in 0..4 {
            agent.second(1_000_000 * second, 50_000);
        }
        let before = share(&agent);
        for second in 4..30 {
            agent.second(1_000_000 * second, 50_000);
            assert!((share(&agent) - before).abs() < before / 2.0);
        }
        assert!(before > 0.015 && before < 0.02, "{before}");
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew() {
        let mut agent = Agent::new(1000);
        agent.second(0, 100_000);
        agent.now_ns = SECOND_NS;
        let kept: Vec<u64> = (1..12).map(|second| agent.second(1_000_000 * second, 800)).collect();
        assert_eq!(kept.last(), Some(&800));
    }
}
