//! One span a line, made for `jq`. Field names, their order and their types are stable.

use super::escape::to_json;
use super::format::Format;
use crate::span::{Kind, Link, Resource, Span, Status, Value};

/// Lines that are written at once: some 64 KiB, which stay in the processor's cache until then.
const LINES: usize = 48;

/// The format `json`.
///
/// Lines are built by hand, not by serde: most of a line is names known to need no escapes, and a
/// resource that is the same in every line of a process.
pub(super) struct Json;

impl Format for Json {
    fn write(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>, out: &mut Vec<u8>) {
        for span in spans.take(LINES) {
            line(out, &span);
        }
    }
}

fn line(out: &mut Vec<u8>, span: &Span<'_>) {
    put(out, r#"{"trace_id":"#);
    id(out, &span.trace_id.to_bytes());
    put(out, r#","span_id":"#);
    id(out, &span.span_id.to_bytes());
    put(out, r#","parent_span_id":"#);
    match span.parent {
        Some(parent) => id(out, &parent.to_bytes()),
        None => put(out, "null"),
    }
    put(out, r#","links":["#);
    for (at, link) in span.links.iter().enumerate() {
        put(out, if at == 0 { "" } else { "," });
        linked(out, link);
    }
    put(out, r#"],"name":"#);
    text(out, span.name);
    put(
        out,
        match span.kind {
            Kind::Internal => r#","kind":"internal","start_unix_nanos":"#,
            Kind::Client => r#","kind":"client","start_unix_nanos":"#,
            Kind::Producer => r#","kind":"producer","start_unix_nanos":"#,
            Kind::Consumer => r#","kind":"consumer","start_unix_nanos":"#,
        },
    );
    serialized(out, &span.start_ns);
    put(out, r#","end_unix_nanos":"#);
    serialized(out, &span.end_ns);
    put(
        out,
        match span.status {
            Status::Unset => r#","status":"unset","resource":"#,
            Status::Error(_) => r#","status":"error","resource":"#,
        },
    );
    out.extend_from_slice(resource(span.resource));
    put(out, r#","attributes":{"#);
    for (at, (name, value)) in span.attributes.iter().enumerate() {
        put(out, if at == 0 { "\"" } else { ",\"" });
        attribute(out, name, value);
    }
    put(out, "}}\n");
}

fn linked(out: &mut Vec<u8>, link: &Link<'_>) {
    put(out, r#"{"trace_id":"#);
    id(out, &link.trace_id.to_bytes());
    put(out, r#","span_id":"#);
    id(out, &link.span_id.to_bytes());
    put(out, r#","attributes":{"#);
    if let Some((name, value)) = &link.attribute {
        put(out, "\"");
        attribute(out, name, value);
    }
    put(out, "}}");
}

/// An attribute, from behind the name's first quotation mark on. Names come from this program or
/// the conventions, so they need no escapes.
fn attribute(out: &mut Vec<u8>, name: &str, value: &Value<'_>) {
    put(out, name);
    put(out, "\":");
    native(out, value);
}

fn resource(resource: &Resource) -> &[u8] {
    resource.json(|attributes| {
        let mut out = vec![b'{'];
        for (at, (name, value)) in attributes.iter().enumerate() {
            put(&mut out, if at == 0 { "" } else { "," });
            text(&mut out, name);
            put(&mut out, ":");
            native(&mut out, value);
        }
        put(&mut out, "}");
        out
    })
}

/// An attribute's value in JSON's own types; numbers that JSON lacks (NaN) become null.
fn native(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Str(value) => text(out, value),
        Value::Int(number) => serialized(out, number),
        Value::Double(number) => serialized(out, number),
        Value::Bool(true) => put(out, "true"),
        Value::Bool(false) => put(out, "false"),
    }
}

/// Inlined, so that a constant text becomes a few stores instead of a call.
#[inline(always)]
fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A text in quotation marks.
fn text(out: &mut Vec<u8>, text: &str) {
    if needs_escape(text.as_bytes()) {
        // Neither a Vec nor a text can fail.
        let _ = to_json(out, text);
        return;
    }
    put(out, "\"");
    put(out, text);
    put(out, "\"");
}

/// Whether any byte is a control character, a quotation mark, a backslash or not ASCII. Reads eight
/// bytes at a time; most texts are short, so the last word overlaps the one before instead of a
/// loop over single bytes.
fn needs_escape(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().any(|byte| in_any(u64::from(*byte) | SPACES));
    };
    let (words, _) = text.as_chunks::<8>();
    words.iter().chain([last]).any(|word| in_any(u64::from_ne_bytes(*word)))
}

const ONES: u64 = u64::MAX / 0xff;
/// Seven bytes that need no escape.
const SPACES: u64 = (ONES * 0x20) << 8;

/// [`needs_escape`] of eight bytes at once: a byte below another borrows from its highest bit
/// (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>).
#[inline(always)]
fn in_any(word: u64) -> bool {
    let below = |word: u64, byte: u64| word.wrapping_sub(ONES * byte) & !word;
    let is = |byte: u64| below(word ^ (ONES * byte), 1);
    (below(word, 0x20) | is(u64::from(b'"')) | is(u64::from(b'\\')) | word) & (ONES * 0x80) != 0
}

fn serialized(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Neither a Vec nor numbers and texts can fail.
    let _ = serde_json::to_writer(out, value);
}

/// An id in quotation marks, its bytes a multiple of four.
fn id(out: &mut Vec<u8>, bytes: &[u8]) {
    let (fours, _) = bytes.as_chunks::<4>();
    put(out, "\"");
    fours.iter().for_each(|four| out.extend_from_slice(&hex(*four)));
    put(out, "\"");
}

/// Lower-case hex of four bytes: a nibble in each byte of a word, then all digits at once.
#[inline(always)]
fn hex(bytes: [u8; 4]) -> [u8; 8] {
    let spread = |word: u64, by: u32, mask: u64| (word | (word << by)) & mask;
    let nibbles = spread(u32::from_be_bytes(bytes).into(), 16, 0x0000_ffff_0000_ffff);
    let nibbles = spread(nibbles, 8, 0x00ff_00ff_00ff_00ff);
    let nibbles = spread(nibbles, 4, 0x0f0f_0f0f_0f0f_0f0f);
    let letters = ((nibbles + ONES * 6) >> 4) & ONES;
    (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use ktrace_kafka::context::SpanId;

    use super::super::samples;
    use super::*;

    #[test]
    fn golden_lines() {
        let mut out = Vec::new();
        Json.write(&mut [samples::send(), samples::poll(), samples::failed()].into_iter(), &mut out);
        let expected = [
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":"0909090909090909","links":[],"name":"send orders","kind":"client","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201234000000,"status":"unset","resource":{"process.pid":7,"service.name":"orders-api"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"send","messaging.destination.name":"orders","messaging.destination.partition.id":"2","messaging.kafka.offset":1042,"ktrace.acks":"all"}}"#,
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":null,"links":[{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"0101010101010101","attributes":{"ktrace.derived":true}}],"name":"poll orders","kind":"consumer","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201250000000,"status":"unset","resource":{"process.pid":7,"service.name":"billing"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"poll","messaging.destination.name":"orders","messaging.destination.partition.id":"2","messaging.kafka.offset":1042,"messaging.consumer.group.name":"billing","ktrace.queue_time_ms":12.0,"ktrace.lag":0}}"#,
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":null,"links":[],"name":"send orders","kind":"producer","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201234000000,"status":"error","resource":{"process.pid":7,"service.name":"orders-api"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"send","messaging.destination.name":"orders","messaging.destination.partition.id":"2","ktrace.acks":"all","ktrace.derived":true,"error.type":"NOT_ENOUGH_REPLICAS"}}"#,
            "",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), expected.join("\n"));
    }

    #[test]
    fn ids_are_hex() {
        for bytes in [
            [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
            [0xff; 8],
            [0, 9, 0x0a, 0xa0, 0x90, 0x99, 0xaa, 0],
        ] {
            let mut out = Vec::new();
            id(&mut out, &bytes);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{}\"", SpanId::new(bytes).unwrap()));
        }
    }

    #[test]
    fn texts_are_escaped_and_numbers_that_json_lacks_are_null() {
        // Each byte at each place of a word, and of what is left over.
        for byte in 0..0x80_u8 {
            for place in 0..20 {
                let mut bytes = [b'x'; 20];
                bytes[place] = byte;
                let expected = byte < 0x20 || byte == b'"' || byte == b'\\';
                for text in [&bytes[..=place], &bytes[place..], &bytes] {
                    assert_eq!(needs_escape(text), expected, "{byte} at {place}");
                }
            }
        }
        for hostile in ["", "a\"b", "a\\b", "tab\t", "\u{0}\u{1f}\u{7f}", "naïve 🦀", "/", "é", "12345678é"]
        {
            let mut out = Vec::new();
            text(&mut out, hostile);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(hostile).unwrap());
        }
        let mut out = Vec::new();
        text(&mut out, "orders\u{202e}\u{9b}\u{200b}");
        assert_eq!(String::from_utf8(out).unwrap(), r#""orders\u202e\u009b\u200b""#);
        for (number, shown) in [(f64::NAN, "null"), (0.1, "0.1"), (3.0, "3.0")] {
            let mut out = Vec::new();
            native(&mut out, &Value::Double(number));
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }
}
