//! OTLP JSON lines as the Collector's file exporter writes them, and its `otlpjsonfile` receiver
//! reads them.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: ids in hex, 64-bit numbers as text, enums as numbers.

use super::environment::Environment;
use super::escape::to_json;
use super::format::Format;
use super::sdk::Converter;
use crate::span::Span;

/// The most spans of a line. A reader holds a whole line in memory.
const BATCH: usize = 512;

/// The format `otlp`: a line for each batch of spans.
pub(super) struct OtlpJson {
    converter: Converter,
}

impl OtlpJson {
    pub fn from_environment() -> Self {
        Self { converter: Converter::of(&Environment::of_process()) }
    }
}

impl Format for OtlpJson {
    fn write(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>, out: &mut Vec<u8>) {
        let request = self.converter.request(spans.take(BATCH));
        // Neither a Vec nor these types can fail.
        if to_json(out, &request).is_ok() {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples;
    use super::*;

    fn lines(spans: &[Span<'_>]) -> Vec<Value> {
        let mut out = Vec::new();
        OtlpJson { converter: Converter::new(vec![]) }.write(&mut spans.iter().cloned(), &mut out);
        out.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn golden_line() {
        let lines = lines(&[samples::failed()]);
        let text = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
        let expected = json!({"resourceSpans": [{
            "resource": {
                "attributes": [{"key": "process.pid", "value": {"intValue": "7"}}, text("service.name", "orders-api")],
                "droppedAttributesCount": 0,
                "entityRefs": [],
            },
            "scopeSpans": [{
                "scope": {"name": "ktrace", "version": env!("CARGO_PKG_VERSION"), "attributes": [], "droppedAttributesCount": 0},
                "spans": [{
                    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "spanId": "00f067aa0ba902b7",
                    "traceState": "",
                    "parentSpanId": "",
                    "flags": 257,
                    "name": "send orders",
                    "kind": 4,
                    "startTimeUnixNano": "1767355201230900000",
                    "endTimeUnixNano": "1767355201234000000",
                    "attributes": [
                        text("messaging.system", "kafka"),
                        text("messaging.operation.name", "send"),
                        text("messaging.destination.name", "orders"),
                        text("messaging.destination.partition.id", "2"),
                        text("ktrace.acks", "all"),
                        {"key": "ktrace.derived", "value": {"boolValue": true}},
                        text("error.type", "NOT_ENOUGH_REPLICAS"),
                    ],
                    "droppedAttributesCount": 0,
                    "events": [],
                    "droppedEventsCount": 0,
                    "links": [],
                    "droppedLinksCount": 0,
                    "status": {"message": "NOT_ENOUGH_REPLICAS", "code": 2},
                }],
                "schemaUrl": "https://opentelemetry.io/schemas/1.44.0",
            }],
            "schemaUrl": "https://opentelemetry.io/schemas/1.44.0",
        }]});
        assert_eq!(lines[0], expected);
    }

    #[test]
    fn a_batch_is_one_line_with_a_resource_for_each_process() {
        let lines = lines(&[samples::send(), samples::poll(), samples::failed()]);
        assert_eq!(lines.len(), 1);
        let resources = lines[0]["resourceSpans"].as_array().unwrap();
        assert_eq!(resources.len(), 2);
        let poll = &resources[1]["scopeSpans"][0]["spans"][0];
        assert_eq!(poll["links"][0]["spanId"], "0101010101010101");
        assert_eq!(poll["links"][0]["flags"], 0x301);
        let send = &resources[0]["scopeSpans"][0]["spans"][0];
        assert_eq!((&send["parentSpanId"], &send["flags"]), (&json!("0909090909090909"), &json!(0x301)));
    }
}
