//! What an exchange holds, told to a [`Sink`]: one function an API.

use std::collections::{HashMap, HashSet};

use crate::connection::Scratch;
use crate::connection::record_set::{Offsets, Place, count_unread, read_batch, read_message, stamp};
use crate::connection::session::Session;
use crate::counters::{Lost, Malformed};
use crate::protocol::api::{Api, key};
use crate::protocol::event::Event;
use crate::protocol::fetch::{self, Fetched};
use crate::protocol::header;
use crate::protocol::produce::{self, Appended};
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::protocol::sink::{Head, Operation, Partition, Sink, Topic};
use crate::protocol::{api_versions, group, metadata};
use crate::record::{Batch, Batches, Next, Record};

/// A longer group id is not kept.
const MAX_GROUP_BYTES: usize = 1024;

/// Whether a request's body is wanted when its response comes.
pub fn is_read(api_key: i16) -> bool {
    matches!(api_key, key::PRODUCE | key::FETCH | key::API_VERSIONS) || group::begins_with_group(api_key)
}

/// Reads an exchange. `response` is the response's frame, empty for a Produce with acks=0.
pub fn read<S: Sink>(
    head: &Head<'_>,
    request: &[u8],
    response: &[u8],
    session: &mut Session,
    scratch: &mut Scratch,
    sink: &mut S,
) {
    scratch.budget = scratch.limits.exchange_bytes;
    scratch.counters.exchanges = scratch.counters.exchanges.saturating_add(1);
    sink.exchange(head);
    let Some(api) = Api::of(head.api_key) else { return };
    let request = Reader::new(request, api.is_flexible(head.version));
    let read = match head.api_key {
        key::PRODUCE => read_produce(api, head, request, response, scratch, sink),
        key::FETCH => read_fetch(api, head, request, response, session, scratch, sink),
        key::METADATA => read_metadata(api, head, response, sink),
        key::API_VERSIONS => read_api_versions(head, request, sink),
        api_key if group::begins_with_group(api_key) => {
            let mut request = request;
            group::read_request(&mut request).map(|group| {
                if !group.is_empty() && group.len() <= MAX_GROUP_BYTES {
                    sink.event(head, &Event::Group { group });
                }
            })
        }
        _ => Ok(()),
    };
    match read {
        Ok(()) => {}
        Err(ParseError::Unsupported(_)) => scratch.counters.lose(Lost::UnsupportedVersion),
        Err(ParseError::Truncated(_) | ParseError::Malformed(_)) => scratch.counters.refuse(Malformed::Body),
    }
}

fn read_api_versions<S: Sink>(head: &Head<'_>, request: Reader<'_>, sink: &mut S) -> Result<()> {
    if let Some(software) = api_versions::read_request(head.version, request)?
        && !software.name.is_empty()
    {
        sink.event(head, &Event::Software { name: software.name, version: software.version });
    }
    Ok(())
}

fn read_metadata<S: Sink>(api: &Api, head: &Head<'_>, response: &[u8], sink: &mut S) -> Result<()> {
    struct Told<'x, S>(&'x Head<'x>, &'x mut S);
    impl<S: Sink> metadata::Visitor for Told<'_, S> {
        fn cluster(&mut self, id: &str) {
            self.1.event(self.0, &Event::Cluster { id });
        }
        fn topic(&mut self, id: u128, name: &str) {
            self.1.event(self.0, &Event::Topic { id, name });
        }
    }
    let body = header::response_body(response, api, head.version)?;
    metadata::read_response(head.version, body, &mut Told(head, sink))
}

