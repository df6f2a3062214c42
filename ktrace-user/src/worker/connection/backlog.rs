//! What a client reads that was in the log before it began to read: a service that restores its
//! state or begins at the earliest offset is not late, it catches up.
//!
//! A client begins where the log begins, or where ListOffsets says that it begins or ends. One that
//! goes on where its group stands asks for nothing of that, nor does one that has lost its
//! connection: what such a client gets late is late. And what was appended since it began is late,
//! however far behind it is.

use std::collections::HashMap;

use ktrace_kafka::{Began, Operation, Partition};

use crate::hop::Topic;
use crate::hop::stamp::Stamp;

/// Partitions of a connection of which it is known how their reader began; with more, that is found
/// out anew.
const MAX_PARTITIONS: usize = 1024;

/// What is younger than this when a client begins is not called old: a service that was started
/// with its producers, or a little after them, begins at the log's first offset, too.
const OLD_NS: u64 = 10_000_000_000;

/// With more messages than this before the log's end a client is far behind, however young they
/// are.
const FAR: i64 = 1000;

/// What is younger is not called old even then: clocks differ, and a first request may be held
/// until something comes.
const LEAST_OLD_NS: u64 = 1_000_000_000;

/// Messages that were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Backlog {
    /// When the client began.
    began_ns: u64,
    /// What was this old then is old.
    old_ns: u64,
    /// Where the log ended then.
    log_end: i64,
}

impl Backlog {
    /// Whether a message is among them that passes now.
    #[inline]
    pub fn has(self, offset: i64, timestamp_ms: i64, now_ns: u64) -> bool {
        offset < self.log_end
            && match Stamp::of(timestamp_ms, now_ns) {
                Stamp::At(ns) => ns.saturating_add(self.old_ns) <= self.began_ns,
                // By its offset it was there.
                Stamp::Missing | Stamp::Implausible => true,
            }
    }

    /// Whether what was sent at this time may have been there.
    pub fn may_have(self, sent_ns: u64) -> bool {
        sent_ns < self.began_ns
    }
}

/// How a connection's client began to read partitions, and when: whether from where their logs
/// begin, or end.
#[derive(Default)]
pub(in crate::worker) struct Begun(HashMap<(Topic, i32), (u64, bool)>);

impl Begun {
    /// Partitions of which it is known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the client began to read a partition, if what it gets may have been there before.
    pub fn of(partition: &Partition<'_>) -> Option<Began> {
        let Operation::Fetch { fetch_offset, began: Some(began), .. } = partition.operation else {
            return None;
        };
        (began.offset < began.log_end && fetch_offset < began.log_end).then_some(began)
    }

    /// What was there before, where the client reads it anew. `listed` is what ListOffsets said
    /// before it first asked, `is_free` that it reads for no known group.
    pub fn backlog(
        &mut self,
        place: (Topic, i32),
        began: Began,
        listed: Option<i64>,
        is_free: bool,
    ) -> Option<Backlog> {
        let is_anew = match self.0.get(&place) {
            Some((ns, is_anew)) if *ns == began.ns => *is_anew,
            _ => {
                let is_anew =
                    began.is_log_start || listed.is_some_and(|offset| offset == began.offset || is_free);
                if self.0.len() >= MAX_PARTITIONS {
                    self.0.clear();
                }
                self.0.insert(place, (began.ns, is_anew));
                is_anew
            }
        };
        let is_far = began.log_end.saturating_sub(began.offset) >= FAR;
        let old_ns = if is_far { LEAST_OLD_NS } else { OLD_NS };
        is_anew.then_some(Backlog { began_ns: began.ns, old_ns, log_end: began.log_end })
    }
}
