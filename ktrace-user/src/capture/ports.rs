//! The ports on which Kafka is looked for.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// What `auto` stands for.
const AUTO: RangeInclusive<u16> = 9092..=9094;

/// A set of TCP ports, written as numbers and ranges: `9092-9094,19092`, or `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<RangeInclusive<u16>>,
}

/// A part of a port list that is neither a port nor a range.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{part}` is neither a port (1-65535) nor a range such as 9092-9094")]
pub struct PortSetError {
    part: String,
}

impl PortSet {
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self { ranges: vec![AUTO] }
    }
}

impl FromStr for PortSet {
    type Err = PortSetError;

    fn from_str(text: &str) -> Result<Self, PortSetError> {
        let ranges = text.split(',').map(|part| match part.trim() {
            "auto" => Ok(AUTO),
            part => range(part).ok_or_else(|| PortSetError { part: part.to_owned() }),
        });
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }
}

fn range(part: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ranges_and_auto() {
        let ports: PortSet = "19092, 9092-9093".parse().unwrap();
        assert!(ports.contains(9093) && ports.contains(19092) && !ports.contains(9094));
        assert_eq!(ports.to_string(), "19092,9092-9093");
        assert_eq!("auto".parse::<PortSet>().unwrap(), PortSet::default());
    }

    #[test]
    fn the_bad_part_is_named() {
        for (text, part) in
            [("9092,kafka", "kafka"), ("0", "0"), ("9-1", "9-1"), ("", ""), ("70000", "70000")]
        {
            assert_eq!(text.parse::<PortSet>(), Err(PortSetError { part: part.to_owned() }));
        }
    }
}
