//! Which traces are kept: a function of the trace id alone, so that all hosts keep the same.

use ktrace_kafka::context::TraceId;

/// Random bits of a trace id: its last 7 bytes
/// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).
const RANDOMNESS: u64 = 1 << 56;

/// Keeps a share of all traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Trace ids whose random part is at least this are kept.
    threshold: u64,
}

impl Default for Sampling {
    /// All of them.
    fn default() -> Self {
        Self { threshold: 0 }
    }
}

impl Sampling {
    /// `ratio` is the share of traces kept, from 0 to 1.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        // Exact for every ratio that has at most 56 bits.
        Self { threshold: ((1.0 - ratio) * RANDOMNESS as f64) as u64 }
    }

    /// Trace ids whose random part is at least this are kept.
    #[must_use]
    pub fn threshold(self) -> u64 {
        self.threshold
    }

    /// Keeps trace ids whose random part is at least `threshold`.
    #[must_use]
    pub fn from_threshold(threshold: u64) -> Self {
        Self { threshold }
    }

    /// The same answer on every host.
    #[must_use]
    pub fn keeps(self, trace: TraceId) -> bool {
        let random = u128::from_be_bytes(trace.to_bytes()) & u128::from(RANDOMNESS.wrapping_sub(1));
        random >= u128::from(self.threshold)
    }
}

/// Exceptions to the share of traces that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// The flag in the message's trace context decides, where it has one.
    pub parents: bool,
    /// Messages that took at least this long, and those that failed, are kept.
    pub slow_ns: Option<u64>,
}

impl Exceptions {
    /// Whether a message is kept; `None` where the trace id decides. `flags` are W3C's; `took_ns`
    /// is how long the message took to be sent or delivered.
    #[must_use]
    pub fn decide(self, flags: Option<u8>, took_ns: Option<u64>, has_failed: bool) -> Option<bool> {
        if let Some(slow_ns) = self.slow_ns
            && (has_failed || took_ns.is_some_and(|took| took >= slow_ns))
        {
            return Some(true);
        }
        flags.filter(|_| self.parents).map(|flags| flags & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_go_before_the_share() {
        let of = |parents, slow_ns| Exceptions { parents, slow_ns };
        assert_eq!(of(false, None).decide(Some(1), Some(9), true), None);
        let parents = of(true, None);
        assert_eq!(
            [Some(1), Some(0), None].map(|flags| parents.decide(flags, Some(9), true)),
            [Some(true), Some(false), None]
        );
        let slow = of(true, Some(5));
        assert_eq!(slow.decide(Some(0), Some(5), false), Some(true));
        assert_eq!(slow.decide(Some(0), Some(4), true), Some(true));
        assert_eq!(slow.decide(Some(0), Some(4), false), Some(false));
        assert_eq!(slow.decide(None, None, false), None);
    }

    #[test]
    fn the_last_seven_bytes_alone_decide() {
        let id = |first: u8, random: u64| {
            let mut bytes = [first; 16];
            bytes[8..].copy_from_slice(&random.to_be_bytes());
            bytes[8] = first;
            TraceId::new(bytes).unwrap()
        };
        let (half, edge) = (Sampling::new(0.5), RANDOMNESS / 2);
        for first in [0, 1, 0xff] {
            assert!(half.keeps(id(first, edge)) && !half.keeps(id(first, edge - 1)));
        }
        assert!(Sampling::new(1.0).keeps(id(1, 0)));
        assert!(!Sampling::new(0.0).keeps(id(1, RANDOMNESS - 1)));
        assert_eq!(Sampling::new(1.0), Sampling::default());
    }
}
