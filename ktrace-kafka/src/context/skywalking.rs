//! Apache SkyWalking: `sw8`
//! (<https://skywalking.apache.org/docs/main/next/en/api/x-process-propagation-headers-v3/>).

use super::id::TraceId;
use super::read::{Read, Values, hashed};
use super::text::{sampled, text};
use super::{base64, decimal, hex};

/// The format's name where the trace id is a hash.
const HASHED: &str = "sw8-hash";

/// The longest trace id that is read, in bytes; the Java agent's are of about 60.
const MAX_TRACE_ID_BYTES: usize = 256;

/// `<sampled>-<trace id>-<segment id>-<span id>-<service>-<instance>-<endpoint>-<address>`, base64
/// but for the sampling flag and the span id.
///
/// A trace id of 32 hex digits or a UUID is taken as it is; another
/// (`<uuid>.<thread>.<time and sequence>`) is hashed. No span is named: SkyWalking numbers spans
/// within their segment, so a span id of 8 bytes would be one that no other tool gives that span,
/// and whoever links to it would point at nothing.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(text(values.get(0).unwrap_or_default())).unwrap_or(Read::Malformed)
}

fn parse<'a>(value: &[u8]) -> Option<Read<'a>> {
    let mut fields = value.split(|&byte| byte == b'-');
    let flags = Some(sampled(fields.next()?)?);
    let mut buffer = [0; MAX_TRACE_ID_BYTES];
    let trace = base64::decode(fields.next()?, &mut buffer)?;
    fields.next().filter(|segment| !segment.is_empty())?;
    decimal::unsigned(fields.next()?)?;
    if fields.count() != 4 || trace.is_empty() || !trace.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    match hex::decode(trace).or_else(|| hex::uuid(trace)) {
        Some(bytes) => {
            let trace_id = TraceId::new(bytes)?;
            Some(Read::Context { trace_id, span_id: None, flags, state: None })
        }
        None => hashed(HASHED, trace, None, flags),
    }
}
