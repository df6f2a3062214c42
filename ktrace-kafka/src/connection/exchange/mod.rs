//! What an exchange holds, told to a [`Sink`].

mod fetch;
mod produce;
mod share_fetch;

use crate::connection::Scratch;
use crate::connection::session::Session;
use crate::counters::{Lost, Malformed};
use crate::protocol::api::Api;
use crate::protocol::header;
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::protocol::sink::{Head, Sink};
use crate::protocol::table::{Entry, Records, Telling};

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
}

impl<'a> Read<'a> {
    fn response(&self) -> Result<Reader<'a>> {
        header::response_body(self.response, self.api, self.head.version)
    }
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
    let Some(api) = Api::of(head.api_key) else { return scratch.counters.lose(Lost::UnsupportedApi) };
    let request = Reader::new(request, api.is_flexible(head.version));
    let exchange = Read { head, api, request, response };
    match tell(&exchange, session, scratch, sink) {
        Ok(()) => {}
        Err(ParseError::Unsupported(_)) => scratch.counters.lose(Lost::UnsupportedVersion),
        Err(ParseError::Truncated(_) | ParseError::Malformed(_)) => scratch.counters.refuse(Malformed::Body),
    }
}

/// Nothing is told of an exchange whose request or response cannot be read to its end.
fn tell<S: Sink>(
    exchange: &Read<'_>,
    session: &mut Session,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    let Read { head, api, request, .. } = *exchange;
    api.check(head.version)?;
    let Some(entry) = Entry::of(head.api_key) else { return Ok(()) };
    match entry.telling() {
        Telling::Records(Records::Produced) => produce::tell(exchange, scratch, sink),
        Telling::Records(Records::Fetched) => fetch::tell(exchange, session, scratch, sink),
        Telling::Records(Records::ShareFetched) => share_fetch::tell(exchange, scratch, sink),
        Telling::OfBoth(tell) => {
            tell(head.version, request, exchange.response()?, &mut |event| sink.event(head, event))
        }
        Telling::OfResponse(tell) => {
            tell(head.version, exchange.response()?, &mut |event| sink.event(head, event))
        }
        Telling::OfNothing => Ok(()),
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
    let Some(entry) = Entry::of(head.api_key) else { return whole || len <= MAX_UNREAD_BYTES };
    let read = entry.check_request(api, head.version, Reader::new(body, api.is_flexible(head.version)));
    !matches!(read, Err(ParseError::Unsupported(_))) && fits(read, whole)
}

/// Whether the bytes of a response of `len` bytes, without size prefix, are what this API answers: as far as they go.
pub fn confirms(api_key: i16, version: i16, bytes: &[u8], len: usize) -> bool {
    let (frame, whole) = bytes.split_at_checked(len).map_or((bytes, false), |(frame, _)| (frame, true));
    let Some(api) = Api::of(api_key) else { return whole };
    if api.check(version).is_err() {
        return true;
    }
    let Ok(body) = header::response_body(frame, api, version) else { return !whole };
    let Some(entry) = Entry::of(api_key) else { return whole || len <= MAX_UNREAD_BYTES };
    fits(entry.check_response(api, version, body), whole)
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
