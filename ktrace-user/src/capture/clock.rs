//! Kernel time (`CLOCK_MONOTONIC`, what the programs stamp) to wall clock.

use rustix::time::{ClockId, clock_gettime};

/// The distance between the two clocks, to be measured again now and then: the wall clock is
/// steered and may jump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Wall clock minus monotonic, nanoseconds.
    offset_ns: i64,
}

impl Clock {
    /// Measures the distance now.
    pub(super) fn measure() -> Self {
        // A reading of the wall clock between two of the monotonic one; of a few tries the one that
        // took least time is the most exact.
        let offset_ns = (0..5)
            .map(|_| {
                let before = read(ClockId::Monotonic);
                let wall = read(ClockId::Realtime);
                let after = read(ClockId::Monotonic);
                (after.saturating_sub(before), wall.saturating_sub(before.midpoint(after)))
            })
            .min()
            .map_or(0, |(_, offset_ns)| offset_ns);
        Self { offset_ns }
    }

    /// Nanoseconds since 1970 for a kernel time stamp.
    pub(super) fn wall_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of kernel time stamps.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic).cast_unsigned()
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn agrees_with_the_wall_clock() {
        let clock = Clock::measure();
        let ours = clock.wall_ns(monotonic_ns());
        let theirs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        assert!(u128::from(ours).abs_diff(theirs) < 500_000_000, "{ours} {theirs}");
    }
}
