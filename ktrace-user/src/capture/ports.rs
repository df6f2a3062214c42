//! Kafka's ports, as users write them: `9092`, `9092-9094,19092`, `auto`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of TCP ports, or wherever Kafka is spoken. Its text form is a list of numbers and ranges, or `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet {
    auto: bool,
    /// Sorted, neither overlapping nor touching, none empty.
    ranges: Vec<RangeInclusive<u16>>,
}

/// Why a list of ports was not understood; names the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    #[error("no ports given; write numbers and ranges such as 9092-9094,19092, or auto")]
    Empty,
    #[error("{part:?} is not a port: ports are numbers from 1 to 65535")]
    NotAPort { part: String },
    #[error("the range {part:?} runs backwards")]
    Backwards { part: String },
}

impl PortSet {
    /// Ports that are Kafka's by convention: those of its own examples and of the large providers. Where Kafka is recognised on any port, they
    /// tell for what cannot be recognised: TLS.
    pub const CONVENTIONAL: RangeInclusive<u16> = 9092..=9098;

    /// Whether Kafka is to be recognised on any port.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        self.auto
    }

    /// Whether `port` is in the set; of `auto`, whether it is one by convention.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }

    /// All ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().cloned().flatten()
    }

    fn from_ranges(auto: bool, mut ranges: Vec<RangeInclusive<u16>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self { auto, ranges: merged }
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self { auto: true, ranges: vec![Self::CONVENTIONAL] }
    }
}

impl FromStr for PortSet {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let mut ranges = Vec::new();
        let mut auto = false;
        for part in text.split(',').map(str::trim) {
            if part.is_empty() && text.trim().is_empty() {
                return Err(PortsError::Empty);
            }
            if part.eq_ignore_ascii_case("auto") {
                auto = true;
                ranges.push(Self::CONVENTIONAL);
                continue;
            }
            let not_a_port = || PortsError::NotAPort { part: part.to_owned() };
            let port = |digits: &str| match digits.trim().parse::<u16>() {
                Ok(port) if port != 0 => Ok(port),
                _ => Err(not_a_port()),
            };
            let range = match part.split_once('-') {
                Some((first, last)) => port(first)?..=port(last)?,
                None => {
                    let port = port(part)?;
                    port..=port
                }
            };
            if range.is_empty() {
                return Err(PortsError::Backwards { part: part.to_owned() });
            }
            ranges.push(range);
        }
        Ok(Self::from_ranges(auto, ranges))
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.auto {
            return f.write_str("auto");
        }
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if range.start() == range.end() {
                write!(f, "{}", range.start())?;
            } else {
                write!(f, "{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        for (text, shown) in [
            ("9092", "9092"),
            ("9092-9094,19092", "9092-9094,19092"),
            (" 19092 , 9092 - 9094 ", "9092-9094,19092"),
            ("auto", "auto"),
            ("AUTO,9095", "auto"),
            ("1-65535,80", "1-65535"),
            ("5,4,3,3", "3-5"),
            ("65535,65535", "65535"),
        ] {
            assert_eq!(text.parse::<PortSet>().map(|set| set.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn errors_name_the_part() {
        let not_a_port = |part: &str| PortsError::NotAPort { part: part.to_owned() };
        for (text, error) in [
            ("", PortsError::Empty),
            ("  ", PortsError::Empty),
            ("9092,kafka", not_a_port("kafka")),
            ("9092,", not_a_port("")),
            ("0", not_a_port("0")),
            ("70000", not_a_port("70000")),
            ("1-2-3", not_a_port("1-2-3")),
            ("9094-9092", PortsError::Backwards { part: "9094-9092".to_owned() }),
        ] {
            assert_eq!(text.parse::<PortSet>(), Err(error), "{text}");
        }
    }

    #[test]
    fn membership() {
        let set: PortSet = "9092-9093,19092".parse().unwrap();
        assert!(set.contains(9092) && set.contains(9093) && set.contains(19092));
        assert!(!set.contains(9091) && !set.contains(9094));
        assert_eq!(set.iter().collect::<Vec<_>>(), [9092, 9093, 19092]);
    }
}
