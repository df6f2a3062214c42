//! A topic, by its name or by its id.

/// A topic as the wire names it: by name, or (Produce 13, Fetch 13 and later, KIP-516) by id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    Name(&'a str),
    Id(u128),
}
