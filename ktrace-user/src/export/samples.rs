//! The spans that golden tests of all sinks show.

use ktrace_kafka::context::{SpanId, TraceId};

use crate::span::{Kind, Link, Resource, Span, Status, Value};

/// 2026-01-02 12:00:01.234 UTC
const SENT: u64 = 1_767_355_201_234_000_000;

fn text(text: &'static str) -> Value<'static> {
    text.into()
}

/// Kept for ever, as spans only borrow.
pub fn resource(service: &str) -> &'static Resource {
    let service = service.to_owned().into();
    let attributes = vec![("process.pid".into(), Value::Int(7)), ("service.name".into(), service)];
    Box::leak(Box::new(Resource::new(attributes)))
}

fn span(service: &str, operation: &'static str) -> Span<'static> {
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128;
    Span {
        trace_id: TraceId::new(trace.to_be_bytes()).unwrap(),
        span_id: SpanId::new(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()).unwrap(),
        parent: None,
        trace_state: None,
        links: vec![],
        name: match operation {
            "send" => "send orders",
            "poll" => "poll orders",
            "ack" => "ack orders",
            _ => "commit orders",
        },
        kind: Kind::Client,
        start_ns: SENT - 3_100_000,
        end_ns: SENT,
        status: Status::Unset,
        resource: resource(service),
        attributes: vec![
            ("messaging.system", text("kafka")),
            ("messaging.operation.name", text(operation)),
            ("messaging.destination.name", text("orders")),
            ("messaging.destination.partition.id", text("2")),
            ("messaging.kafka.offset", Value::Int(1042)),
        ],
    }
}

pub fn send() -> Span<'static> {
    let mut span = span("orders-api", "send");
    span.parent = SpanId::new([9; 8]);
    span.trace_state = Some("vendor=a,other=b");
    span.attributes.push(("ktrace.acks", text("all")));
    span
}

pub fn poll() -> Span<'static> {
    let mut span = span("billing", "poll");
    span.kind = Kind::Consumer;
    span.end_ns = SENT + 16_000_000;
    span.links = vec![Link {
        trace_id: span.trace_id,
        span_id: SpanId::new([1; 8]).unwrap(),
        attribute: Some(("ktrace.derived", Value::Bool(true))),
    }];
    span.attributes.extend([
        ("messaging.consumer.group.name", text("billing")),
        ("ktrace.queue_time_ms", Value::Double(12.0)),
        ("ktrace.lag", Value::Int(0)),
    ]);
    span
}

pub fn failed() -> Span<'static> {
    let mut span = span("orders-api", "send");
    span.kind = Kind::Producer;
    span.status = Status::Error("NOT_ENOUGH_REPLICAS");
    span.attributes.retain(|(name, _)| *name != "messaging.kafka.offset");
    span.attributes.extend([
        ("ktrace.acks", text("all")),
        ("ktrace.derived", Value::Bool(true)),
        ("error.type", text("NOT_ENOUGH_REPLICAS")),
    ]);
    span
}

pub fn commit() -> Span<'static> {
    let mut span = span("billing", "commit");
    span.attributes.push(("messaging.consumer.group.name", text("billing")));
    span
}

pub fn acknowledgement() -> Span<'static> {
    let mut span = span("billing", "ack");
    span.attributes.extend([
        ("messaging.consumer.group.name", text("billing")),
        ("ktrace.acknowledge.type", text("release")),
        ("ktrace.acknowledge.messages", Value::Int(3)),
    ]);
    span
}