/// The results of a Produce response, by partition. Brokers answer in the order of the request, so they are looked up by
/// place first.
#[derive(Default)]
struct Results<'a> {
    list: Vec<(Topic<'a>, i32, Appended)>,
    by_partition: Option<HashMap<(Topic<'a>, i32), Appended>>,
}

impl<'a> Results<'a> {
    fn of(&mut self, place: usize, topic: Topic<'a>, partition: i32) -> Option<Appended> {
        match self.list.get(place) {
            Some((at, index, appended)) if (*at, *index) == (topic, partition) => Some(*appended),
            _ => self
                .by_partition
                .get_or_insert_with(|| {
                    self.list.iter().map(|(t, p, appended)| ((*t, *p), *appended)).collect()
                })
                .get(&(topic, partition))
                .copied(),
        }
    }
}

fn read_produce<S: Sink>(
    api: &Api,
    head: &Head<'_>,
    request: Reader<'_>,
    response: &[u8],
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    let mut results = Results::default();
    if head.response.is_some() {
        let body = header::response_body(response, api, head.version)?;
        produce::read_response(head.version, body, |topic, partition, appended| {
            results.list.push((topic, partition, appended));
        })?;
    }
    // Nothing is told of a request that cannot be read to its end.
    produce::read_request(head.version, request, |_, _, _, _| ())?;
    let mut place = 0_usize;
    produce::read_request(head.version, request, |start, topic, index, records| {
        let appended = results.of(place, topic, index);
        place = place.saturating_add(1);
        let partition = Partition {
            topic,
            index,
            operation: Operation::Produce { acks: start.acks },
            error: appended.map_or(0, |appended| appended.error),
        };
        let base = appended.filter(|appended| appended.error == 0 && appended.base_offset >= 0);
        let mut first_offset = None;
        let mut at = Place::START;
        for next in Batches::new(records) {
            count_unread(&next, &mut scratch.counters);
            let mut batch = match next {
                Next::Batch(batch) => batch,
                Next::Message(message) => {
                    read_message(&message, Offsets::Given(base), &mut at, scratch, |batch, record| {
                        sink.record(head, &partition, batch, record);
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
                    Some(_) => sink.record(head, &partition, &batch, record),
                    None => sink.record(head, &partition, &batch, &Record { offset: -1, ..*record }),
                }
            });
            if !whole {
                at.lose();
            }
        }
    })?;
    Ok(())
}

fn read_fetch<S: Sink>(
    api: &Api,
    head: &Head<'_>,
    request: Reader<'_>,
    response: &[u8],
    session: &mut Session,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    // The replica's id may stand at the end, so the request is read before it is believed.
    let asked = fetch::read_request(head.version, request, |_, _, _| ())?;
    // Another replica is no consumer.
    if asked.replica_id >= 0 {
        return Ok(());
    }
    session.begin(&asked);
    fetch::read_request(head.version, request, |topic, partition, from| session.ask(topic, partition, from))?;
    let body = header::response_body(response, api, head.version)?;
    // Nothing is told of a response that cannot be read to its end.
    fetch::read_response(head.version, body, |_| ())?;
    fetch::read_response(head.version, body, |fetched| {
        let from = session.offset(fetched.topic, fetched.index).unwrap_or(i64::MIN);
        read_fetched(head, &fetched, from, asked.read_committed, scratch, sink);
    })
}

fn read_fetched<S: Sink>(
    head: &Head<'_>,
    fetched: &Fetched<'_>,
    from: i64,
    read_committed: bool,
    scratch: &mut Scratch,
    sink: &mut S,
) {
    let partition = Partition {
        topic: fetched.topic,
        index: fetched.index,
        operation: Operation::Fetch { high_watermark: fetched.high_watermark, read_committed },
        error: fetched.error,
    };
    let mut aborted = Aborted::new(fetched, read_committed);
    let mut at = Place::START;
    for next in Batches::new(fetched.records) {
        count_unread(&next, &mut scratch.counters);
        let mut tell = |batch: &Batch<'_>, record: &Record<'_>| {
            if record.offset >= from {
                sink.record(head, &partition, batch, record);
            }
        };
        match next {
            Next::Batch(batch) if aborted.hides(&batch) || batch.is_control() => {}
            Next::Batch(batch) => {
                read_batch(&batch, scratch, |record| {
                    at.pass();
                    tell(&batch, record);
                });
            }
            // Transactions are of batches alone.
            Next::Message(message) => read_message(&message, Offsets::Log, &mut at, scratch, tell),
            Next::Cut | Next::UnknownMagic(_) | Next::Malformed => {}
        }
    }
}

/// Which producers' batches a read-committed consumer drops at this place of the log.
struct Aborted {
    /// (first offset, producer id), the last first.
    coming: Vec<(i64, i64)>,
    producers: HashSet<i64>,
}

impl Aborted {
    fn new(fetched: &Fetched<'_>, read_committed: bool) -> Self {
        let mut coming = vec![];
        if read_committed && !fetched.aborted.is_empty() {
            coming.extend(fetched.aborted.iter().map(|(producer, first)| (first, producer)));
            coming.sort_unstable_by(|a, b| b.cmp(a));
        }
        Self { coming, producers: HashSet::new() }
    }

    fn hides(&mut self, batch: &Batch<'_>) -> bool {
        let last = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta));
        while let Some((_, producer)) = self.coming.pop_if(|(first, _)| *first <= last) {
            self.producers.insert(producer);
        }
        if self.producers.is_empty() || batch.producer_id < 0 {
            return false;
        }
        if batch.is_control() {
            if batch.aborts() {
                self.producers.remove(&batch.producer_id);
            }
            return false;
        }
        batch.is_transactional() && self.producers.contains(&batch.producer_id)
    }
}

