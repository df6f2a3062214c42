//! Sentry: `sentry-trace`
//! (<https://develop.sentry.dev/sdk/foundations/trace-propagation/#header-sentry-trace>).

use super::read::{Read, Values};
use super::text::{sampled, span_id, text, trace_id};

/// `<trace id, 32 hex>-<span id, 16 hex>-<0 or 1>`; without the last where the decision is left to
/// the receiver.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let mut fields = text(values.get(0).unwrap_or_default()).split(|&byte| byte == b'-');
    let trace = fields.next().filter(|digits| digits.len() == 32).and_then(trace_id);
    let span = fields.next().and_then(span_id);
    let decision = fields.next();
    let flags = decision.and_then(sampled);
    if decision.is_some_and(|text| !text.is_empty() && flags.is_none()) || fields.next().is_some() {
        return Read::Malformed;
    }
    Read::ids(trace, span, flags)
}
