//! What agents say that they have lost, or could not read, summed over the runs of a measurement.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

#[derive(Debug, Default)]
pub struct Losses(BTreeMap<String, u64>);

impl Losses {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what a summary reports.
    pub fn add(&mut self, summary: &Value) {
        for what in ["lost", "malformed"] {
            for (reason, count) in summary[what].as_object().into_iter().flatten() {
                self.count(reason, count.as_u64().unwrap_or_default());
            }
        }
    }

    pub fn count(&mut self, reason: &str, count: u64) {
        if count > 0 {
            *self.0.entry(reason.to_owned()).or_default() += count;
        }
    }
}

/// `0`, or each reason with its count.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("0");
        }
        let reasons: Vec<_> = self.0.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        f.write_str(&reasons.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Losses;

    #[test]
    fn sums() {
        let mut losses = Losses::default();
        assert_eq!(losses.to_string(), "0");
        for _ in 0..2 {
            losses.add(&json!({"lost": {"gap": 3, "ring_full": 0}, "malformed": {"frame": 1}}));
        }
        assert_eq!(losses.to_string(), "2 frame, 6 gap");
    }
}
