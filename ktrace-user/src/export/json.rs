//! One span a line, made for `jq`. Field names, their order and their types are stable.

use serde::{Serialize, Serializer};

use super::format::Format;
use super::{Attributes, Kind, Resource, Span, Status, Value};

/// The format `json`.
pub(super) struct Json;

impl Format for Json {
    fn write(&mut self, spans: &[Span], out: &mut Vec<u8>) {
        for span in spans {
            // Neither a Vec nor these types can fail.
            if serde_json::to_writer(&mut *out, &Line::from(span)).is_ok() {
                out.push(b'\n');
            }
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    links: Vec<LinkLine<'a>>,
    name: &'a str,
    kind: &'static str,
    start_unix_nanos: u64,
    end_unix_nanos: u64,
    status: &'static str,
    #[serde(serialize_with = "resource")]
    resource: &'a Resource,
    #[serde(serialize_with = "attributes")]
    attributes: &'a Attributes,
}

#[derive(Serialize)]
struct LinkLine<'a> {
    trace_id: String,
    span_id: String,
    #[serde(serialize_with = "attributes")]
    attributes: &'a Attributes,
}

impl<'a> From<&'a Span> for Line<'a> {
    fn from(span: &'a Span) -> Self {
        let links = span.links.iter().map(|link| LinkLine {
            trace_id: link.trace_id.to_string(),
            span_id: link.span_id.to_string(),
            attributes: &link.attributes,
        });
        Self {
            trace_id: span.trace_id.to_string(),
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent.map(|id| id.to_string()),
            links: links.collect(),
            name: &span.name,
            kind: match span.kind {
                Kind::Internal => "internal",
                Kind::Client => "client",
                Kind::Producer => "producer",
                Kind::Consumer => "consumer",
            },
            start_unix_nanos: span.start_ns,
            end_unix_nanos: span.end_ns,
            status: match span.status {
                Status::Unset => "unset",
                Status::Error(_) => "error",
            },
            resource: &span.resource,
            attributes: &span.attributes,
        }
    }
}

fn resource<S: Serializer>(resource: &Resource, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(resource.attributes.iter().map(|(name, value)| (&**name, Native(value))))
}

fn attributes<S: Serializer>(attributes: &Attributes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(attributes.iter().map(|(name, value)| (name, Native(value))))
}

/// An attribute's value in JSON's own types; numbers that JSON lacks (NaN) become null.
struct Native<'a>(&'a Value);

impl Serialize for Native<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Static(text) => serializer.serialize_str(text),
            Value::Str(text) => serializer.serialize_str(text),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Double(number) => serializer.serialize_f64(*number),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::StrArray(texts) => serializer.collect_seq(texts.iter().map(|text| &**text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn golden_lines() {
        let mut out = Vec::new();
        Json.write(&[samples::send(), samples::poll(), samples::failed()], &mut out);
        let expected = [
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":"0909090909090909","links":[],"name":"send orders","kind":"client","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201234000000,"status":"unset","resource":{"process.pid":7,"service.name":"orders-api"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"send","messaging.destination.name":"orders","messaging.destination.partition.id":"2","messaging.kafka.offset":1042,"ktrace.acks":"all"}}"#,
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":null,"links":[{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"0101010101010101","attributes":{"ktrace.derived":true}}],"name":"poll orders","kind":"consumer","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201250000000,"status":"unset","resource":{"process.pid":7,"service.name":"billing"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"poll","messaging.destination.name":"orders","messaging.destination.partition.id":"2","messaging.kafka.offset":1042,"messaging.consumer.group.name":"billing","ktrace.queue_time_ms":12.0,"ktrace.lag":0}}"#,
            r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","parent_span_id":null,"links":[],"name":"send orders","kind":"producer","start_unix_nanos":1767355201230900000,"end_unix_nanos":1767355201234000000,"status":"error","resource":{"process.pid":7,"service.name":"orders-api"},"attributes":{"messaging.system":"kafka","messaging.operation.name":"send","messaging.destination.name":"orders","messaging.destination.partition.id":"2","ktrace.acks":"all","ktrace.derived":true,"error.type":"NOT_ENOUGH_REPLICAS"}}"#,
            "",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), expected.join("\n"));
    }
}
