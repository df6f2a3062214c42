//! Medians of few measurements, and how sure they are.

use std::fmt;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|known| known.total_cmp(&value).is_lt());
        self.0.insert(at, value);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// 0 where there is none.
    pub fn median(&self) -> f64 {
        let (low, high) = (self.at(self.len().saturating_sub(1) / 2), self.at(self.len() / 2));
        (low + high) / 2.0
    }

    /// Where the true median is with a probability of at least 95 %, whatever the distribution:
    /// between two of the measurements, as many from either end as the sign test allows. All of
    /// them where they are fewer than six.
    pub fn interval(&self) -> (f64, f64) {
        let n = self.len();
        let mut from_end = 0;
        let (mut ways, mut sum) = (1.0, 0.0);
        for k in 0..n / 2 {
            // the number of ways for at most k of n to lie below the median
            sum += ways;
            if 2.0 * sum / 2_f64.powi(n as i32) > 0.05 {
                break;
            }
            from_end = k;
            ways = ways * (n - k) as f64 / (k + 1) as f64;
        }
        (self.at(from_end), self.at(n.saturating_sub(1 + from_end)))
    }

    fn at(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.push(value));
        sample
    }
}

/// `0.981 [0.974, 0.990] 0.968–0.997`: median, its 95 % interval, least and most.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.interval();
        let (least, most) = (self.at(0), self.at(self.len().saturating_sub(1)));
        write!(f, "{:.3} [{low:.3}, {high:.3}] {least:.3}–{most:.3}", self.median())
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    fn first(count: u32) -> Sample {
        (1..=count).rev().map(f64::from).collect()
    }

    #[test]
    fn medians() {
        assert_eq!(first(0).median(), 0.0);
        assert_eq!(first(1).median(), 1.0);
        assert_eq!(first(10).median(), 5.5);
        assert_eq!(first(11).median(), 6.0);
    }

    /// As tables of the sign test have them.
    #[test]
    fn intervals() {
        assert_eq!(first(5).interval(), (1.0, 5.0));
        assert_eq!(first(6).interval(), (1.0, 6.0));
        assert_eq!(first(10).interval(), (2.0, 9.0));
        assert_eq!(first(20).interval(), (6.0, 15.0));
    }
}
