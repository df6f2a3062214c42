//! W3C Trace Context: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>).

use super::hex;
use super::id::{SpanId, TraceId};
use super::read::{Read, Values};
use super::text::text;

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LEN: usize = 55;

/// The longest `tracestate` that is passed on, in bytes; the specification asks for at least 512.
const MAX_STATE_BYTES: usize = 1024;

pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    // A state without a parent says nothing.
    let Some(parent) = values.get(0) else { return Read::Nothing };
    let state = values.get(1).and_then(state);
    parse(text(parent), state).unwrap_or(Read::Malformed)
}

fn state(value: &[u8]) -> Option<&str> {
    let short = Some(value).filter(|state| state.len() <= MAX_STATE_BYTES)?;
    // Its grammar is ASCII.
    let state = Some(text(short)).filter(|state| is_state(state))?;
    std::str::from_utf8(state).ok()
}

/// Whether it is a list of 1 to 32 members, some of which may be empty
/// (<https://www.w3.org/TR/trace-context/#list>). One that breaks its grammar must not be passed
/// on, not even in part (<https://www.w3.org/TR/trace-context/#a-traceparent-is-received>).
fn is_state(list: &[u8]) -> bool {
    const MEMBERS: usize = 32;
    let mut members = 0_usize;
    for member in list.split(|byte| *byte == b',').map(without_blanks).filter(|member| !member.is_empty()) {
        members = members.saturating_add(1);
        let key = member.split(|byte| *byte == b'=').next().unwrap_or_default();
        let value = member.get(key.len()..).and_then(|rest| rest.strip_prefix(b"="));
        if members > MEMBERS || !is_key(key) || !value.is_some_and(is_value) {
            return false;
        }
    }
    members > 0
}

/// Blanks around a member are none of it.
fn without_blanks(member: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = member.iter().position(|byte| !is_blank(byte)).unwrap_or(member.len());
    let behind = member.iter().rposition(|byte| !is_blank(byte)).map_or(from, |last| last.saturating_add(1));
    member.get(from..behind).unwrap_or_default()
}

/// As in level 2, which lets in what level 1 does: at most 256 characters, the first a letter or a
/// digit.
fn is_key(key: &[u8]) -> bool {
    let known = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let starts = key.first().is_some_and(|first| matches!(first, b'a'..=b'z' | b'0'..=b'9'));
    starts && key.len() <= 256 && key.iter().all(known)
}

/// At most 256 printable characters.
fn is_value(value: &[u8]) -> bool {
    let known = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(known)
}

/// The id of a .NET activity under a key that has other uses too (`parent-id`, of Wolverine): a
/// `traceparent`, or nothing.
pub fn read_perhaps<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    parse(text(values.get(0).unwrap_or_default()), None).unwrap_or(Read::Nothing)
}

/// The id of a .NET activity (`MT-Activity-Id`, of MassTransit; `Diagnostic-Id`, of Azure's
/// libraries): a `traceparent`, or of .NET's own hierarchical form, which has no trace id of 16
/// bytes (<https://learn.microsoft.com/dotnet/api/system.diagnostics.activity.id>).
pub fn read_activity<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let id = text(values.get(0).unwrap_or_default());
    if id.starts_with(b"|") { Read::Nothing } else { parse(id, None).unwrap_or(Read::Malformed) }
}

/// Reads a `traceparent`.
#[inline(always)]
pub fn parse<'a>(parent: &[u8], state: Option<&'a str>) -> Option<Read<'a>> {
    let (known, more) = parent.split_first_chunk::<LEN>()?;
    // Every field has its place.
    let (version, rest) = known.split_first_chunk::<2>()?;
    let (trace, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<32>()?;
    let (span, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let flags = match rest.strip_prefix(b"-")? {
        b"01" => 1,
        b"00" => 0,
        flags => u8::from_be_bytes(hex::decode(flags)?),
    };
    if version != b"00" || !more.is_empty() {
        let [version]: [u8; 1] = hex::decode(version)?;
        let longer_is_legal = version != 0 && more.first() == Some(&b'-');
        if version == 0xff || !(more.is_empty() || longer_is_legal) {
            return None;
        }
    }
    let (trace_id, span_id) = (TraceId::new(hex::decode(trace)?)?, SpanId::new(hex::decode(span)?)?);
    Some(Read::Context { trace_id, span_id: Some(span_id), flags: Some(flags), state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_breaks_its_grammar_is_none() {
        let long = format!("a={}", "x".repeat(256));
        let many = |count: usize| vec!["k=v"; count].join(",");
        for good in
            ["a=1", "a=1,b=2", " a=1 ,\tb=2, ,", "tenant@system=00f067aa", "0a_-*/=!~ x", &long, &many(32)]
        {
            assert_eq!(state(good.as_bytes()).map(str::trim), Some(good.trim()), "{good}");
        }
        let longer = format!("a={}", "x".repeat(257));
        let key = format!("{}=1", "k".repeat(257));
        for wrong in [
            "",
            " ",
            ",",
            "a",
            "a=",
            "=1",
            "A=1",
            "a b=1",
            "a=1=2",
            "a=1,b",
            "a=\u{7f}",
            "a=\n1",
            "a=é",
            "_a=1",
            "a=1\u{202e}",
            &longer,
            &key,
            &many(33),
        ] {
            assert_eq!(state(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(state(b"a=\xff"), None);
    }
}
