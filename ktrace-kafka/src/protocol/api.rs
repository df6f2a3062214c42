//! One API of the protocol: its name, its versions, and how its bodies are read.

use super::event::Emit;
use super::exchange::{Emits, EmitsOfResponse, Exchange, check, whole};
use super::reader::{ParseError, Reader, Result};

/// One API of the protocol.
#[derive(Debug)]
pub struct Api {
    /// The number that requests name it by.
    pub key: i16,
    /// As in Kafka's message schemas: `Produce`.
    pub name: &'static str,
    /// The newest version known.
    pub newest: i16,
    /// The first flexible version (KIP-482); `i16::MAX` for never.
    pub flexible: i16,
    bodies: Option<Bodies>,
}

impl Api {
    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// An error for versions that no known release has.
    pub fn check(&self, version: i16) -> Result<()> {
        if version <= self.newest { Ok(()) } else { Err(ParseError::Unsupported(self.name)) }
    }

    /// Whether the response's header has tagged fields; ApiVersions never has, so that any client
    /// can read it.
    #[must_use]
    pub fn response_header_is_flexible(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != key::API_VERSIONS
    }

    /// How its bodies are read, `None` if they are not. No part of the API.
    #[doc(hidden)]
    #[must_use]
    pub fn bodies(&self) -> Option<&Bodies> {
        self.bodies.as_ref()
    }

    /// An API whose bodies are not read.
    pub(super) const fn new(key: i16, name: &'static str, newest: i16, flexible: i16) -> Self {
        Self { key, name, newest, flexible, bodies: None }
    }

    /// An API whose exchanges hold records; the connection knows how they are read.
    pub(super) const fn records<E: Exchange>(self, records: Records) -> Self {
        self.read::<E>(Yields::Records(records))
    }

    /// An API whose request and response are read together.
    pub(super) const fn events<E: Emits>(self) -> Self {
        self.read::<E>(Yields::Events(emit_of_both::<E>))
    }

    /// An API whose response alone is read.
    pub(super) const fn events_of_response<E: EmitsOfResponse>(self) -> Self {
        self.read::<E>(Yields::EventsOfResponse(emit_of_response::<E>))
    }

    const fn read<E: Exchange>(self, yields: Yields) -> Self {
        let bodies = Bodies {
            request: |version, body| check::<E::Request<'_>>(version, body),
            response: |version, body| check::<E::Response<'_>>(version, body),
            throttled_since: E::THROTTLED_SINCE,
            yields,
        };
        Self { bodies: Some(bodies), ..self }
    }
}

/// How the bodies of an API are read.
#[derive(Debug)]
pub struct Bodies {
    request: fn(i16, &mut Reader<'_>) -> Result<()>,
    response: fn(i16, &mut Reader<'_>) -> Result<()>,
    throttled_since: i16,
    yields: Yields,
}

impl Bodies {
    /// What an exchange yields.
    #[must_use]
    pub fn yields(&self) -> Yields {
        self.yields
    }

    /// Whether a request is wanted when its response comes.
    #[must_use]
    pub fn keep_requests(&self) -> bool {
        matches!(self.yields, Yields::Records(_) | Yields::Events(_))
    }

    /// How long the client has to wait by its quota, in milliseconds, where a response that reads
    /// to its end says so in its first field.
    #[must_use]
    pub fn throttle_ms(&self, version: i16, body: Reader<'_>) -> Option<u32> {
        if version < self.throttled_since {
            return None;
        }
        let ms = { body }.i32("throttle time").ok()?;
        let ms = u32::try_from(ms).ok().filter(|ms| *ms > 0)?;
        (self.response)(version, &mut { body }).ok().map(|()| ms)
    }

    /// Reads a request's body of a version that is known, and leaves the reader where the schema
    /// ends, or where the body ends to be one.
    pub fn check_request(&self, version: i16, body: &mut Reader<'_>) -> Result<()> {
        (self.request)(version, body)
    }

    /// The same of a response's body.
    pub fn check_response(&self, version: i16, body: &mut Reader<'_>) -> Result<()> {
        (self.response)(version, body)
    }
}

/// What an exchange of an API yields.
#[derive(Clone, Copy, Debug)]
pub enum Yields {
    /// Records, read by what the connection knows beside.
    Records(Records),
    /// Events of its request and response together.
    Events(for<'a> fn(i16, Reader<'a>, Reader<'a>, &mut Emit<'_>) -> Result<Surplus>),
    /// Events of its response.
    EventsOfResponse(fn(i16, Reader<'_>, &mut Emit<'_>) -> Result<Surplus>),
}

/// Whose records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// Those of Produce requests.
    Produced,
    /// Those of Fetch responses.
    Fetched,
    /// Those of ShareFetch responses.
    ShareFetched,
}

/// Bytes behind the bodies of an exchange that their schemas do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Behind the request.
    pub request: usize,
    /// Behind the response.
    pub response: usize,
}

fn emit_of_both<'a, E: Emits>(
    version: i16,
    request: Reader<'a>,
    response: Reader<'a>,
    emit: &mut Emit<'_>,
) -> Result<Surplus> {
    let ((asked, request), (answered, response)) = (whole(version, request)?, whole(version, response)?);
    E::emit(&asked, &answered, emit);
    Ok(Surplus { request, response })
}

fn emit_of_response<E: EmitsOfResponse>(
    version: i16,
    response: Reader<'_>,
    emit: &mut Emit<'_>,
) -> Result<Surplus> {
    let (answered, response) = whole(version, response)?;
    E::emit(&answered, emit);
    Ok(Surplus { request: 0, response })
}

/// Keys of the APIs that have a part in how a connection is read.
pub mod key {
    /// Produce.
    pub const PRODUCE: i16 = 0;
    /// Fetch.
    pub const FETCH: i16 = 1;
    /// Metadata.
    pub const METADATA: i16 = 3;
    /// OffsetCommit.
    pub const OFFSET_COMMIT: i16 = 8;
    /// SaslHandshake.
    pub const SASL_HANDSHAKE: i16 = 17;
    /// ApiVersions.
    pub const API_VERSIONS: i16 = 18;
    /// InitProducerId.
    pub const INIT_PRODUCER_ID: i16 = 22;
    /// TxnOffsetCommit.
    pub const TXN_OFFSET_COMMIT: i16 = 28;
    /// SaslAuthenticate.
    pub const SASL_AUTHENTICATE: i16 = 36;
    /// DescribeTopicPartitions.
    pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
    /// ShareFetch.
    pub const SHARE_FETCH: i16 = 78;
    /// ShareAcknowledge.
    pub const SHARE_ACKNOWLEDGE: i16 = 79;
}
