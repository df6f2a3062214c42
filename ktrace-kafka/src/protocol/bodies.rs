//! How the bodies of an API are read.

use super::event::Emit;
use super::exchange::{Emits, EmitsOfResponse, Exchange, check, whole};
use super::reader::{Reader, Result};

/// How the bodies of an API are read.
#[derive(Debug)]
pub struct Bodies {
    request: fn(i16, &mut Reader<'_>) -> Result<()>,
    response: fn(i16, &mut Reader<'_>) -> Result<()>,
    throttled_since: i16,
    yields: Yields,
}

impl Bodies {
    /// Of exchanges that hold records.
    pub(super) const fn with_records<E: Exchange>(records: Records) -> Self {
        Self::new::<E>(Yields::Records(records))
    }

    /// Of exchanges whose request and response are read together.
    pub(super) const fn with_events<E: Emits>() -> Self {
        Self::new::<E>(Yields::Events(emit_of_both::<E>))
    }

    /// Of exchanges whose response alone is read.
    pub(super) const fn with_events_of_response<E: EmitsOfResponse>() -> Self {
        Self::new::<E>(Yields::EventsOfResponse(emit_of_response::<E>))
    }

    const fn new<E: Exchange>(yields: Yields) -> Self {
        Self {
            request: |version, body| check::<E::Request<'_>>(version, body),
            response: |version, body| check::<E::Response<'_>>(version, body),
            throttled_since: E::THROTTLED_SINCE,
            yields,
        }
    }

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
