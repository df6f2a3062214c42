//! New Relic: JSON in base64 (<https://github.com/newrelic/newrelic-java-agent>,
//! `DistributedTracePayloadImpl`).

use super::base64;
use super::read::{MAX_VALUE_BYTES, Read, Values};
use super::text::{sampled, span_id, text, trace_id};

/// `{"v":[0,1],"d":{"tr":"<trace id>","id":"<span id>","sa":<sampled>,…}}`. The span is missing
/// where the sender records none.
pub fn read<'a>(values: &Values<'_, 'a>) -> Read<'a> {
    let value = text(values.get(0).unwrap_or_default());
    let mut buffer = [0; MAX_VALUE_BYTES];
    // New Relic's own readers take plain JSON as well.
    let json = if value.starts_with(b"{") { Some(value) } else { base64::decode(value, &mut buffer) };
    json.and_then(parse).unwrap_or(Read::Malformed)
}

fn parse<'a>(json: &[u8]) -> Option<Read<'a>> {
    let (mut trace, mut span, mut flags) = (None, None, None);
    members(json, |name, value| match name {
        b"tr" => trace = Some(value),
        b"id" => span = Some(value),
        b"sa" => flags = sampled(value),
        _ => {}
    })?;
    let trace_id = trace_id(trace?)?;
    let span_id = match span {
        None => None,
        Some(span) => Some(span_id(span)?),
    };
    Some(Read::Context { trace_id, span_id, flags, state: None })
}

/// Gives the members of the objects one level down: the name, and the value where it is a string
/// (as written, without its quotes) or a word. One pass, without recursion; only strings and
/// nesting are recognised, so what passes may still be no JSON.
fn members<'j>(json: &'j [u8], mut each: impl FnMut(&'j [u8], &'j [u8])) -> Option<()> {
    let mut rest = json.trim_ascii().strip_prefix(b"{")?;
    let mut depth = 1_u32;
    let mut name: Option<&[u8]> = None;
    while depth > 0 {
        rest = rest.trim_ascii_start();
        let (&first, after) = rest.split_first()?;
        match first {
            b'"' => {
                let (string, after) = string(after)?;
                rest = after.trim_ascii_start();
                if let Some(value) = rest.strip_prefix(b":") {
                    (name, rest) = (Some(string), value);
                } else if let Some(name) = name.take().filter(|_| depth == 2) {
                    each(name, string);
                }
            }
            b'{' | b'[' => (name, depth, rest) = (None, depth.checked_add(1)?, after),
            b'}' | b']' => (name, depth, rest) = (None, depth.checked_sub(1)?, after),
            b',' => (name, rest) = (None, after),
            _ => {
                let end = rest.iter().position(|byte| b",]} \t\r\n".contains(byte))?;
                let (word, after) = rest.split_at_checked(end)?;
                rest = after;
                if let Some(name) = name.take().filter(|_| depth == 2) {
                    each(name, word);
                }
            }
        }
    }
    rest.is_empty().then_some(())
}

/// What a string holds, and what comes after its closing quote.
fn string(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = rest.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    let (string, after) = rest.split_at_checked(end)?;
    Some((string, after.strip_prefix(b"\"")?))
}

#[cfg(test)]
mod tests {
    use super::members;

    fn seen(json: &str) -> Option<Vec<(String, String)>> {
        let mut seen = vec![];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        members(json.as_bytes(), |name, value| seen.push((text(name), text(value))))?;
        Some(seen)
    }

    #[test]
    fn only_the_members_one_level_down() {
        let pairs = |list: &[(&str, &str)]| {
            Some(list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>())
        };
        assert_eq!(seen(r#"{"tr":"no","d":{"tr":"yes","x":{"tr":"no"}}}"#), pairs(&[("tr", "yes")]));
        assert_eq!(seen(r#" { "d" : { "sa" : true , "n" : 1 } } "#), pairs(&[("sa", "true"), ("n", "1")]));
        assert_eq!(
            seen(r#"{"d":{"a\"tr\":":"}\\","tr":"1"}}"#),
            pairs(&[(r#"a\"tr\":"#, r"}\\"), ("tr", "1")])
        );
        assert_eq!(seen(r#"{"d":["tr","id"]}"#), pairs(&[]));
        assert_eq!(seen("{}"), pairs(&[]));
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for wrong in ["", "{", "[]", r#"{"d"#, r#"{"d":"\"#, r#"{"d":{"tr":"1"}"#, "{}{", r#"{"d":1"#] {
            assert_eq!(seen(wrong), None, "{wrong}");
        }
    }
}
