//! The way back from a delivery, as it follows from the spans alone.

use std::collections::{HashMap, HashSet};

use super::inferred;
use crate::spans::{Link, Span};

/// Spans by their ids.
#[derive(Debug)]
pub struct Ways<'a> {
    by_id: HashMap<(&'a str, &'a str), &'a Span>,
}

impl<'a> Ways<'a> {
    #[must_use]
    pub fn new(spans: &'a [Span]) -> Self {
        Self {
            by_id: spans.iter().map(|span| ((span.trace_id.as_str(), span.span_id.as_str()), span)).collect(),
        }
    }

    /// The spans before this one, the nearest first: from a `poll` to its message's `send`, from
    /// there by an inferred link.
    #[must_use]
    pub fn back(&self, from: &'a Span) -> Vec<&'a Span> {
        let mut way = Vec::new();
        let mut passed = HashSet::new();
        let mut next = self.before(from);
        while let Some(span) = next.filter(|span| passed.insert((&span.trace_id, &span.span_id))) {
            way.push(span);
            next = self.before(span);
        }
        way
    }

    fn before(&self, span: &'a Span) -> Option<&'a Span> {
        if span.operation() == "send" {
            return inferred(span).find_map(|link| self.at(link));
        }
        let parent = span.parent_span_id.as_deref();
        let parent = parent.and_then(|parent| self.by_id.get(&(span.trace_id.as_str(), parent)).copied());
        parent.or_else(|| span.links.iter().find_map(|link| self.at(link)))
    }

    fn at(&self, link: &Link) -> Option<&'a Span> {
        self.by_id.get(&(link.trace_id.as_str(), link.span_id.as_str())).copied()
    }
}
