//! Kafka's ports, as users write them: `9092`, `9092-9094,19092`, `auto`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of TCP ports, or wherever Kafka is spoken. Its text form is a list of numbers and ranges,
/// or `auto`.
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
    /// Ports that are Kafka's by convention: those of its own examples and of the large providers
    /// (9092 Confluent Cloud, 9093 Event Hubs and Strimzi, 9094 to 9098 Amazon MSK, the same with 1
    /// for its public ones; 19092 to 19094 where several brokers share a host, as Redpanda's
    /// examples have it). Where Kafka is recognised on any port, they decide where it cannot be
    /// recognised: inside TLS.
    pub const CONVENTIONAL: [RangeInclusive<u16>; 3] = [9092..=9098, 9192..=9198, 19092..=19094];

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

    /// Whether the user has named `port`. With `auto`, one that is in the set by convention counts
    /// as not named.
    #[must_use]
    pub fn names(&self, port: u16) -> bool {
        self.contains(port) && !(self.auto && Self::is_conventional(port))
    }

    fn is_conventional(port: u16) -> bool {
        Self::CONVENTIONAL.iter().any(|range| range.contains(&port))
    }

    /// This set where it is a part of `all`. `auto` is there what it is in `all`: all of it.
    ///
    /// # Errors
    /// The first port that `all` leaves out.
    pub fn within(&self, all: &Self) -> Result<Self, u16> {
        if all.auto {
            return Ok(self.clone());
        }
        match self.iter().find(|port| self.names(*port) && !all.contains(*port)) {
            Some(port) => Err(port),
            None if self.auto => Ok(all.clone()),
            None => Ok(self.clone()),
        }
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
        Self::from_ranges(true, Self::CONVENTIONAL.to_vec())
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
                ranges.extend(Self::CONVENTIONAL);
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

    #[test]
    fn a_part_of_another_set() {
        for (part, all, within) in [
            ("9093", "auto", Ok("9093")),
            ("auto,443", "auto", Ok("auto")),
            ("9093", "9092-9094", Ok("9093")),
            ("9092-9095", "9092-9094", Err(9095)),
            ("443", "9092", Err(443)),
            ("auto", "9092,443", Ok("443,9092")),
            ("auto,443", "9092", Err(443)),
        ] {
            let of = |text: &str| text.parse::<PortSet>().unwrap();
            let found = of(part).within(&of(all)).map(|set| set.to_string());
            assert_eq!(found, within.map(str::to_owned), "{part} within {all}");
        }
        let set = "auto,443".parse::<PortSet>().unwrap().within(&PortSet::default()).unwrap();
        assert!(set.contains(443) && set.contains(9194) && !set.contains(8443));
    }
}
