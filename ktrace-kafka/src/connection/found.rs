//! Frames that a search has found: whether they are what their API asks or answers.

use crate::protocol::api::{Api, key};
use crate::protocol::exchange::whole;
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::protocol::{header, produce};

/// A frame whose beginning was found by a search, as far as it is there.
pub struct Found<'a> {
    /// Without the size prefix.
    pub bytes: &'a [u8],
    /// Of the whole frame.
    pub len: usize,
    /// Its beginning is one, or most probably so: a segment begins there. Of an API or a version
    /// that is not read, this is asked for, and that all of it is there.
    pub first: bool,
    /// The frame may go on behind its body, as those of this connection do, or as its end is known.
    /// Else that counts against it.
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

/// Whether a request is what its API asks, as far as it is there, and comes from the client that
/// the connection is known to be of. The bytes that were read to decide are added to `cost`.
pub fn request_is_plausible(found: &Found<'_>, client_id: Option<&[u8]>, cost: &mut usize) -> bool {
    let (frame, whole) = found.frame();
    // A header that is cut is believed only of a client that is not known yet.
    let Ok((head, body)) = header::RequestHeader::read(frame) else { return !whole && client_id.is_none() };
    let Some(api) = Api::of(head.api_key) else { return false };
    if client_id.is_some_and(|known| head.client_id.map(str::as_bytes) != Some(known)) {
        return false;
    }
    let Some(bodies) = api.bodies() else {
        return whole && (found.first || client_id.is_some());
    };
    let start = Reader::new(body, api.is_flexible(head.version));
    let mut body = start;
    let read = api.check(head.version).and_then(|()| bodies.check_request(head.version, &mut body));
    *cost = cost.saturating_add(start.left().len().saturating_sub(body.left().len()));
    !matches!(read, Err(ParseError::Unsupported(_)))
        && fits(read, &body, found, whole)
        && !(head.api_key == key::PRODUCE && whole && produces_nothing(head.version, start))
}

/// Whether a whole frame is a request of an API that is read, with the body that it has.
pub fn is_first_request(frame: &[u8]) -> bool {
    let is_read =
        |(head, _): (header::RequestHeader<'_>, _)| Api::of(head.api_key).and_then(Api::bodies).is_some();
    header::RequestHeader::read(frame).is_ok_and(is_read)
        && request_is_plausible(&Found::whole(frame, false), None, &mut 0)
}

/// Whether a response is what this API answers, as far as it is there. The bytes that were read to
/// decide are added to `cost`.
pub fn confirms(api_key: i16, version: i16, found: &Found<'_>, cost: &mut usize) -> bool {
    let (frame, whole) = found.frame();
    let read_or_not = whole && found.first;
    let Some(api) = Api::of(api_key) else { return read_or_not };
    let bodies = api.bodies().filter(|_| api.check(version).is_ok());
    let start = match header::response_body(frame, api, version) {
        Ok(body) => body,
        Err(ParseError::Truncated(_)) => return !whole && bodies.is_some(),
        Err(_) => return false,
    };
    let Some(bodies) = bodies else { return read_or_not };
    let mut body = start;
    let read = bodies.check_response(version, &mut body);
    *cost = cost.saturating_add(start.left().len().saturating_sub(body.left().len()));
    fits(read, &body, found, whole)
}

/// A body that reads to its end is the frame's end too, unless it may have a surplus; one that is
/// cut may go on.
fn fits(read: Result<()>, behind: &Reader<'_>, found: &Found<'_>, whole: bool) -> bool {
    match read {
        Ok(()) => found.may_have_surplus || (whole && behind.left().is_empty()),
        Err(ParseError::Truncated(_)) => !whole,
        Err(ParseError::Unsupported(_) | ParseError::Malformed(_)) => false,
    }
}

/// Whether a request that reads to its end has no topic: no producer sends one, and zeros abound in
/// any data.
fn produces_nothing(version: i16, body: Reader<'_>) -> bool {
    whole::<produce::Request<'_>>(version, body)
        .is_ok_and(|(request, _)| request.topics.partitions().next().is_none())
}
