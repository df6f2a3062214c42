//! What an exchange holds, told to a [`Sink`].

mod fetch;
mod produce;
mod share_fetch;

use std::cell::Cell;

use crate::connection::Scratch;
use crate::connection::inflation::Inflation;
use crate::connection::session::Sessions;
use crate::counters::{Lost, Malformed};
use crate::protocol::api::{Api, key};
use crate::protocol::exchange::whole;
use crate::protocol::header;
use crate::protocol::list::Struct;
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::protocol::table::{Entry, Records, Surplus, Telling};
use crate::sink::{Head, Sink};

/// What is logged in text seldom shrinks to less than this part of itself: an exchange of many large batches may have more
/// than [`crate::Limits::exchange_bytes`], if it is as large on the wire.
const USUAL_GROWTH: usize = 64;

/// Tells to which partitions a request sends messages whose response is still to come.
pub fn announce<S: Sink>(head: &Head<'_>, request: &[u8], sink: &mut S) {
    if let Some(api) =
        Api::of(head.api_key).filter(|api| api.key == key::PRODUCE && api.check(head.version).is_ok())
    {
        produce::announce(head, Reader::new(request, api.is_flexible(head.version)), sink);
    }
}

/// Whether a request's body is wanted when its response comes.
pub fn is_read(api_key: i16) -> bool {
    Entry::of(api_key).is_some_and(Entry::keeps_requests)
}

/// An exchange whose response is there, or that has none: the head, and the bodies.
struct Read<'a> {
    head: &'a Head<'a>,
    api: &'static Api,
    request: Reader<'a>,
    /// The response's frame, empty for a Produce with acks=0.
    response: &'a [u8],
    /// Behind the bodies that were read.
    surplus: Cell<Surplus>,
}

impl<'a> Read<'a> {
    fn request<T: Struct<'a>>(&self) -> Result<T> {
        let (request, behind) = whole(self.head.version, self.request)?;
        self.surplus.set(Surplus { request: behind, ..self.surplus.get() });
        Ok(request)
    }

    fn response<T: Struct<'a>>(&self) -> Result<T> {
        let (response, behind) = whole(self.head.version, self.response_body()?)?;
        self.surplus.set(Surplus { response: behind, ..self.surplus.get() });
        Ok(response)
    }

    fn response_body(&self) -> Result<Reader<'a>> {
        header::response_body(self.response, self.api, self.head.version)
    }
}

/// Reads an exchange. `response` is the response's frame, empty for a Produce with acks=0. Returns what stood behind its
/// bodies.
pub fn read<S: Sink>(
    head: &Head<'_>,
    request: &[u8],
    response: &[u8],
    (sessions, inflation): (&mut Sessions, &mut Inflation),
    scratch: &mut Scratch,
    sink: &mut S,
) -> Surplus {
    let wire = request.len().saturating_add(response.len());
    scratch.budget = scratch.limits.exchange_bytes.max(wire.saturating_mul(USUAL_GROWTH));
    scratch.inflating.begin(*inflation, head.end_ns());
    scratch.counters.exchanges = scratch.counters.exchanges.saturating_add(1);
    sink.exchange(head);
    let Some(api) = Api::of(head.api_key) else {
        scratch.counters.lose(Lost::UnsupportedApi);
        return Surplus::default();
    };
    let request = Reader::new(request, api.is_flexible(head.version));
    let exchange = Read { head, api, request, response, surplus: Cell::default() };
    match tell(&exchange, sessions, scratch, sink) {
        Ok(()) => {}
        Err(ParseError::Unsupported(_)) => scratch.counters.lose(Lost::UnsupportedVersion),
        Err(ParseError::Truncated(_) | ParseError::Malformed(_)) => scratch.counters.refuse(Malformed::Body),
    }
    *inflation = scratch.inflating.end();
    scratch.decompressor.trim();
    let surplus = exchange.surplus.get();
    let bytes = surplus.request.saturating_add(surplus.response);
    if bytes > 0 {
        scratch.counters.surplus_bytes =
            scratch.counters.surplus_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    surplus
}

/// Nothing is told of an exchange whose request or response cannot be read to its end.
fn tell<S: Sink>(
    exchange: &Read<'_>,
    sessions: &mut Sessions,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    let Read { head, api, request, .. } = *exchange;
    api.check(head.version)?;
    let Some(entry) = Entry::of(head.api_key) else { return Ok(()) };
    if head.response.is_some()
        && let Some(ms) = entry.throttle_ms(head.version, exchange.response_body()?)
    {
        sink.throttled(head, ms);
    }
    match entry.telling() {
        Telling::Records(Records::Produced) => produce::tell(exchange, scratch, sink),
        Telling::Records(Records::Fetched) => fetch::tell(exchange, sessions, scratch, sink),
        Telling::Records(Records::ShareFetched) => share_fetch::tell(exchange, scratch, sink),
        Telling::OfBoth(tell) => {
            let response = exchange.response_body()?;
            let surplus = tell(head.version, request, response, &mut |event| sink.event(head, event))?;
            exchange.surplus.set(surplus);
            Ok(())
        }
        Telling::OfResponse(tell) => {
            let response = exchange.response_body()?;
            let surplus = tell(head.version, response, &mut |event| sink.event(head, event))?;
            exchange.surplus.set(surplus);
            Ok(())
        }
    }
}

/// A frame whose beginning was found by a search, as far as it is there.
pub struct Found<'a> {
    /// Without the size prefix.
    pub bytes: &'a [u8],
    /// Of the whole frame.
    pub len: usize,
    /// Its beginning is one, or most probably so: a segment begins there. Of an API or a version that is not read, this is
    /// asked for, and that all of it is there.
    pub first: bool,
    /// The frame may go on behind its body, as those of this connection do, or as its end is known. Else that counts
    /// against it.
    pub may_have_surplus: bool,
}

