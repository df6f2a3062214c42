//! Refused requests that bring no message: a fetch, as a whole or of a partition; a member's
//! requests; an authentication.
//!
//! Clients retry, some of them hundreds of times a second. So the first refusal of a kind on a
//! connection is emitted at once, or, for errors that most often go away, when it has lasted for
//! [`PATIENCE_NS`]; after that one in [`PAUSE_NS`], with the number of refusals since.

use std::collections::HashMap;

/// How often a refusal of the same kind is emitted: rare enough for a client that retries for
/// hours, and often enough to be seen as lasting.
pub const PAUSE_NS: u64 = 30_000_000_000;

/// How long a client may retry before that is emitted. Coordinators are elected and load their
/// groups in less.
pub const PATIENCE_NS: u64 = 10_000_000_000;

/// Kinds of refusals of one connection that are known at a time. Further ones are only counted:
/// evicting one would emit it anew with each retry.
pub const MAX_DIFFERENT: usize = 256;

/// A refusal that is emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `poll` for a fetch; else the name of the API.
    pub operation: Operation,
    /// How often since it was last emitted, this time included.
    pub count: u64,
    /// How long the client has to wait by its quota, in milliseconds.
    pub throttle_ms: u32,
    /// Hashed into its ids.
    pub place: u64,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Poll,
    /// By Kafka's name of the API: `JoinGroup`.
    Request(&'static str),
}

impl Operation {
    /// `messaging.operation.name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Request(name) => name,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Repeated {
    /// When it is to be emitted.
    due_ns: u64,
    /// When it was last refused.
    last_ns: u64,
    /// How often since it was last emitted.
    count: u64,
}

impl Repeated {
    /// Whether it has ended since, or the clock was set back.
    fn is_over(&self, now_ns: u64) -> bool {
        now_ns < self.last_ns || now_ns.saturating_sub(self.last_ns) >= PAUSE_NS
    }
}

/// The refusals of one connection.
#[derive(Debug, Default)]
pub struct Refusals {
    by_kind: HashMap<u64, Repeated>,
}

impl Refusals {
    /// How many kinds are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_kind.len()
    }

    /// Whether no kind is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// Counts a refusal of this `kind`, which is emitted when it has lasted for `patience_ns`.
    /// Returns the count since it was last emitted if it is to be emitted now.
    pub fn refused(&mut self, kind: u64, patience_ns: u64, now_ns: u64) -> Option<u64> {
        let new = Repeated { due_ns: now_ns.saturating_add(patience_ns), last_ns: now_ns, count: 0 };
        if !self.by_kind.contains_key(&kind) && self.by_kind.len() >= MAX_DIFFERENT {
            self.by_kind.retain(|_, known| !known.is_over(now_ns));
            if self.by_kind.len() >= MAX_DIFFERENT {
                return None;
            }
        }
        let known = self.by_kind.entry(kind).or_insert(new);
        // A kind that is emitted at once counts what was refused since, however long ago that was.
        if known.is_over(now_ns) {
            let count = if patience_ns == 0 { known.count } else { 0 };
            *known = Repeated { count, ..new };
        }
        (known.count, known.last_ns) = (known.count.saturating_add(1), now_ns);
        if now_ns < known.due_ns {
            return None;
        }
        known.due_ns = now_ns.saturating_add(PAUSE_NS);
        Some(std::mem::take(&mut known.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_shown_and_then_one_in_a_while_with_their_number() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.refused(1, 0, 1000), Some(1));
        assert_eq!(refusals.refused(2, 0, 1000), Some(1));
        for at in 1..100 {
            assert_eq!(refusals.refused(1, 0, 1000 + at), None);
        }
        assert_eq!(refusals.refused(1, 0, 1000 + PAUSE_NS), Some(100));
        assert_eq!(refusals.refused(1, 0, 1001 + PAUSE_NS), None);
        assert_eq!(refusals.refused(1, 0, 500), Some(2), "a clock that was set back");
    }

    #[test]
    fn what_is_mended_soon_is_not_shown() {
        let (mut refusals, second) = (Refusals::default(), 1_000_000_000);
        for at in 0..9 {
            assert_eq!(refusals.refused(1, PATIENCE_NS, at * second), None);
        }
        // An hour later it begins anew, and lasts.
        let later = 3600 * second;
        for at in 0..10 {
            assert_eq!(refusals.refused(1, PATIENCE_NS, later + at * second), None);
        }
        assert_eq!(refusals.refused(1, PATIENCE_NS, later + PATIENCE_NS), Some(11));
        assert_eq!(refusals.refused(1, PATIENCE_NS, later + PATIENCE_NS + second), None);
    }

    /// Hostile: a broker that refuses all partitions that there could be.
    #[test]
    fn they_are_bounded() {
        let mut refusals = Refusals::default();
        let shown = (0..100_000).filter(|kind| refusals.refused(*kind, 0, 1000).is_some()).count();
        assert_eq!((shown, refusals.len()), (MAX_DIFFERENT, MAX_DIFFERENT));
        assert_eq!(refusals.refused(u64::MAX, 0, 1000 + PAUSE_NS), Some(1), "the old ones have gone");
        assert_eq!(refusals.len(), 1);
    }
}
