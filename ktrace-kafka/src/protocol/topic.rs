//! A topic, by its name or by its id, and a partition of one.

/// A topic as the wire names it: by name, or (Produce 13, Fetch 13 and later, KIP-516) by id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(u128),
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicPartition<'a> {
    /// The topic.
    pub topic: Topic<'a>,
    /// Its number in the topic.
    pub partition: i32,
}
