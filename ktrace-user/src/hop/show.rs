//! A hop as a span: the one place where spans are made.
//!
//! OpenTelemetry's semantic conventions for Kafka, 1.44.0; where ktrace differs, and why, is in `docs/semantics.md`.

use std::sync::Arc;

use ktrace_kafka::context::{SpanId, TraceId};
use ktrace_kafka::protocol::error;

use super::waiting::shown;
use super::{Hop, Kind, Topic, identity};
use crate::export::{Kind as SpanKind, Link, Span, Status, Value};

impl Hop {
    /// The span that shows the hop.
    #[must_use]
    pub fn span(&self) -> Span {
        let topic = shown(&self.topic);
        let send = identity::send_span_id(self.derived, &topic.name);
        let trace_id = self.trace_id();
        // The span that the headers name is the parent. Where they name none, the `send` span is what it all begins with.
        let sent_by = self.context.as_ref().and_then(|context| context.span_id);
        let named = matches!(self.topic, Topic::Named(_));
        let (span_id, parent, kind, name, mut links) = match &self.kind {
            Kind::Produced { .. } => {
                let kind = if sent_by.is_some() { SpanKind::Client } else { SpanKind::Producer };
                (send, sent_by, kind, &topic.send, vec![])
            }
            Kind::Delivered { delivery, .. } => {
                let id =
                    identity::poll_span_id(self.derived, &topic.name, self.client_id.as_deref(), *delivery);
                // Without the topic's name the `send` span's id is not known, and no parent beats a wrong one.
                let links = if named { vec![link(trace_id, send, sent_by.is_none())] } else { vec![] };
                (id, sent_by.or(named.then_some(send)), SpanKind::Consumer, &topic.poll, links)
            }
        };
        if let Some(context) = &self.context {
            links.extend(context.others.iter().map(|other| Link {
                trace_id: other.trace_id,
                span_id: other.span_id,
                attributes: vec![("ktrace.context.format", text(other.format))],
            }));
        }
        let status = match self.error {
            0 => Status::Unset,
            code => Status::Error(error::name(code).unwrap_or("_OTHER").into()),
        };
        Span {
            trace_id,
            span_id,
            parent,
            trace_state: self.context.as_ref().and_then(|context| context.state.clone()),
            links,
            name: Arc::clone(name),
            kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns.max(self.start_ns),
            attributes: self.attributes(&topic.name, &status),
            status,
            resource: Arc::clone(&self.resource),
        }
    }

    fn attributes(&self, topic: &Arc<str>, status: &Status) -> Vec<(&'static str, Value)> {
        let (operation, operation_type) = match self.kind {
            Kind::Produced { .. } => ("send", "send"),
            Kind::Delivered { .. } => ("poll", "receive"),
        };
        let broker = Value::Str(Arc::clone(&self.broker_address));
        let port = Value::Int(self.broker_port.into());
        let mut attributes = Vec::with_capacity(20);
        attributes.extend([
            ("messaging.system", text("kafka")),
            ("messaging.operation.name", text(operation)),
            ("messaging.operation.type", text(operation_type)),
            ("messaging.destination.name", Value::Str(Arc::clone(topic))),
            ("messaging.destination.partition.id", partition(self.partition)),
        ]);
        let mut add = |name, value: Option<Value>| attributes.extend(value.map(|value| (name, value)));
        add("messaging.kafka.offset", self.offset.map(Value::Int));
        add("messaging.client.id", self.client_id.clone().map(Value::Str));
        add("messaging.kafka.cluster.id", self.cluster_id.clone().map(Value::Str));
        add("messaging.kafka.message.tombstone", self.value_len.is_none().then_some(Value::Bool(true)));
        add(
            "messaging.message.body.size",
            self.value_len.and_then(|len| i64::try_from(len).ok()).map(Value::Int),
        );
        add("server.address", Some(broker.clone()));
        add("server.port", Some(port.clone()));
        add("network.peer.address", Some(broker));
        add("network.peer.port", Some(port));
        if let Some(client) = &self.client {
            add("client.address", Some(Value::Str(Arc::clone(&client.address))));
            add("client.port", Some(Value::Int(client.port.into())));
            add("ktrace.side", Some(text("broker")));
        }
        match &self.kind {
            Kind::Produced { acks } => {
                let acks = match acks {
                    0 => "0",
                    1 => "1",
                    _ => "all",
                };
                add("ktrace.acks", Some(text(acks)));
            }
            Kind::Delivered { group, lag, .. } => {
                add("messaging.consumer.group.name", group.clone().map(Value::Str));
                add("ktrace.lag", lag.map(Value::Int));
                add("ktrace.queue_time_ms", self.queue_time_ms().map(Value::Double));
            }
        }
        match &self.context {
            Some(context) => add("ktrace.context.format", Some(text(context.format))),
            None => add("ktrace.derived", Some(Value::Bool(true))),
        }
        add("ktrace.truncated", self.truncated.then_some(Value::Bool(true)));
        if let Status::Error(name) = status {
            add("error.type", Some(Value::Str(Arc::clone(name))));
        }
        attributes
    }

    /// From the record's timestamp to the end of its delivery, in milliseconds; none for a record without a timestamp,
    /// and never negative: the record's clock may be another's.
    fn queue_time_ms(&self) -> Option<f64> {
        let stamped_ns = u64::try_from(self.timestamp_ms).ok()?.checked_mul(1_000_000)?;
        let micros = u32::try_from(self.end_ns.saturating_sub(stamped_ns).checked_div(1000)?).ok();
        // Beyond an hour microseconds do not count.
        Some(micros.map_or_else(
            || {
                f64::from(
                    u32::try_from(self.end_ns.saturating_sub(stamped_ns) / 1_000_000).unwrap_or(u32::MAX),
                )
            },
            |micros| f64::from(micros) / 1000.0,
        ))
    }
}

/// A link to the `send` span. Jaeger takes a link to the parent for all that is known of the two, and shows the span as
/// one that follows the parent, unless the link says that it is the parent's child.
fn link(trace_id: TraceId, span_id: SpanId, to_parent: bool) -> Link {
    let attributes = if to_parent { vec![("opentracing.ref_type", text("child_of"))] } else { vec![] };
    Link { trace_id, span_id, attributes }
}

/// A partition's number as text, as the conventions want it.
fn partition(number: i32) -> Value {
    const FIRST: [&str; 16] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    match usize::try_from(number).ok().and_then(|number| FIRST.get(number)) {
        Some(text) => Value::Static(text),
        None => Value::Str(number.to_string().into()),
    }
}

fn text(text: &'static str) -> Value {
    Value::Static(text)
}
