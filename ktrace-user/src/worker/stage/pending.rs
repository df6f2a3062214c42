//! A bounded queue of items that wait, and the one rule for how long.

use std::collections::VecDeque;

pub(in crate::worker) use crate::hop::deadline::is_over;
use crate::seen::ConnectionId;

/// Items that wait since they came, in that order, each for the same time.
///
/// Times are those of a wall clock, which can be set back. [`is_over`] then ends the wait of what
/// seems to come from the future, so nothing waits for more than twice its patience.
pub(super) struct Pending<T> {
    queue: VecDeque<Entry<T>>,
    patience_ns: u64,
    bound: usize,
    early: u64,
}

struct Entry<T> {
    connection: ConnectionId,
    since_ns: u64,
    item: T,
}

impl<T> Pending<T> {
    pub fn new(patience_ns: u64, bound: usize) -> Self {
        Self { queue: VecDeque::new(), patience_ns, bound, early: 0 }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Adds an item at the end. Returns whether there are too many now: [`Pending::pop_excess`]
    /// gives the oldest.
    pub fn push(&mut self, connection: ConnectionId, now_ns: u64, item: T) -> bool {
        self.queue.push_back(Entry { connection, since_ns: now_ns, item });
        self.queue.len() > self.bound
    }

    /// Takes the oldest item if it has waited long enough; `None` as time: in any case. Items
    /// behind it came later, so they are looked at only when it has gone.
    pub fn pop_due(&mut self, now_ns: Option<u64>) -> Option<(ConnectionId, T)> {
        let patience_ns = self.patience_ns;
        let is_due =
            |first: &mut Entry<T>| now_ns.is_none_or(|now_ns| is_over(first.since_ns, patience_ns, now_ns));
        self.queue.pop_front_if(is_due).map(|entry| (entry.connection, entry.item))
    }

    /// Takes the oldest item if there are more than the bound.
    pub fn pop_excess(&mut self) -> Option<(ConnectionId, T)> {
        let entry = if self.queue.len() > self.bound { self.queue.pop_front() } else { None };
        entry.map(|entry| (entry.connection, entry.item))
    }

    /// Gives all items to `look`, with whether each has waited long enough. What it gives back goes
    /// on waiting, in order.
    pub fn sift(&mut self, now_ns: Option<u64>, mut look: impl FnMut(ConnectionId, T, bool) -> Option<T>) {
        for Entry { connection, since_ns, item } in std::mem::take(&mut self.queue) {
            let is_over = now_ns.is_none_or(|now_ns| is_over(since_ns, self.patience_ns, now_ns));
            if let Some(item) = look(connection, item, is_over) {
                self.queue.push_back(Entry { connection, since_ns, item });
            }
        }
    }

    /// So many hops were released before their time.
    pub fn count_early(&mut self, hops: u64) {
        self.early = self.early.saturating_add(hops);
    }

    /// How many since this was asked last.
    pub fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_NS: u64 = 100;

    fn popped(pending: &mut Pending<u64>, now_ns: Option<u64>) -> Vec<u64> {
        std::iter::from_fn(|| pending.pop_due(now_ns).map(|(_, item)| item)).collect()
    }

    fn of(times: &[u64]) -> Pending<u64> {
        let mut pending = Pending::new(PATIENCE_NS, 3);
        for time in times {
            pending.push(ConnectionId(1), *time, *time);
        }
        pending
    }

    #[test]
    fn items_wait_in_order_until_they_are_due() {
        let mut pending = of(&[1000, 1050]);
        assert!(popped(&mut pending, Some(1099)).is_empty());
        assert_eq!(popped(&mut pending, Some(1100)), [1000]);
        assert_eq!(popped(&mut pending, None), [1050]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn no_item_waits_for_a_clock_that_was_set_back() {
        for (now_ns, over) in [(901, vec![]), (900, vec![1000]), (0, vec![1000, 990])] {
            assert_eq!(popped(&mut of(&[1000, 990]), Some(now_ns)), over, "{now_ns}");
        }
        // What came after the clock was set back waits for at most twice as long.
        let mut pending = of(&[1000, 950]);
        assert!(popped(&mut pending, Some(1050)).is_empty());
        assert_eq!(popped(&mut pending, Some(1100)), [1000, 950]);
    }

    #[test]
    fn over_the_bound_the_oldest_goes_first() {
        let mut pending = of(&[1, 2, 3]);
        assert!(pending.pop_excess().is_none());
        assert!(pending.push(ConnectionId(2), 4, 4));
        assert_eq!(pending.pop_excess(), Some((ConnectionId(1), 1)));
        assert!(pending.pop_excess().is_none());
        pending.count_early(2);
        assert_eq!([pending.take_early(), pending.take_early()], [2, 0]);
    }

    #[test]
    fn what_goes_on_waiting_stays_in_order() {
        let mut pending = of(&[1000, 1010, 1020]);
        let mut seen = vec![];
        pending.sift(Some(1115), |_, item, is_over| {
            seen.push((item, is_over));
            (item != 1010).then_some(item)
        });
        assert_eq!(seen, [(1000, true), (1010, true), (1020, false)]);
        assert_eq!(popped(&mut pending, None), [1000, 1020]);
    }
}
