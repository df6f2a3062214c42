//! The agent's CPU time kept below a limit: past it, whole messages are skipped by trace id.
//!
//! Of a trace either all messages are shown or none, and the same ones on every agent that is under pressure: the share that
//! is kept only moves the threshold of [`Sampling`], and slowly. Capturing and reading go on; what is saved is making spans
//! and sending them.

use crate::hop::sampling::Sampling;

/// The least share that is kept; the agent is then as small as it gets without missing how connections go on.
const LEAST: f64 = 1.0 / 65_536.0;

/// Decides which share of traces is kept, from how much CPU time was used.
#[derive(Debug)]
pub struct Throttle {
    /// Of one core.
    limit: f64,
    share: f64,
}

impl Throttle {
    /// `limit` is a share of one core.
    #[must_use]
    pub fn new(limit: f64) -> Self {
        Self { limit, share: 1.0 }
    }

    /// The process has used this share of a core since the last turn.
    pub fn turn(&mut self, used: f64) -> Sampling {
        let ratio = self.limit / used.max(1e-6);
        if ratio < 1.0 {
            // Part of the cost stays, so the rest has to shrink by more than the ratio; but no faster than by half.
            self.share = (self.share * (ratio * ratio).max(0.5)).max(LEAST);
        } else if ratio > 1.1 {
            self.share = (self.share * ratio.min(1.2)).min(1.0);
        }
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
}
