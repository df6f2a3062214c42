//! One span a line, made for `jq`. Field names, their order and their types are stable.

use ktrace_kafka::context::{SpanId, TraceId};

use super::format::Format;
use super::{Kind, Link, Resource, Span, Status, Value};

/// So many lines are some 64 KiB: they stay in the processor's cache until they are written.
const LINES: usize = 48;

/// The format `json`.
///
/// Lines are put together by hand: most of a line is names that are known to need no escapes, and a resource that is the same in
/// every line of a process.
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
    trace_id(out, span.trace_id);
    put(out, r#","span_id":"#);
    span_id(out, span.span_id);
    put(out, r#","parent_span_id":"#);
    match span.parent {
        Some(id) => span_id(out, id),
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
    trace_id(out, link.trace_id);
    put(out, r#","span_id":"#);
    span_id(out, link.span_id);
    put(out, r#","attributes":{"#);
    if let Some((name, value)) = &link.attribute {
        put(out, "\"");
        attribute(out, name, value);
    }
    put(out, "}}");
}

/// From behind the name's first quotation mark on. Names are of this program, or of the conventions: no escapes in them.
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

/// Inlined, so that a text of this file is a few words to store, and no call.
#[inline(always)]
fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A text in quotation marks.
fn text(out: &mut Vec<u8>, text: &str) {
    // No early end: so it is done for many bytes at once.
    let needs_escape = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if text.bytes().fold(false, |any, byte| any | needs_escape(byte)) {
        return serialized(out, text);
    }
    put(out, "\"");
    put(out, text);
    put(out, "\"");
}

fn serialized(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Neither a Vec nor numbers and texts can fail.
    let _ = serde_json::to_writer(out, value);
}

fn trace_id(out: &mut Vec<u8>, id: TraceId) {
    let mut text = [b'"'; 34];
    hex(&id.to_bytes(), &mut text[1..33]);
    out.extend_from_slice(&text);
}

fn span_id(out: &mut Vec<u8>, id: SpanId) {
    let mut text = [b'"'; 18];
    hex(&id.to_bytes(), &mut text[1..17]);
    out.extend_from_slice(&text);
}

/// Lower-case hex, two digits a byte.
#[inline]
fn hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
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
    fn texts_are_escaped_as_everywhere_and_numbers_that_json_lacks_are_null() {
        for hostile in ["", "a\"b", "a\\b", "tab\t", "\u{0}\u{1f}\u{7f}", "naïve \u{2028}🦀", "/"] {
            let mut out = Vec::new();
            text(&mut out, hostile);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(hostile).unwrap());
        }
        for (number, shown) in [(f64::NAN, "null"), (0.1, "0.1"), (3.0, "3.0")] {
            let mut out = Vec::new();
            native(&mut out, &Value::Double(number));
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }
}