/// The largest frame of an API whose body is not read that is believed before all of it is there.
const MAX_UNREAD_BYTES: usize = 1 << 20;

/// Whether a request of `len` bytes, of which these are there, is what its API asks, as far as they go, and comes from
/// the client that the connection is known to be of.
pub fn request_is_plausible(frame: &[u8], len: usize, client_id: Option<&[u8]>) -> bool {
    let (frame, whole) = frame.split_at_checked(len).map_or((frame, false), |(frame, _)| (frame, true));
    // A header that is cut is believed only of a client that is not known yet.
    let Ok((head, body)) = header::RequestHeader::read(frame) else { return !whole && client_id.is_none() };
    let Some(api) = Api::of(head.api_key) else { return false };
    if client_id.is_some_and(|known| head.client_id.map(str::as_bytes) != Some(known)) {
        return false;
    }
    let body = Reader::new(body, api.is_flexible(head.version));
    let read = match head.api_key {
        key::PRODUCE => produce::read_request(head.version, body, |_, _, _, _| ()).map(|_| ()),
        key::FETCH => fetch::read_request(head.version, body, |_, _, _| ()).map(|_| ()),
        key::API_VERSIONS => api_versions::read_request(head.version, body).map(|_| ()),
        _ => return whole || len <= MAX_UNREAD_BYTES,
    };
    !matches!(read, Err(ParseError::Unsupported(_))) && fits(read, whole)
}

/// Whether the bytes of a response of `len` bytes, without size prefix, are what this API answers: as far as they go.
pub fn confirms(api_key: i16, version: i16, bytes: &[u8], len: usize) -> bool {
    let (frame, whole) = bytes.split_at_checked(len).map_or((bytes, false), |(frame, _)| (frame, true));
    let Some(api) = Api::of(api_key) else { return whole };
    let Ok(body) = header::response_body(frame, api, version) else { return !whole };
    struct Nobody;
    impl metadata::Visitor for Nobody {}
    let read = match api_key {
        key::PRODUCE => produce::read_response(version, body, |_, _, _| ()),
        key::FETCH => fetch::read_response(version, body, |_| ()),
        key::METADATA => metadata::read_response(version, body, &mut Nobody),
        _ => return whole || len <= MAX_UNREAD_BYTES,
    };
    fits(read, whole)
}

/// A body that reads to its end is the frame's end too; one that is cut may go on.
fn fits(read: Result<()>, whole: bool) -> bool {
    match read {
        Ok(()) => whole,
        Err(ParseError::Unsupported(_)) => true,
        Err(ParseError::Truncated(_)) => !whole,
        Err(ParseError::Malformed(_)) => false,
    }
}