impl<'a> Found<'a> {
    /// A whole frame, at a place where frames begin.
    pub fn whole(bytes: &'a [u8], may_have_surplus: bool) -> Self {
        Self { bytes, len: bytes.len(), first: true, may_have_surplus }
    }

    /// What is there of it, and whether that is all.
    fn frame(&self) -> (&'a [u8], bool) {
        self.bytes.split_at_checked(self.len).map_or((self.bytes, false), |(frame, _)| (frame, true))
    }
}

/// Whether a request is what its API asks, as far as it is there, and comes from the client that the connection is known
/// to be of. What was read to tell is added to `cost`.
pub fn request_is_plausible(found: &Found<'_>, client_id: Option<&[u8]>, cost: &mut usize) -> bool {
    let (frame, whole) = found.frame();
    // A header that is cut is believed only of a client that is not known yet.
    let Ok((head, body)) = header::RequestHeader::read(frame) else { return !whole && client_id.is_none() };
    let Some(api) = Api::of(head.api_key) else { return false };
    if client_id.is_some_and(|known| head.client_id.map(str::as_bytes) != Some(known)) {
        return false;
    }
    let Some(entry) = Entry::of(head.api_key) else {
        return whole && (found.first || client_id.is_some());
    };
    let start = Reader::new(body, api.is_flexible(head.version));
    let mut body = start;
    let read = entry.check_request(api, head.version, &mut body);
    *cost = cost.saturating_add(start.left().len().saturating_sub(body.left().len()));
    !matches!(read, Err(ParseError::Unsupported(_)))
        && fits(read, &body, found, whole)
        && !(head.api_key == key::PRODUCE && whole && produce::is_empty(head.version, start))
}

/// Whether a whole frame is a request of an API that is read, with the body that it has.
pub fn is_first_request(frame: &[u8]) -> bool {
    let is_read = |(head, _): (header::RequestHeader<'_>, _)| Entry::of(head.api_key).is_some();
    header::RequestHeader::read(frame).is_ok_and(is_read)
        && request_is_plausible(&Found::whole(frame, false), None, &mut 0)
}

/// Whether a response is what this API answers, as far as it is there. What was read to tell is added to `cost`.
pub fn confirms(api_key: i16, version: i16, found: &Found<'_>, cost: &mut usize) -> bool {
    let (frame, whole) = found.frame();
    let read_or_not = whole && found.first;
    let Some(api) = Api::of(api_key) else { return read_or_not };
    let entry = Entry::of(api_key).filter(|_| api.check(version).is_ok());
    let start = match header::response_body(frame, api, version) {
        Ok(body) => body,
        Err(ParseError::Truncated(_)) => return !whole && entry.is_some(),
        Err(_) => return false,
    };
    let Some(entry) = entry else { return read_or_not };
    let mut body = start;
    let read = entry.check_response(api, version, &mut body);
    *cost = cost.saturating_add(start.left().len().saturating_sub(body.left().len()));
    fits(read, &body, found, whole)
}

/// A body that reads to its end is the frame's end too, unless it may have a surplus; one that is cut may go on.
fn fits(read: Result<()>, behind: &Reader<'_>, found: &Found<'_>, whole: bool) -> bool {
    match read {
        Ok(()) => found.may_have_surplus || (whole && behind.left().is_empty()),
        Err(ParseError::Truncated(_)) => !whole,
        Err(ParseError::Unsupported(_) | ParseError::Malformed(_)) => false,
    }
}
