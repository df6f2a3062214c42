//! Deadlines by the wall clock. Each worker reads it from its own events, and it may be set back
//! meanwhile.

/// How far apart in time two rings may be read: a reader that finds nothing sleeps for 0.1 s.
pub const LATE_NS: u64 = 250_000_000;

/// Whether `patience_ns` has passed since `since_ns`. Also true if `since_ns` lies that far ahead:
/// then the clock was set back. Smaller steps back are taken for differences between workers, so
/// nothing waits for more than twice its patience.
#[must_use]
pub fn is_over(since_ns: u64, patience_ns: u64, now_ns: u64) -> bool {
    since_ns.abs_diff(now_ns) >= patience_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_more_than_twice_as_long_wherever_the_clock_is_set() {
        let (since_ns, patience_ns) = (1000, 10);
        let is_over = |now_ns| is_over(since_ns, patience_ns, now_ns);
        assert_eq!([0, 990, 991, 1000, 1009].map(is_over), [true, true, false, false, false]);
        assert_eq!([1010, u64::MAX].map(is_over), [true, true]);
    }
}
