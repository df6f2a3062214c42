//! Limits of what the agent spends and shows: past one of them whole messages are skipped by trace
//! id.
//!
//! Of a trace either all messages are shown or none, and the same ones on every agent that is under
//! pressure: each limit only moves the threshold of a [`Sampling`], and the stricter holds.
//! Capturing and reading go on; what is saved is making spans and sending them.

use std::sync::atomic::{AtomicU64, Ordering};

use ktrace_kafka::context::TraceId;

use crate::hop::sampling::Sampling;

/// The least share that is kept; the agent is then as small as it gets without missing how
/// connections go on.
const LEAST: f64 = 1.0 / (1 << 20) as f64;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The agent's CPU time.
    Cpu,
    /// Spans a second.
    Spans,
}

/// What all limits leave, the same for all workers.
#[derive(Debug, Default)]
pub(super) struct Within {
    thresholds: [AtomicU64; 2],
}

impl Within {
    /// Of the traces that the user wants, only these are within this limit from now on.
    pub fn keep(&self, limit: Limit, sampling: Sampling) {
        self.thresholds[limit as usize].store(sampling.threshold(), Ordering::Relaxed);
    }

    /// The limit that a trace is not within, if there is one.
    pub fn skips(&self, trace: TraceId) -> Option<Limit> {
        [Limit::Cpu, Limit::Spans].into_iter().find(|limit| {
            let threshold = self.thresholds[*limit as usize].load(Ordering::Relaxed);
            threshold > 0 && !Sampling::from_threshold(threshold).keeps(trace)
        })
    }
}

/// Decides which share of traces is kept, from how much of what is limited was used.
#[derive(Debug)]
pub struct Throttle {
    limit: f64,
    share: f64,
}

impl Throttle {
    /// `limit` is in the unit of what is used: a share of one core, or spans a second.
    #[must_use]
    pub fn new(limit: f64) -> Self {
        Self { limit, share: 1.0 }
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// So much was used since the last turn, of which a part goes whatever is skipped.
    pub fn turn(&mut self, used: f64) -> Sampling {
        let ratio = self.limit / used.max(1e-6);
        if ratio < 1.0 {
            // The rest has to shrink by more than the ratio; but no faster than by half.
            self.set(self.share * (ratio * ratio).max(0.5))
        } else if ratio > 1.1 {
            self.set(self.share * ratio.min(1.2))
        } else {
            self.set(self.share)
        }
    }

    pub(super) fn set(&mut self, share: f64) -> Sampling {
        self.share = share.clamp(LEAST, 1.0);
        Sampling::new(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that costs `base` and `all` more if all is shown.
    fn settles(limit: f64, base: f64, all: f64) -> f64 {
        let mut throttle = Throttle::new(limit);
        for _ in 0..200 {
            let used = base + all * throttle.share;
            throttle.turn(used);
        }
        throttle.share
    }

    #[test]
    fn the_share_settles_where_the_limit_is_kept() {
        for (limit, base, all) in [(0.2, 0.1, 0.5), (0.2, 0.01, 5.0), (1.0, 0.5, 0.9)] {
            let used = base + all * settles(limit, base, all);
            assert!((0.8 * limit..=1.05 * limit).contains(&used), "{limit}: {used}");
        }
    }

    #[test]
    fn all_is_kept_below_the_limit_and_as_little_as_can_be_where_it_cannot_be_met() {
        assert!((settles(0.2, 0.05, 0.1) - 1.0).abs() < 1e-9);
        assert!(settles(0.2, 0.3, 0.1) <= LEAST);
    }

    #[test]
    fn it_moves_smoothly() {
        let mut throttle = Throttle::new(0.1);
        throttle.turn(100.0);
        assert!(throttle.share >= 0.5);
        let before = throttle.share;
        throttle.turn(0.0);
        assert!(throttle.share <= before * 1.2 + 1e-9);
    }

    #[test]
    fn the_stricter_limit_holds() {
        let within = Within::default();
        let id = |random: u64| TraceId::new((u128::from(random) | 1 << 100).to_be_bytes()).unwrap();
        let (low, middle, high) = (id(1 << 54), id(3 << 54), id((4 << 54) - 1));
        let skips = |within: &Within| [low, middle, high].map(|trace| within.skips(trace));
        assert_eq!(skips(&within), [None; 3]);
        within.keep(Limit::Spans, Sampling::new(0.5));
        assert_eq!(skips(&within), [Some(Limit::Spans), None, None]);
        within.keep(Limit::Cpu, Sampling::new(0.1));
        assert_eq!(skips(&within), [Some(Limit::Cpu), Some(Limit::Cpu), None]);
        within.keep(Limit::Cpu, Sampling::new(0.6));
        assert_eq!(skips(&within), [Some(Limit::Cpu), None, None]);
    }
}
