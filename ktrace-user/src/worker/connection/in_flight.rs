//! What a connection has sent and what it gets, for the time from one end to the other: requests on
//! their way, and when messages were sent.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrace_kafka::record::Record;

use crate::hop::appends::{self, Append, Found, Sent, Sought};
use crate::hop::{Kind, Passage, Topic};
use crate::worker::shared::Shared;

/// Partitions of a connection's requests that wait for their responses. With more, the oldest is
/// taken for one that does not; of one request, the partitions behind these are.
pub(in crate::worker) const MAX_ASKED: usize = 4096;

/// What one of them takes with its log, which others may have forgotten.
const ASKED_BYTES: usize = 384;

/// Logs that a connection remembers; most clients write to and read fewer partitions of a broker.
pub(in crate::worker) const MAX_LOOKED_UP: usize = 32;

/// Requests of a connection that send messages and wait for their responses, and the logs that they
/// go to.
#[derive(Default)]
pub(in crate::worker) struct InFlight {
    /// In their order, by the request's sequence number.
    pub waiting: VecDeque<(u32, appends::Shared)>,
    /// So many of them, from the first on, wait no longer.
    pub answered: usize,
    pub logs: Logs,
}

impl InFlight {
    /// What it takes, about.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        let places = self.waiting.capacity().saturating_mul(size_of::<(u32, appends::Shared)>());
        places.saturating_add(self.waiting.len().saturating_mul(ASKED_BYTES))
    }
}

/// Those that the connection's client has written to or read last.
#[derive(Default)]
pub(in crate::worker) struct Logs {
    pub looked_up: Vec<LookedUp>,
    /// Looked up for this cluster, when what is known of logs had this number.
    pub cluster: Option<Arc<str>>,
    pub number: u64,
}

pub(in crate::worker) struct LookedUp {
    pub topic: Topic,
    /// As the wire names it, where that is an id.
    pub id: Option<u128>,
    pub partition: i32,
    pub log: Option<appends::Shared>,
}

/// When messages of the current partition were sent, noted or searched for.
pub(in crate::worker) struct Delay {
    pub log: appends::Shared,
    /// What was sent, as far as it is one behind the other.
    pub append: Option<Append>,
    /// What was found of what was delivered.
    pub found: Found,
}

impl Delay {
    /// When a message that is delivered was sent.
    #[inline(always)]
    pub(in crate::worker) fn sent(
        &mut self,
        record: &Record<'_>,
        delivered_ns: u64,
        now_ns: u64,
        shared: &Shared,
    ) -> Sent {
        if !self.found.is_of(record.offset) {
            self.find(record.offset, delivered_ns, now_ns, shared);
        }
        self.found.sent(record.timestamp_ms, &self.log)
    }

    #[cold]
    fn find(&mut self, offset: i64, delivered_ns: u64, now_ns: u64, shared: &Shared) {
        let (several, after) = (shared.is_read_by_several(), self.found.place());
        self.found = self.log.find(Sought { offset, delivered_ns, now_ns: Some(now_ns), several, after });
    }

    /// No more records come for now.
    pub(in crate::worker) fn settle(self, shared: &Shared) {
        if let Some(append) = self.append {
            shared.appends.append(&self.log, append);
        }
    }
}

/// Looks again for who has sent a message, for the last time where `now_ns` is `None`.
pub(in crate::worker) fn look_again(passage: &mut Passage, now_ns: Option<u64>, several: bool) {
    let Kind::Delivered { sent, is_catching_up, .. } = &mut passage.kind else { return };
    let (Sent::Sought(log), Some(offset)) = (&*sent, passage.offset) else { return };
    let found = log.find(Sought { offset, delivered_ns: passage.end_ns, now_ns, several, after: 0 });
    *sent = found.sent(passage.timestamp_ms, log);
    // Its producer was being answered when it came: it was not there before.
    *is_catching_up &= !matches!(sent, Sent::At(_));
}
