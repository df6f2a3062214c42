//! ShareFetch: what a member of a share group acquired, and what it acknowledged.

use super::read::Read;
use crate::connection::record_set::{Place, read_fetched};
use crate::connection::scratch::Scratch;
use crate::protocol::event::Event;
use crate::protocol::reader::Result;
use crate::protocol::share_fetch::{Acquired, Fetched, Request, Response, emit_acknowledged};
use crate::protocol::topic::Topic;
use crate::record::set::{Batches, Next};
use crate::sink::{Head, Operation, Partition, Sink};

pub fn emit<S: Sink>(exchange: &Read<'_>, scratch: &mut Scratch, sink: &mut S) -> Result<()> {
    let head = exchange.head;
    let request: Request<'_> = exchange.request()?;
    let response: Response<'_> = exchange.response()?;
    emit_acknowledged(&request, &response, &mut |event| sink.event(head, event));
    let group_id = request.group_id;
    let refuses = |topic, partition, error| Event::Refused { topic, partition, offset: -1, group_id, error };
    if response.error_code != 0 {
        sink.event(head, &refuses(None, None, response.error_code));
    }
    for (topic, fetched) in response.topics.partitions() {
        if fetched.error_code != 0 {
            sink.event(head, &refuses(Some(topic), Some(fetched.partition), fetched.error_code));
        }
        emit_partition(head, &request, topic, &fetched, scratch, sink);
    }
    Ok(())
}

fn emit_partition<S: Sink>(
    head: &Head<'_>,
    request: &Request<'_>,
    topic: Topic<'_>,
    fetched: &Fetched<'_>,
    scratch: &mut Scratch,
    sink: &mut S,
) {
    let acquired = Ranges::new(fetched.acquired.iter());
    let mut place = Place::START;
    for next in Batches::new(fetched.records) {
        if matches!(&next, Next::Batch(batch) if batch.is_control()) {
            continue;
        }
        read_fetched(&next, &mut place, scratch, |batch, record| {
            let Some(delivery_count) = acquired.delivery_count(record.offset) else { return };
            let operation = Operation::ShareFetch {
                group_id: request.group_id,
                member_id: request.member_id,
                delivery_count,
            };
            let partition =
                Partition { topic, index: fetched.partition, operation, error: fetched.error_code };
            sink.record(head, &partition, batch, record);
        });
    }
}

/// Acquired offsets, in order; a broker lists none twice.
struct Ranges(Vec<Acquired>);

impl Ranges {
    fn new(acquired: impl Iterator<Item = Acquired>) -> Self {
        let mut ranges: Vec<_> = acquired.collect();
        ranges.sort_unstable_by_key(|range| range.first_offset);
        Self(ranges)
    }

    /// How often the message of this offset was delivered, this time included; `None` if it is not
    /// delivered.
    fn delivery_count(&self, offset: i64) -> Option<i16> {
        let behind = self.0.partition_point(|range| range.first_offset <= offset);
        let range = self.0.get(behind.checked_sub(1)?)?;
        (offset <= range.last_offset).then_some(range.delivery_count)
    }
}
