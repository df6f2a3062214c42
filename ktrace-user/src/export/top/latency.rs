//! Percentiles of the last seconds, in bounded memory.

use hdrhistogram::Histogram;

/// Significant digits: an error of less than a hundredth.
const DIGITS: u8 = 2;
/// Some 35 years: longer than any age that can be one, as no timestamp before 2001 is. So a
/// histogram has 27 KB at most.
const MOST_US: u64 = 1 << 50;
/// A histogram is filled for this many turns, and shown for as many more: it covers the last 5 to
/// 10 seconds.
const TURNS: u32 = 5;

/// Latencies of the last seconds.
#[derive(Default)]
pub struct Latency {
    /// The histogram that is filled; none while there is nothing to add.
    now: Option<Histogram<u32>>,
    /// The one before.
    before: Option<Histogram<u32>>,
    turns: u32,
}

impl Latency {
    pub fn add(&mut self, us: u64) {
        if self.now.is_none() {
            self.now = Histogram::new(DIGITS).ok();
        }
        if let Some(now) = &mut self.now {
            // It grows up to there.
            let _ = now.record(us.min(MOST_US));
        }
    }

    /// Median and 99th percentile.
    pub fn turn(&mut self) -> Option<[u64; 2]> {
        let shown = match (&self.now, &self.before) {
            (Some(now), Some(before)) => {
                let mut both = before.clone();
                both.add(now).ok()?;
                Some(percentiles(&both))
            }
            (Some(one), None) | (None, Some(one)) => Some(percentiles(one)),
            (None, None) => None,
        };
        self.turns += 1;
        if self.turns >= TURNS {
            (self.turns, self.before) = (0, self.now.take());
        }
        shown
    }
}

fn percentiles(of: &Histogram<u32>) -> [u64; 2] {
    [0.5, 0.99].map(|share| of.value_at_quantile(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_months_are_no_day() {
        let (mut latency, two_months) = (Latency::default(), 60 * 24 * 3600 * 1_000_000);
        latency.add(two_months);
        let [median, _] = latency.turn().unwrap();
        assert!(median.abs_diff(two_months) < two_months / 100, "{median}");
    }

    #[test]
    fn percentiles_are_of_the_last_seconds() {
        let mut latency = Latency::default();
        assert_eq!(latency.turn(), None);
        (1..=1000).for_each(|us| latency.add(us));
        let [median, most] = latency.turn().unwrap();
        assert!((495..=505).contains(&median) && (980..=1000).contains(&most), "{median} {most}");
        (0..3 * TURNS).for_each(|_| latency.add(u64::MAX));
        let [_, most] = latency.turn().unwrap();
        assert!(most.abs_diff(MOST_US) < MOST_US / 100, "{most}");
        for _ in 0..2 * TURNS {
            latency.turn();
        }
        assert_eq!(latency.turn(), None);
    }
}
