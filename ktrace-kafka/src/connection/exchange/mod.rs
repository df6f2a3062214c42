//! Reports what an exchange holds to a [`Sink`].

mod fetch;
mod produce;
mod read;
mod share_fetch;

use std::cell::Cell;

use super::inflation::Inflation;
use super::scratch::Scratch;
use super::session::Sessions;
use crate::counters::{Lost, Malformed};
use crate::protocol::api::{Api, key};
use crate::protocol::bodies::{Bodies, Records, Surplus, Yields};
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::sink::{Head, Sink};

use read::Read;

/// What is logged in text seldom shrinks to less than this part of itself: an exchange of many
/// large batches may have more than [`crate::Limits::exchange_bytes`], if it is as large on the
/// wire.
const USUAL_GROWTH: usize = 64;

/// Reports the partitions that a request sends messages to, before its response comes.
pub fn announce<S: Sink>(head: &Head<'_>, request: &[u8], sink: &mut S) {
    if let Some(api) =
        Api::of(head.api_key).filter(|api| api.key == key::PRODUCE && api.check(head.version).is_ok())
    {
        produce::announce(head, Reader::new(request, api.is_flexible(head.version)), sink);
    }
}

/// Whether a request's body is wanted when its response comes.
pub fn is_read(api_key: i16) -> bool {
    Api::of(api_key).and_then(Api::bodies).is_some_and(Bodies::keep_requests)
}

/// What the exchanges of a connection leave for those behind them.
#[derive(Default)]
pub struct Carried {
    /// Where consumers stand.
    pub sessions: Sessions,
    /// What batches were inflated in vain.
    pub inflation: Inflation,
}

/// Reads an exchange. `response` is the response's frame, empty for a Produce with acks=0. Returns
/// what stood behind its bodies.
pub fn read<S: Sink>(
    head: &Head<'_>,
    request: &[u8],
    response: &[u8],
    carried: &mut Carried,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Surplus {
    let wire = request.len().saturating_add(response.len());
    let budget = scratch.limits.exchange_bytes.max(wire.saturating_mul(USUAL_GROWTH));
    scratch.inflating.begin(carried.inflation, head.end_ns(), budget);
    scratch.counters.exchanges = scratch.counters.exchanges.saturating_add(1);
    sink.exchange(head);
    let Some(api) = Api::of(head.api_key) else {
        scratch.counters.lose(Lost::UnsupportedApi);
        return Surplus::default();
    };
    let request = Reader::new(request, api.is_flexible(head.version));
    let exchange = Read { head, api, request, response, surplus: Cell::default() };
    match emit(&exchange, &mut carried.sessions, scratch, sink) {
        Ok(()) => {}
        Err(ParseError::Unsupported(_)) => scratch.counters.lose(Lost::UnsupportedVersion),
        Err(ParseError::Truncated(_) | ParseError::Malformed(_)) => scratch.counters.refuse(Malformed::Body),
    }
    carried.inflation = scratch.inflating.end();
    scratch.decompressor.trim();
    let surplus = exchange.surplus.get();
    let bytes = surplus.request.saturating_add(surplus.response);
    if bytes > 0 {
        scratch.counters.surplus_bytes =
            scratch.counters.surplus_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    surplus
}

/// Nothing is reported of an exchange whose request or response cannot be read to its end.
fn emit<S: Sink>(
    exchange: &Read<'_>,
    sessions: &mut Sessions,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Result<()> {
    let Read { head, api, request, .. } = *exchange;
    api.check(head.version)?;
    let Some(bodies) = api.bodies() else { return Ok(()) };
    if head.response.is_some()
        && let Some(ms) = bodies.throttle_ms(head.version, exchange.response_body()?)
    {
        sink.throttled(head, ms);
    }
    match bodies.yields() {
        Yields::Records(Records::Produced) => produce::emit(exchange, scratch, sink),
        Yields::Records(Records::Fetched) => fetch::emit(exchange, sessions, scratch, sink),
        Yields::Records(Records::ShareFetched) => share_fetch::emit(exchange, scratch, sink),
        Yields::Events(emit) => {
            let response = exchange.response_body()?;
            let surplus = emit(head.version, request, response, &mut |event| sink.event(head, event))?;
            exchange.surplus.set(surplus);
            Ok(())
        }
        Yields::EventsOfResponse(emit) => {
            let response = exchange.response_body()?;
            let surplus = emit(head.version, response, &mut |event| sink.event(head, event))?;
            exchange.surplus.set(surplus);
            Ok(())
        }
    }
}
