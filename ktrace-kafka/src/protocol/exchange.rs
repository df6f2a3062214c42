//! What an API is made of: the structs of its request and of its response, and what the two say.

use super::event::Emit;
use super::list::Struct;
use super::reader::{Reader, Result};

/// An API: the structs of its request and of its response.
pub trait Exchange {
    /// From this version on the response begins with the throttle time: how long the client has to
    /// wait, by its quota (KIP-13, KIP-124, KIP-219).
    const THROTTLED_SINCE: i16 = i16::MAX;
    type Request<'a>: Struct<'a>;
    type Response<'a>: Struct<'a>;
}

/// An API whose request and response together say something.
pub trait Emits: Exchange {
    /// Emits the events of an exchange.
    fn emit<'a>(request: &Self::Request<'a>, response: &Self::Response<'a>, emit: &mut Emit<'_>);
}

/// An API whose response alone says something, so that its requests need not be kept.
pub trait EmitsOfResponse: Exchange {
    /// Emits the events of a response.
    fn emit(response: &Self::Response<'_>, emit: &mut Emit<'_>);
}

/// Reads a body and leaves the reader where its schema ends.
pub fn check<'a, T: Struct<'a>>(version: i16, body: &mut Reader<'a>) -> Result<()> {
    T::read(version, body).map(|_| ())
}

/// Reads a body to the end of its schema. Gives what follows too, which is no part of it: Kafka's
/// broker (`RequestContext.parseRequest`) and its clients (`NetworkClient.parseResponse`,
/// librdkafka, franz-go) take what they know and pass over the rest of the frame.
pub fn whole<'a, T: Struct<'a>>(version: i16, mut body: Reader<'a>) -> Result<(T, usize)> {
    let read = T::read(version, &mut body)?;
    Ok((read, body.left().len()))
}
