//! Fetch: what a consumer got, and which transactions were aborted.

use std::collections::HashMap;

use super::read::Read;
use crate::connection::record_set::{Place, read_fetched};
use crate::connection::scratch::Scratch;
use crate::connection::session::Sessions;
use crate::counters::Lost;
use crate::protocol::event::Event;
use crate::protocol::fetch::{Fetched, Request, Response};
use crate::protocol::reader::Result;
use crate::record::Batch;
use crate::record::set::{Batches, Next};
use crate::sink::{Head, Operation, Partition, Sink};

pub fn emit<S: Sink>(
    exchange: &Read<'_>,
    sessions: &mut Sessions,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    let head = exchange.head;
    let request: Request<'_> = exchange.request()?;
    // Another replica is no consumer.
    if request.replica_id >= 0 {
        return Ok(());
    }
    sessions.ask(&request, head.request_start_ns);
    let response: Response<'_> = exchange.response()?;
    let refuses =
        |topic, partition, offset, error| Event::Refused { topic, partition, offset, group_id: None, error };
    if response.error != 0 {
        sink.event(head, &refuses(None, None, -1, response.error));
    }
    for (topic, fetched) in response.topics.partitions() {
        let (fetch_offset, began) = sessions.answer(topic, &fetched);
        if fetched.error != 0 {
            let offset = fetch_offset.unwrap_or(-1);
            sink.event(head, &refuses(Some(topic), Some(fetched.partition), offset, fetched.error));
        }
        let partition = Partition {
            topic,
            index: fetched.partition,
            operation: Operation::Fetch {
                fetch_offset: fetch_offset.unwrap_or(-1),
                high_watermark: fetched.high_watermark,
                read_committed: request.read_committed,
                began,
            },
            error: fetched.error,
        };
        let from = fetch_offset.unwrap_or(i64::MIN);
        emit_partition(head, &partition, &fetched, from, scratch, sink);
    }
    sessions.begin(&request, response.session_id);
    Ok(())
}

// Apart from its caller, so that the walk over the records has the registers for itself: 3
// instructions a record.
#[inline(never)]
fn emit_partition<S: Sink>(
    head: &Head<'_>,
    partition: &Partition<'_>,
    fetched: &Fetched<'_>,
    from: i64,
    scratch: &mut Scratch,
    sink: &mut S,
) {
    let read_committed = matches!(partition.operation, Operation::Fetch { read_committed: true, .. });
    let mut aborted = Aborted::new(fetched);
    if !aborted.are_known {
        scratch.counters.lose(Lost::TooManyAborted);
    }
    let mut place = Place::START;
    for next in Batches::new(fetched.records) {
        if let Next::Batch(batch) = &next {
            aborted.reach(batch, |event| sink.event(head, &event.of(partition)));
            if batch.is_control() {
                if let Some(ended) = aborted.marker(batch) {
                    sink.event(head, &ended.of(partition));
                }
                if let Some(commits) = batch.marker() {
                    sink.event(
                        head,
                        &Event::Marker {
                            topic: partition.topic,
                            partition: partition.index,
                            producer_id: batch.producer_id,
                            producer_epoch: batch.producer_epoch,
                            offset: batch.base_offset,
                            commits,
                        },
                    );
                }
                continue;
            }
            if read_committed && aborted.covers(batch) {
                continue;
            }
        }
        read_fetched(&next, &mut place, scratch, |batch, record| {
            if record.offset >= from {
                sink.record(head, partition, batch, record);
            }
        });
    }
    for event in aborted.open() {
        sink.event(head, &event.of(partition));
    }
}

/// Which producers' batches are aborted at this place of the log.
struct Aborted {
    /// (first offset, producer id), the last first.
    coming: Vec<(i64, i64)>,
    /// The first offset of a producer's current transaction.
    producers: HashMap<i64, i64>,
    /// Else there are too many, and none of them is kept.
    are_known: bool,
}

/// Aborted transactions of one partition's answer that are kept: 1 MiB of them. A broker lists those
/// that reach into the answer, one a producer at a time.
const MAX_ABORTED: usize = 64 << 10;

/// An aborted transaction, as far as it is known.
struct Ended {
    producer_id: i64,
    first_offset: i64,
    last_offset: Option<i64>,
}

impl Ended {
    fn of<'a>(&self, partition: &Partition<'a>) -> Event<'a> {
        Event::Aborted {
            topic: partition.topic,
            partition: partition.index,
            producer_id: self.producer_id,
            first_offset: self.first_offset,
            last_offset: self.last_offset,
        }
    }
}

impl Aborted {
    fn new(fetched: &Fetched<'_>) -> Self {
        let are_known = fetched.aborted.len() <= MAX_ABORTED;
        let kept = if are_known { MAX_ABORTED } else { 0 };
        let mut coming: Vec<_> =
            fetched.aborted.iter().take(kept).map(|of| (of.first_offset, of.producer_id)).collect();
        coming.sort_unstable_by(|a, b| b.cmp(a));
        // Tiered storage may list one twice.
        coming.dedup();
        Self { coming, producers: HashMap::new(), are_known }
    }

    /// The log has come to this batch; `missed` gets what ended without a marker.
    fn reach(&mut self, batch: &Batch<'_>, mut missed: impl FnMut(Ended)) {
        let last = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta));
        while let Some((first_offset, producer_id)) = self.coming.pop_if(|(first, _)| *first <= last) {
            if let Some(first_offset) = self.producers.insert(producer_id, first_offset) {
                missed(Ended { producer_id, first_offset, last_offset: None });
            }
        }
    }

    /// A control batch may end a producer's transaction.
    fn marker(&mut self, batch: &Batch<'_>) -> Option<Ended> {
        if batch.marker() != Some(false) {
            return None;
        }
        let producer_id = batch.producer_id;
        let first_offset = self.producers.remove(&producer_id)?;
        Some(Ended { producer_id, first_offset, last_offset: Some(batch.base_offset) })
    }

    fn covers(&self, batch: &Batch<'_>) -> bool {
        batch.is_transactional() && (!self.are_known || self.producers.contains_key(&batch.producer_id))
    }

    /// Those whose end lies behind the response, by their first offset.
    fn open(self) -> impl Iterator<Item = Ended> {
        let mut open: Vec<_> =
            self.producers.into_iter().map(|(producer, first)| (first, producer)).collect();
        open.extend(self.coming);
        open.sort_unstable();
        open.into_iter().map(|(first_offset, producer_id)| Ended {
            producer_id,
            first_offset,
            last_offset: None,
        })
    }
}
