//! Produce: what was sent, with the offsets that the broker gave.

use super::read::Read;
use crate::connection::record_set::{Offsets, Place, count_unread, read_batch, read_message, stamp};
use crate::connection::scratch::Scratch;
use crate::counters::Malformed;
use crate::protocol::answers::Answers;
use crate::protocol::list::List;
use crate::protocol::produce::{Appended, Produced, Request, Response};
use crate::protocol::reader::{Reader, Result};
use crate::protocol::topic::TopicPartition;
use crate::record::Record;
use crate::record::set::{Batches, Next};
use crate::sink::{Head, Operation, Partition, Sink};

/// "The server disconnected before a response was received."
const NETWORK_EXCEPTION: i16 = 13;

pub fn emit<S: Sink>(exchange: &Read<'_>, scratch: &mut Scratch, sink: &mut S) -> Result<()> {
    let head = exchange.head;
    let request: Request<'_> = exchange.request()?;
    let mut topics = List::empty();
    if head.response.is_some() {
        let response: Response<'_> = exchange.response()?;
        if let Ok(ms @ 1..) = u32::try_from(response.throttle_ms) {
            sink.throttled(head, ms);
        }
        topics = response.topics;
    }
    let mut answers = Answers::new(
        topics.partitions().map(|(topic, of)| (TopicPartition { topic, partition: of.partition }, of)),
    );
    for (topic, produced) in request.topics.partitions() {
        let appended = answers.of(TopicPartition { topic, partition: produced.partition });
        let unanswered = if head.response.is_none() && request.acks != 0 { NETWORK_EXCEPTION } else { 0 };
        let partition = Partition {
            topic,
            index: produced.partition,
            operation: Operation::Produce { acks: request.acks, transactional_id: request.transactional_id },
            error: appended.map_or(unanswered, |appended| appended.error),
        };
        emit_partition(head, &partition, &produced, appended, scratch, sink);
    }
    Ok(())
}

/// A request that waits for its response.
pub fn announce<S: Sink>(head: &Head<'_>, mut body: Reader<'_>, sink: &mut S) {
    // What cannot be read is refused when its response comes.
    let _ = Request::each_partition(head.version, &mut body, |topic, partition| {
        sink.sends(head, topic, partition);
    });
}

fn emit_partition<S: Sink>(
    head: &Head<'_>,
    partition: &Partition<'_>,
    produced: &Produced<'_>,
    appended: Option<Appended>,
    scratch: &mut Scratch,
    sink: &mut S,
) {
    let base = appended.filter(|appended| appended.error == 0 && appended.base_offset >= 0);
    let mut first_offset = None;
    let mut at = Place::START;
    for next in Batches::new(produced.records) {
        count_unread(&next, &mut scratch.counters);
        let mut batch = match next {
            Next::Batch(batch) => batch,
            Next::Message(message) => {
                read_message(&message, Offsets::Given(base), &mut at, scratch, |batch, record| {
                    sink.record(head, partition, batch, record);
                });
                continue;
            }
            Next::Cut | Next::UnknownMagic(_) | Next::Malformed => {
                // Only a slice of the log may end inside a batch.
                if next == Next::Cut {
                    scratch.counters.refuse(Malformed::Batch);
                }
                at.lose();
                continue;
            }
        };
        // The broker's offsets take the place of the producer's, which begin at 0.
        let first = *first_offset.get_or_insert(batch.base_offset);
        if let Some(base) = base {
            batch.base_offset = base.base_offset.wrapping_add(batch.base_offset.wrapping_sub(first));
            stamp(&mut batch, base);
        }
        let whole = read_batch(&batch, scratch, |record| {
            at.pass();
            match base {
                Some(_) => sink.record(head, partition, &batch, record),
                None => sink.record(head, partition, &batch, &Record { offset: -1, ..*record }),
            }
        });
        if !whole {
            at.lose();
        }
    }
}
