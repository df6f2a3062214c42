//! A record's timestamp, and whether it is plausible: the sender writes it, and some write seconds
//! or microseconds.

/// 2001-01-01: Kafka is younger, and a time written in seconds lies before.
const FIRST_NS: u64 = 978_307_200_000_000_000;

/// How far ahead of its delivery a timestamp may lie. A clock that is wrong by more than a day is
/// useless to its owner, too.
const MOST_AHEAD_NS: u64 = 24 * 3600 * 1_000_000_000;

/// What a timestamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The record has none, as those of before Kafka 0.10.
    Missing,
    /// It is no time at which a record can have been written: before 2001, or more than a day
    /// ahead.
    Implausible,
    /// Nanoseconds since 1970.
    At(u64),
}

impl Stamp {
    /// Judges a record's milliseconds since 1970 by the time at which it passed.
    #[must_use]
    pub fn of(timestamp_ms: i64, now_ns: u64) -> Self {
        const NONE: i64 = -1;
        let Ok(ms) = u64::try_from(timestamp_ms) else {
            return if timestamp_ms == NONE { Self::Missing } else { Self::Implausible };
        };
        match ms.checked_mul(1_000_000) {
            Some(ns) if (FIRST_NS..=now_ns.saturating_add(MOST_AHEAD_NS)).contains(&ns) => Self::At(ns),
            _ => Self::Implausible,
        }
    }

    /// Nanoseconds since 1970, where it can be a time.
    #[must_use]
    pub fn ns(self) -> Option<u64> {
        match self {
            Self::At(ns) => Some(ns),
            Self::Missing | Self::Implausible => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_time_is_none() {
        // 2026-11-29.
        let now_ns: u64 = 1_796_000_000_000_000_000;
        let now_ms = (now_ns / 1_000_000).cast_signed();
        let day_ms = 24 * 3600 * 1000;
        for (ms, stamp) in [
            (-1, Stamp::Missing),
            (-2, Stamp::Implausible),
            (i64::MIN, Stamp::Implausible),
            (0, Stamp::Implausible),
            // In seconds, and in microseconds.
            (now_ms / 1000, Stamp::Implausible),
            (now_ms * 1000, Stamp::Implausible),
            (978_307_199_999, Stamp::Implausible),
            (978_307_200_000, Stamp::At(FIRST_NS)),
            (now_ms, Stamp::At(now_ns)),
            (now_ms + day_ms, Stamp::At(now_ns + MOST_AHEAD_NS)),
            (now_ms + day_ms + 1, Stamp::Implausible),
            (i64::MAX, Stamp::Implausible),
        ] {
            assert_eq!(Stamp::of(ms, now_ns), stamp, "{ms}");
            assert_eq!(Stamp::of(ms, now_ns).ns().is_some(), matches!(stamp, Stamp::At(_)));
        }
    }
}
