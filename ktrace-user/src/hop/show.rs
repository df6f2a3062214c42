//! A hop as a span: the one place where spans are made.
//!
//! OpenTelemetry's semantic conventions for Kafka, 1.44.0; where ktrace differs, and why, is in `docs/semantics.md`.

use ktrace_kafka::context::{SpanId, TraceId};
use ktrace_kafka::protocol::error;

use super::{Hop, Kind, Parties, Passage, Topic, TopicName, identity};
use crate::export::{Attributes, Kind as SpanKind, Link, Span, Status, Value};

/// A span with all that there may be has so many.
const MOST_ATTRIBUTES: usize = 23;

impl Hop {
    /// The span that shows the hop.
    #[must_use]
    pub fn span<'a>(&'a self, topic: &'a TopicName) -> Span<'a> {
        self.passage.span(&self.parties, topic, matches!(self.topic, Topic::Named(_)))
    }
}

impl Passage {
    /// The span that shows the message between its parties. `topic` is shown as it is; `named` says that it is the topic's
    /// name.
    #[must_use]
    pub(super) fn span<'a>(&'a self, parties: &'a Parties, topic: &'a TopicName, named: bool) -> Span<'a> {
        let send = identity::send_span_id(self.derived, &topic.name);
        let trace_id = self.trace_id();
        // The span that the headers name is the parent. Where they name none, the `send` span is what it all begins with.
        let sent_by = self.context.as_ref().and_then(|context| context.span_id);
        let (span_id, parent, kind, name, mut links) = match self.kind {
            Kind::Produced { .. } => {
                let kind = if sent_by.is_some() { SpanKind::Client } else { SpanKind::Producer };
                (send, sent_by, kind, &topic.send, vec![])
            }
            Kind::Delivered { delivery, .. } => {
                let client_id = parties.client_id.as_deref();
                let id = identity::poll_span_id(self.derived, &topic.name, client_id, delivery);
                // Without the topic's name the `send` span's id is not known, and no parent beats a wrong one.
                let links = if named { vec![link(trace_id, send, sent_by.is_none())] } else { vec![] };
                (id, sent_by.or(named.then_some(send)), SpanKind::Consumer, &topic.poll, links)
            }
        };
        if let Some(context) = &self.context {
            links.extend(context.others.iter().map(|other| Link {
                trace_id: other.trace_id,
                span_id: other.span_id,
                attribute: Some(("ktrace.context.format", other.format.into())),
            }));
        }
        let status = match self.error {
            0 => Status::Unset,
            code => Status::Error(error::name(code).unwrap_or("_OTHER")),
        };
        Span {
            trace_id,
            span_id,
            parent,
            trace_state: self.context.as_ref().and_then(|context| context.state.as_deref()),
            links,
            name,
            kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns.max(self.start_ns),
            attributes: self.attributes(parties, &topic.name, status),
            status,
            resource: &parties.resource,
        }
    }

    fn attributes<'a>(&'a self, parties: &'a Parties, topic: &'a str, status: Status) -> Attributes<'a> {
        let (operation, operation_type) = match self.kind {
            Kind::Produced { .. } => ("send", "send"),
            Kind::Delivered { .. } => ("poll", "receive"),
        };
        let broker = &*parties.broker_address;
        let port = i64::from(parties.broker_port);
        let mut attributes = Vec::with_capacity(MOST_ATTRIBUTES);
        let mut add = |name, value: Value<'a>| attributes.push((name, value));
        add("messaging.system", "kafka".into());
        add("messaging.operation.name", operation.into());
        add("messaging.operation.type", operation_type.into());
        add("messaging.destination.name", topic.into());
        add("messaging.destination.partition.id", partition(self.partition));
        if let Some(offset) = self.offset {
            add("messaging.kafka.offset", Value::Int(offset));
        }
        if let Some(id) = &parties.client_id {
            add("messaging.client.id", (&**id).into());
        }
        if let Some(id) = &parties.cluster_id {
            add("messaging.kafka.cluster.id", (&**id).into());
        }
        if let Some(key) = &self.key {
            add("messaging.kafka.message.key", Value::Str(key.text()));
        }
        match self.value_len {
            None => add("messaging.kafka.message.tombstone", Value::Bool(true)),
            Some(len) => add("messaging.message.body.size", Value::Int(len.try_into().unwrap_or(i64::MAX))),
        }
        add("server.address", broker.into());
        add("server.port", Value::Int(port));
        add("network.peer.address", broker.into());
        add("network.peer.port", Value::Int(port));
        if let Some(client) = &parties.client {
            add("client.address", (&*client.address).into());
            add("client.port", Value::Int(client.port.into()));
            add("ktrace.side", "broker".into());
        }
        match self.kind {
            Kind::Produced { acks } => {
                let acks = match acks {
                    0 => "0",
                    1 => "1",
                    _ => "all",
                };
                add("ktrace.acks", acks.into());
            }
            Kind::Delivered { lag, .. } => {
                if let Some(group) = &parties.group {
                    add("messaging.consumer.group.name", (&**group).into());
                }
                if let Some(lag) = lag {
                    add("ktrace.lag", Value::Int(lag));
                }
                if let Some(milliseconds) = self.queue_time_ms() {
                    add("ktrace.queue_time_ms", Value::Double(milliseconds));
                }
            }
        }
        match &self.context {
            Some(context) => add("ktrace.context.format", context.format.into()),
            None => add("ktrace.derived", Value::Bool(true)),
        }
        if self.truncated {
            add("ktrace.truncated", Value::Bool(true));
        }
        if let Status::Error(name) = status {
            add("error.type", name.into());
        }
        attributes
    }

    fn queue_time_ms(&self) -> Option<f64> {
        let queue_ns = self.queue_ns()?;
        // Beyond an hour microseconds do not count.
        Some(match u32::try_from(queue_ns / 1000) {
            Ok(micros) => f64::from(micros) / 1000.0,
            Err(_) => f64::from(u32::try_from(queue_ns / 1_000_000).unwrap_or(u32::MAX)),
        })
    }
}

/// A link to the `send` span. Jaeger takes a link to the parent for all that is known of the two, and shows the span as
/// one that follows the parent, unless the link says that it is the parent's child.
fn link(trace_id: TraceId, span_id: SpanId, to_parent: bool) -> Link<'static> {
    let attribute = to_parent.then(|| ("opentracing.ref_type", "child_of".into()));
    Link { trace_id, span_id, attribute }
}

/// A partition's number as text, as the conventions want it.
fn partition(number: i32) -> Value<'static> {
    const FIRST: [&str; 16] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    match usize::try_from(number).ok().and_then(|number| FIRST.get(number)) {
        Some(text) => (*text).into(),
        None => number.to_string().into(),
    }
}
