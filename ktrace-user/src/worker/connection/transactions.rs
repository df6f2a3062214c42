//! What the exchanges of a connection say of transactions: how far it has brought partitions with
//! transactions, the markers that end them, and the producers that end theirs on it.

use std::collections::HashMap;

use crate::hop::Topic;
use crate::hop::transactions::{Producer, State};

/// Partitions of one connection that are followed, and producers, and partitions with markers.
const MAX_PARTITIONS: usize = 1024;

/// Partitions of an exchange from which a client reads elsewhere than it has. With more, nothing of
/// the exchange is followed, as each means to look through all that waits.
const MAX_LEFT: u32 = 256;

/// A partition, named as the wire names it: a name may come later.
pub(in crate::worker) type Place = (Topic, i32);

/// Markers by partition and producer; each with its offset, in order.
pub(in crate::worker) type Markers = HashMap<(Topic, i32, i64), Vec<(i64, State)>>;

/// How many partitions of the current exchange the client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Left {
    Few,
    /// It has just become too many.
    Many,
    TooMany,
}

/// Bounded: see the constants above for what is given up beyond them.
#[derive(Default)]
pub(in crate::worker) struct Transactions {
    /// Behind what the connection has brought of partitions with transactions, where the client
    /// reads uncommitted messages too.
    read_to: HashMap<Place, i64>,
    /// Those of the current exchanges.
    markers: Markers,
    left: u32,
    /// Who ends transactions on this connection.
    producers: Vec<Producer>,
}

impl Transactions {
    /// An exchange begins.
    pub fn begin_exchange(&mut self) {
        self.left = 0;
    }

    /// Whether no partition is followed.
    pub fn follows_none(&self) -> bool {
        self.read_to.is_empty()
    }

    /// Partitions that are followed.
    pub fn partitions(&self) -> usize {
        self.read_to.len()
    }

    /// Producers that end transactions here, as a number.
    pub fn producers_len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nothing lies between what the connection has brought of a partition and this offset.
    pub fn goes_on(&self, place: &Place, offset: i64) -> bool {
        offset >= 0 && self.read_to.get(place).is_some_and(|end| offset <= *end)
    }

    /// The connection has brought a partition up to this offset. Returns whether there is room to
    /// follow it.
    #[must_use]
    pub fn advance(&mut self, place: &Place, offset: i64) -> bool {
        if let Some(end) = self.read_to.get_mut(place) {
            *end = offset.max(*end);
            return true;
        }
        let has_room = self.read_to.len() < MAX_PARTITIONS;
        if has_room {
            self.read_to.insert(place.clone(), offset);
        }
        has_room
    }

    /// Follows no partition any more.
    pub fn follow_none(&mut self) {
        self.read_to.clear();
    }

    /// Gives the memory back, too.
    pub fn shed(&mut self) {
        self.read_to = HashMap::new();
    }

    /// The client reads a partition elsewhere than it has. `None` if it was not followed.
    pub fn leave(&mut self, place: &Place) -> Option<Left> {
        self.read_to.remove(place)?;
        self.left = self.left.saturating_add(1);
        Some(match self.left {
            ..MAX_LEFT => Left::Few,
            MAX_LEFT => Left::Many,
            _ => Left::TooMany,
        })
    }

    /// Whether the current exchange is not followed.
    pub fn has_left_many(&self) -> bool {
        self.left >= MAX_LEFT
    }

    /// Adds a marker.
    pub fn mark(&mut self, topic: Topic, partition: i32, producer_id: i64, marker: (i64, State)) {
        self.markers.entry((topic, partition, producer_id)).or_default().push(marker);
    }

    /// Whether there is no room for the marker of one more partition.
    pub fn has_many_markers(&self) -> bool {
        self.markers.len() >= MAX_PARTITIONS
    }

    /// Takes the markers, if there are any.
    #[inline]
    pub fn take_markers(&mut self) -> Option<Markers> {
        (!self.markers.is_empty()).then(|| std::mem::take(&mut self.markers))
    }

    /// A producer speaks of its transactions here.
    pub fn coordinates(&mut self, producer: &Producer) {
        if self.producers.len() < MAX_PARTITIONS && !self.producers.contains(producer) {
            self.producers.push(producer.clone());
        }
    }

    /// Those that do.
    pub fn producers(&self) -> Vec<Producer> {
        self.producers.clone()
    }
}
