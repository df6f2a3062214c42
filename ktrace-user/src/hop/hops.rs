//! A batch of hops on its way to a sink: what neighbours share is stored once.
//!
//! A hop goes from a worker's thread to a sink's. The reference counts of what it shares would
//! bounce between two processors with every hop; so they are touched once for a run of hops that
//! share it, most often those of an exchange.

use std::slice;
use std::sync::Arc;

use super::{Hop, Parties, Passage, Topic, TopicName, shown};
use crate::span::Span;

/// A batch of hops, in order, run-length encoded by what they share.
#[derive(Debug, Default)]
pub struct Hops {
    runs: Vec<HopRun>,
    passages: Vec<Passage>,
}

/// A run of neighbours that share their parties and their topic.
#[derive(Debug)]
struct HopRun {
    parties: Arc<Parties>,
    /// As it is shown.
    topic: Arc<TopicName>,
    /// The topic's id, where that is all that is known of it.
    unnamed: Option<u128>,
    len: usize,
}

impl HopRun {
    fn takes(&self, hop: &Hop) -> bool {
        let topic = match &hop.topic {
            Topic::Named(name) => self.unnamed.is_none() && Arc::ptr_eq(name, &self.topic),
            Topic::Id(id) => self.unnamed == Some(*id),
        };
        topic && Arc::ptr_eq(&hop.parties, &self.parties)
    }
}

impl Hops {
    /// Adds a hop at the end.
    pub fn push(&mut self, hop: Hop) {
        match self.runs.last_mut() {
            Some(run) if run.takes(&hop) => run.len = run.len.saturating_add(1),
            _ => {
                let unnamed = match hop.topic {
                    Topic::Named(_) => None,
                    Topic::Id(id) => Some(id),
                };
                self.runs.push(HopRun { topic: shown(&hop.topic), parties: hop.parties, unnamed, len: 1 });
            }
        }
        self.passages.push(hop.passage);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// Empties the batch; its capacity stays.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.passages.clear();
    }

    /// All of them, in their order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { runs: self.runs.iter(), run: None, left: 0, passages: self.passages.iter() }
    }

    /// The spans that show them.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span<'_>> {
        self.iter().map(HopRef::span)
    }
}

/// One of [`Hops`].
#[derive(Clone, Copy, Debug)]
pub struct HopRef<'a> {
    pub parties: &'a Arc<Parties>,
    /// As it is shown.
    pub topic: &'a Arc<TopicName>,
    pub passage: &'a Passage,
    unnamed: Option<u128>,
}

impl<'a> HopRef<'a> {
    /// The span that shows it.
    #[must_use]
    pub fn span(self) -> Span<'a> {
        self.passage.span(self.parties, self.topic, self.unnamed.is_none())
    }

    /// A hop of its own.
    #[must_use]
    pub fn to_hop(self) -> Hop {
        let topic = self.unnamed.map_or_else(|| Topic::Named(Arc::clone(self.topic)), Topic::Id);
        Hop { parties: Arc::clone(self.parties), topic, passage: self.passage.clone() }
    }
}

/// Iterates over [`Hops`].
#[derive(Debug)]
pub struct Iter<'a> {
    runs: slice::Iter<'a, HopRun>,
    run: Option<&'a HopRun>,
    /// Hops of the current run that are still to come.
    left: usize,
    passages: slice::Iter<'a, Passage>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = HopRef<'a>;

    fn next(&mut self) -> Option<HopRef<'a>> {
        let passage = self.passages.next()?;
        if self.left == 0 {
            self.run = self.runs.next();
            self.left = self.run?.len;
        }
        self.left = self.left.saturating_sub(1);
        let HopRun { parties, topic, unnamed, .. } = self.run?;
        Some(HopRef { parties, topic, passage, unnamed: *unnamed })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.passages.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn neighbours_share_and_all_are_shown_in_order() {
        let (mut hops, one, two) = (Hops::default(), samples::sent(), samples::delivered());
        let unnamed = Hop { topic: Topic::Id(7), ..one.clone() };
        for hop in [&one, &one, &two, &one, &unnamed, &unnamed, &two] {
            hops.push(hop.clone());
        }
        let lens: Vec<_> = hops.runs.iter().map(|run| run.len).collect();
        assert_eq!(lens, [2, 1, 1, 2, 1]);
        let names: Vec<_> = hops.spans().map(|span| span.name).collect();
        let id = "send AAAAAAAAAAAAAAAAAAAABw";
        assert_eq!(
            names,
            ["send orders", "send orders", "poll orders", "send orders", id, id, "poll orders"]
        );
        assert_eq!((hops.len(), hops.spans().len()), (7, 7));
        let again: Vec<_> = hops.iter().map(HopRef::to_hop).collect();
        assert!(again.iter().eq([&one, &one, &two, &one, &unnamed, &unnamed, &two]));
        hops.clear();
        assert!(hops.is_empty() && hops.spans().next().is_none());
    }
}
