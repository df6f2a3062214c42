//! Pinpoint (<https://github.com/pinpoint-apm/pinpoint>, `Header`, `TransactionIdUtils`).

use super::decimal;
use super::id::SpanId;
use super::read::{Read, Values, hashed};
use super::text::text;

/// The format's name: the trace id is always a hash.
const HASHED: &str = "pinpoint-hash";

/// `Pinpoint-TraceID` = `<agent id>^<its start, ms>^<sequence>`, and `Pinpoint-pSpanID`, a signed
/// decimal.
///
/// `Pinpoint-SpanID` is not read: it is the id that the sender has chosen for the receiver's span.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let Some(trace) = values.get(0) else {
        return if values.get(1).is_some() { Read::Malformed } else { Read::Nothing };
    };
    parse(text(trace), values.get(1).map(text)).unwrap_or(Read::Malformed)
}

fn parse<'a>(trace: &[u8], span: Option<&[u8]>) -> Option<Read<'a>> {
    let mut fields = trace.split(|&byte| byte == b'^');
    let agent = fields.next()?;
    decimal::unsigned(fields.next()?)?;
    decimal::unsigned(fields.next()?)?;
    if fields.next().is_some() || agent.is_empty() || !agent.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let span_id = match span {
        // −1 is Pinpoint's "no span".
        None | Some(b"-1") => None,
        Some(span) => Some(SpanId::new(decimal::signed(span)?.to_be_bytes())?),
    };
    hashed(HASHED, trace, span_id, None)
}
