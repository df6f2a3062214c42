//! Where the current records stand: one partition of one exchange, and what all of them share.

use std::collections::HashMap;
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::{Head, Operation, Partition};

use super::backlog::Backlog;
use super::in_flight::Delay;
use crate::hop::attempts::Message;
use crate::hop::chains::Read;
use crate::hop::groups::{self, Reader};
use crate::hop::own::Watch;
use crate::hop::transactions::Transaction;
use crate::hop::{Parties, Topic};
use crate::worker::deliveries::Run;
use crate::worker::own_telemetry::Found;
use crate::worker::stage::awaiting_group::LateRun;

/// Made at the first record of a partition, and gone when records of another partition or exchange
/// come.
pub(in crate::worker) struct PartitionCursor {
    pub request_seq: u32,
    pub correlation_id: i32,
    pub index: i32,
    /// As the wire names it, where that is an id.
    pub id: Option<u128>,
    pub topic: Topic,
    pub reader: Reader,
    /// Put together when the first of the records is shown.
    pub parties: Option<Arc<Parties>>,
    /// The current batch, where transactions are followed.
    pub batch: Option<i64>,
    /// That of the current batch, if it is a part of one.
    pub transaction: Option<Arc<Transaction>>,
    /// Messages whose attempts failed were to go here.
    pub may_be_sent_again: bool,
    /// How many there are of each that may be one that was sent before.
    pub alike: HashMap<Message, u32>,
    /// What the group gets.
    pub run: Option<Run>,
    /// What its process gets, where that may make it send something.
    pub reads: Vec<Read>,
    /// In its place, while the group is unknown.
    pub late: Option<Box<LateRun>>,
    /// When it was sent, or is.
    pub delay: Option<Delay>,
    /// Which of the values are looked at for ktrace's own telemetry, and what was found.
    pub watch: Watch,
    pub found: Found,
    /// What of it was there before its reader, where that reads it anew.
    pub backlog: Option<Backlog>,
}

impl PartitionCursor {
    /// Whether a record stands here too.
    #[inline]
    pub fn is_at(&self, head: &Head<'_>, partition: &Partition<'_>) -> bool {
        let same_topic = match partition.topic {
            kafka::Topic::Id(id) => self.id == Some(id),
            kafka::Topic::Name(name) => match &self.topic {
                Topic::Named(known) => self.id.is_none() && *known.name == *name,
                Topic::Id(_) => false,
            },
        };
        same_topic
            && self.index == partition.index
            && self.correlation_id == head.correlation_id
            && self.request_seq == head.request_seq
    }

    /// A record of this offset comes.
    #[inline]
    pub fn advance(&mut self, offset: i64) {
        if let Some(late) = &mut self.late {
            late.deliver(offset);
        }
        if let Some(run) = &mut self.run {
            run.deliver(offset);
        }
    }

    /// The current record carries ktrace's own telemetry.
    pub fn own(&mut self, offset: i64) {
        if let Some(late) = &mut self.late {
            late.deliver_own(offset);
        }
        if let Some(run) = &mut self.run {
            run.deliver_own(offset);
        }
    }

    /// How many like this were here before it.
    pub fn nth(&mut self, message: Message) -> u32 {
        let count = self.alike.entry(message).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    /// Which delivery to its group that of the current record is, and whether it comes after later
    /// ones.
    pub fn times(&self, operation: Operation<'_>) -> (Option<u32>, bool) {
        match (operation, &self.run) {
            (Operation::ShareFetch { delivery_count, .. }, _) => (u32::try_from(delivery_count).ok(), false),
            (_, Some(run)) => {
                let (times, is_behind) = run.times();
                (Some(times), is_behind)
            }
            (_, None) => (None, false),
        }
    }
}

/// A partition by all names of its topic: as the wire has it, and as it is known.
pub(in crate::worker) fn named<'a>(
    topic: kafka::Topic<'_>,
    known: &'a Topic,
    partition: i32,
) -> groups::TopicPartition<'a> {
    let id = match topic {
        kafka::Topic::Id(id) => Some(id),
        kafka::Topic::Name(_) => None,
    };
    let name = match known {
        Topic::Named(topic) => Some(&*topic.name),
        Topic::Id(_) => None,
    };
    groups::TopicPartition { id, name, partition }
}
