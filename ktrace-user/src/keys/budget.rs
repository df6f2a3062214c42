//! How much CPU time searches may take.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What may be taken at once after a time without searches: so that those of a client's first
/// connections begin as they are asked for.
const BURST: Duration = Duration::from_secs(1);
/// As good as never, where no time is allowed: longer than any connection waits.
const NEVER: Duration = Duration::from_secs(3600);

/// A share of one core. A search is not cut short, so it may take more than there is; those behind
/// it then wait until it has been made up for.
pub struct Budget {
    share: f64,
    /// Nanoseconds that may be taken; negative where too many have been.
    left: f64,
    at: Instant,
}

impl Budget {
    /// `share` of a core, 1 for all of it.
    pub fn new(share: f64, now: Instant) -> Self {
        Self { share: share.max(0.0), left: BURST.as_nanos() as f64, at: now }
    }

    /// How long the next search has to wait.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        if self.left > 0.0 {
            return Duration::ZERO;
        }
        // At least a moment: what rounds to none would be asked again at once.
        let wait = Duration::try_from_secs_f64(-self.left / 1e9 / self.share).unwrap_or(NEVER);
        wait.clamp(Duration::from_millis(1), NEVER)
    }

    /// So much CPU time was taken.
    pub fn take(&mut self, used: Duration, now: Instant) {
        self.refill(now);
        self.left -= used.as_nanos() as f64;
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.at = now;
        self.left = (self.left + since.as_nanos() as f64 * self.share).min(BURST.as_nanos() as f64);
    }
}

/// CPU time that the calling thread has used.
pub fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_taken_too_much_is_made_up_for() {
        let mut now = Instant::now();
        let mut budget = Budget::new(0.02, now);
        assert_eq!(budget.wait(now), Duration::ZERO);
        // Four seconds of a broker's heap.
        budget.take(4 * SECOND, now);
        let wait = budget.wait(now);
        assert!(wait > 149 * SECOND && wait < 151 * SECOND, "{wait:?}");
        now += wait + SECOND;
        assert_eq!(budget.wait(now), Duration::ZERO);
        // A day without searches allows no more than a moment did.
        now += 86_400 * SECOND;
        budget.take(SECOND, now);
        assert!(budget.wait(now) > Duration::ZERO);
    }

    #[test]
    fn no_share_is_the_first_burst_alone() {
        let now = Instant::now();
        for share in [0.0, -1.0, f64::NAN] {
            let mut budget = Budget::new(share, now);
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.take(2 * SECOND, now);
            assert_eq!(budget.wait(now + 1000 * SECOND), NEVER, "{share}");
        }
    }

    #[test]
    fn time_of_the_thread() {
        let before = thread_time();
        let mut sum = 0_u64;
        while thread_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
