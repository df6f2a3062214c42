//! What decompression may cost in vain.
//!
//! A batch is worth what it takes to inflate it where records come out. What else comes out, of
//! batches that fail or hold little for their size, is charged to the connection and to all that
//! its worker reads; it wears off as time passes. While too much is charged, a batch is inflated
//! only as far as its records go.

use crate::codec::USEFUL_BYTES;

/// Of a connection: the largest batch, twice; and what wears off in a second, which takes a
/// hundredth of a core or two.
const OF_CONNECTION: Bounds = Bounds { bytes: 256 << 20, bytes_per_second: 16 << 20 };
/// Of all connections of a worker, as there may be any number.
const OF_ALL: Bounds = Bounds { bytes: 1 << 30, bytes_per_second: 64 << 20 };

#[derive(Clone, Copy)]
struct Bounds {
    bytes: u64,
    bytes_per_second: u64,
}

/// Bytes that were inflated in vain and have not worn off yet.
#[derive(Clone, Copy, Debug, Default)]
struct Charged {
    bytes: u64,
    time_ns: u64,
}

impl Charged {
    /// What may be inflated in vain now.
    fn left(&mut self, bounds: Bounds, now_ns: u64) -> usize {
        if self.bytes > 0 {
            let passed_ns = u128::from(now_ns.saturating_sub(self.time_ns));
            let worn = passed_ns.saturating_mul(u128::from(bounds.bytes_per_second)) / 1_000_000_000;
            self.bytes = self.bytes.saturating_sub(u64::try_from(worn).unwrap_or(u64::MAX));
        }
        self.time_ns = now_ns;
        usize::try_from(bounds.bytes.saturating_sub(self.bytes)).unwrap_or(usize::MAX)
    }

    fn charge(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What batches of a connection were inflated in vain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inflation(Charged);

/// The current exchange: what is charged to its connection, and to all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inflating {
    connection: Charged,
    all: Charged,
    now_ns: u64,
    /// Bytes that the exchange may still inflate, in vain or not.
    budget: usize,
}

impl Inflating {
    /// An exchange of this connection is read, at this time, which may inflate `budget` bytes.
    pub fn begin(&mut self, of: Inflation, now_ns: u64, budget: usize) {
        (self.connection, self.now_ns, self.budget) = (of.0, now_ns, budget);
    }

    /// Whether the exchange has inflated all that it may.
    pub fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// Notes bytes that were inflated, or may have been before that failed.
    pub fn spend(&mut self, bytes: usize) {
        self.budget = self.budget.saturating_sub(bytes);
    }

    /// What is charged to the connection now.
    pub fn end(&self) -> Inflation {
        Inflation(self.connection)
    }

    /// What may be inflated in vain now.
    pub fn allowance(&mut self) -> usize {
        let Self { connection, all, now_ns, .. } = self;
        connection.left(OF_CONNECTION, *now_ns).min(all.left(OF_ALL, *now_ns))
    }

    /// Notes bytes that were inflated, and the records in them.
    pub fn charge(&mut self, bytes: usize, records: usize) {
        let in_vain = bytes.saturating_sub(records.saturating_mul(USEFUL_BYTES));
        let in_vain = u64::try_from(in_vain).unwrap_or(u64::MAX);
        self.connection.charge(in_vain);
        self.all.charge(in_vain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_is_charged_and_wears_off() {
        let (mut inflating, second) = (Inflating::default(), 1_000_000_000);
        inflating.begin(Inflation::default(), 5 * second, 0);
        assert_eq!(inflating.allowance(), 256 << 20);
        inflating.charge(8 << 20, 2);
        assert_eq!(inflating.allowance(), 256 << 20, "four mebibytes for each record");
        inflating.charge(300 << 20, 0);
        assert_eq!(inflating.allowance(), 0);
        let one = inflating.end();
        inflating.begin(Inflation::default(), 5 * second, 0);
        assert_eq!(inflating.allowance(), 256 << 20, "another connection");
        for (now, left) in [(5, 0), (7, 0), (8, 4 << 20), (100, 256 << 20), (6, 0)] {
            inflating.begin(one, now * second, 0);
            assert_eq!(inflating.allowance(), left, "after {now} s");
        }
    }

    #[test]
    fn many_connections_share_a_bound() {
        let mut inflating = Inflating::default();
        for _ in 0..5 {
            inflating.begin(Inflation::default(), 1, 0);
            inflating.charge(250 << 20, 0);
        }
        inflating.begin(Inflation::default(), 1, 0);
        assert_eq!(inflating.allowance(), 0);
        inflating.begin(Inflation::default(), 10_000_000_001, 0);
        assert_eq!(inflating.allowance(), 256 << 20);
    }
}
