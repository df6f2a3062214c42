//! A hop as a span: the one place where spans are made.
//!
//! OpenTelemetry's semantic conventions for Kafka, 1.44.0; where ktrace differs, and why, is in
//! `docs/semantics.md`.

use std::sync::Arc;

use ktrace_kafka::context::{SpanId, TraceId};
use ktrace_kafka::protocol::error;

use super::groups::Reader;
use super::progress::Open;
use super::refusal::Operation;
use super::stamp::Stamp;
use super::topics::Topics;
use super::{Hop, Kind, Parties, Passage, Topic, TopicName, identity, own};
use crate::span::{Attributes, INFERRED, Kind as SpanKind, Link, Span, Status, Value};

/// What a span has that has all attributes.
const MOST_ATTRIBUTES: usize = 33;

/// A hop's topic as it is shown: its name, or its id in the name's place.
pub fn shown(topic: &Topic) -> Arc<TopicName> {
    match topic {
        Topic::Named(name) => Arc::clone(name),
        Topic::Id(id) => Topics::unnamed(*id),
    }
}

impl Hop {
    /// The span that shows the hop.
    #[must_use]
    pub fn span<'a>(&'a self, topic: &'a TopicName) -> Span<'a> {
        self.passage.span(&self.parties, topic, matches!(self.topic, Topic::Named(_)))
    }
}

impl Passage {
    /// The span that shows the message between its parties. `topic` is shown as it is; `named` says
    /// that it is the topic's name.
    #[must_use]
    pub(super) fn span<'a>(&'a self, parties: &'a Parties, topic: &'a TopicName, named: bool) -> Span<'a> {
        let trace_id = self.trace_id();
        let span_id = self.span_id(parties, topic);
        // The span that the headers name is the parent. Where they name none, the `send` span is
        // what it all begins with.
        let sent_by = self.context.as_ref().and_then(|context| context.span_id);
        let (parent, kind, name, mut links) = match &self.kind {
            Kind::Produced { .. } => {
                let kind = if sent_by.is_some() { SpanKind::Client } else { SpanKind::Producer };
                (sent_by, kind, &*topic.send, vec![])
            }
            Kind::Delivered { .. } => {
                let send = identity::send_span_id(self.derived, &topic.name);
                // Without the topic's name the `send` span's id is not known, and no parent beats a
                // wrong one.
                let links = if named { vec![link(trace_id, send, sent_by.is_none())] } else { vec![] };
                (sent_by.or(named.then_some(send)), SpanKind::Consumer, &*topic.poll, links)
            }
            Kind::Committed(commit) => {
                let (last, links) = settled(&commit.covered.shown);
                (last, SpanKind::Client, &*topic.commit, links)
            }
            Kind::Acknowledged(acknowledgement) => {
                let (last, links) = settled(&acknowledgement.shown);
                (last, SpanKind::Client, &*topic.ack, links)
            }
            // A receive without a message, and so without a producer.
            Kind::Refused(of) => {
                let name = match of.operation {
                    Operation::Poll => &*topic.poll,
                    Operation::Request(name) => name,
                };
                (None, SpanKind::Client, name, vec![])
            }
        };
        if let Some(context) = &self.context {
            links.extend(context.others.iter().map(|other| Link {
                trace_id: other.trace_id,
                span_id: other.span_id,
                attribute: Some(("ktrace.context.format", other.format.into())),
            }));
        }
        if let Some(cause) = &self.cause {
            links.push(Link {
                trace_id: cause.trace_id,
                span_id: cause.span_id,
                attribute: Some((INFERRED, "key".into())),
            });
        }
        let status = if self.has_failed() {
            Status::Error(error::name(self.error).unwrap_or("_OTHER"))
        } else {
            Status::Unset
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

    /// The id of the span that shows it.
    #[must_use]
    pub fn span_id(&self, parties: &Parties, topic: &TopicName) -> SpanId {
        match &self.kind {
            Kind::Produced { .. } => identity::send_span_id(self.derived, &topic.name),
            Kind::Delivered { delivery, .. } => {
                identity::poll_span_id(self.derived, &topic.name, parties.client_id.as_deref(), *delivery)
            }
            Kind::Committed(commit) => identity::commit_span_id(commit.place, &topic.name),
            Kind::Acknowledged(of) => identity::ack_span_id(of.place, &topic.name),
            Kind::Refused(of) => identity::refusal_span_id(of.place),
        }
    }

    fn attributes<'a>(&'a self, parties: &'a Parties, topic: &'a str, status: Status) -> Attributes<'a> {
        let (operation, operation_type) = match &self.kind {
            Kind::Produced { .. } => ("send", Some("send")),
            Kind::Delivered { .. } => ("poll", Some("receive")),
            Kind::Committed(_) => ("commit", Some("settle")),
            Kind::Acknowledged(_) => ("ack", Some("settle")),
            Kind::Refused(of) => {
                (of.operation.name(), (of.operation == Operation::Poll).then_some("receive"))
            }
        };
        let broker = &*parties.broker_address;
        let port = i64::from(parties.broker_port);
        let mut attributes = Vec::with_capacity(MOST_ATTRIBUTES);
        let mut add = |name, value: Value<'a>| attributes.push((name, value));
        add("messaging.system", "kafka".into());
        add("messaging.operation.name", operation.into());
        if let Some(operation_type) = operation_type {
            add("messaging.operation.type", operation_type.into());
        }
        // What is refused as a whole has neither.
        if !topic.is_empty() {
            add("messaging.destination.name", topic.into());
        }
        if !topic.is_empty() && (self.partition >= 0 || !matches!(self.kind, Kind::Refused(_))) {
            add("messaging.destination.partition.id", partition(self.partition));
        }
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
        match (&self.kind, self.value_len) {
            (Kind::Committed(_) | Kind::Acknowledged(_) | Kind::Refused(_), _) => {}
            (_, None) => add("messaging.kafka.message.tombstone", Value::Bool(true)),
            (_, Some(len)) => {
                add("messaging.message.body.size", Value::Int(len.try_into().unwrap_or(i64::MAX)));
            }
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
        match &self.kind {
            Kind::Produced { acks, attempt, pending, .. } => {
                let acks = match acks {
                    0 => "0",
                    1 => "1",
                    _ => "all",
                };
                add("ktrace.acks", acks.into());
                let became = match (self.has_failed(), acks) {
                    (false, "0") => "unacknowledged",
                    (false, _) => "acked",
                    _ if pending.is_some() => "retriable",
                    _ => "failed",
                };
                add("ktrace.status", became.into());
                // The broker gave its offset to an attempt before.
                if self.error != 0 && !self.has_failed() {
                    add("ktrace.duplicate", Value::Bool(true));
                }
                if *attempt > 1 {
                    add("ktrace.attempts", Value::Int((*attempt).into()));
                }
            }
            Kind::Delivered { lag, times, is_behind, is_uncommitted, .. } => {
                reader(&parties.reader, &mut add);
                if let Some(times) = times.filter(|times| *times > 1) {
                    add("ktrace.delivery.count", Value::Int(times.into()));
                }
                if *is_behind {
                    add("ktrace.out_of_order", Value::Bool(true));
                }
                if *is_uncommitted {
                    add("ktrace.uncommitted", Value::Bool(true));
                }
                if self.is_catching_up() {
                    add("ktrace.catching_up", Value::Bool(true));
                }
                if let Some(lag) = lag {
                    add("ktrace.lag", Value::Int(*lag));
                }
                match self.queue_time() {
                    Some(QueueTime::Milliseconds(time)) => add("ktrace.queue_time_ms", Value::Double(time)),
                    Some(QueueTime::Skew(time)) => add("ktrace.clock_skew_ms", Value::Double(time)),
                    None => {}
                }
                if let Some(time_ns) = self.end_to_end_ns() {
                    add("ktrace.end_to_end_ms", Value::Double(milliseconds(time_ns)));
                }
            }
            Kind::Committed(commit) => {
                reader(&parties.reader, &mut add);
                let messages = i64::try_from(commit.covered.messages).unwrap_or(i64::MAX);
                add("ktrace.commit.messages", Value::Int(messages));
                if commit.covered.goes_back {
                    add("ktrace.commit.goes_back", Value::Bool(true));
                }
            }
            Kind::Acknowledged(of) => {
                reader(&parties.reader, &mut add);
                add("ktrace.acknowledge.type", of.of.name().into());
                let messages = i64::try_from(of.messages).unwrap_or(i64::MAX);
                add("ktrace.acknowledge.messages", Value::Int(messages));
            }
            Kind::Refused(of) => {
                reader(&parties.reader, &mut add);
                let count = i64::try_from(of.count).unwrap_or(i64::MAX);
                add("ktrace.refused.count", Value::Int(count));
            }
        }
        if self.stamp() == Stamp::Implausible {
            add("ktrace.timestamp.implausible", Value::Bool(true));
        }
        let throttle_ms = self.throttle_ms();
        if throttle_ms > 0 {
            add("ktrace.throttle_ms", Value::Int(throttle_ms.into()));
        }
        match (&self.kind, &self.context) {
            (Kind::Committed(_) | Kind::Acknowledged(_) | Kind::Refused(_), _) => {}
            (_, Some(context)) => add("ktrace.context.format", context.format.into()),
            (_, None) => add("ktrace.derived", Value::Bool(true)),
        }
        if let Some((transaction, state)) = &self.transaction {
            add("ktrace.transaction.state", state.name().into());
            if let Some(id) = &transaction.transactional_id {
                add("ktrace.transaction.id", (&**id).into());
            }
        }
        if self.truncated {
            add("ktrace.truncated", Value::Bool(true));
        }
        if let Status::Error(name) = status {
            add("error.type", name.into());
        }
        // A backend may write the span to Kafka, where it has to be known again.
        debug_assert!(attributes.iter().any(|(name, _)| own::NAMES.contains(name)), "{attributes:?}");
        attributes
    }

    /// How long the client has to wait by its quota.
    fn throttle_ms(&self) -> u32 {
        match &self.kind {
            Kind::Produced { throttle_ms, .. } | Kind::Delivered { throttle_ms, .. } => *throttle_ms,
            Kind::Committed(commit) => commit.throttle_ms,
            Kind::Acknowledged(acknowledgement) => acknowledgement.throttle_ms,
            Kind::Refused(refusal) => refusal.throttle_ms,
        }
    }

    /// From the record's timestamp to the end of its delivery; none for a record without one that
    /// can be a time.
    fn queue_time(&self) -> Option<QueueTime> {
        let (queue_ns, stamped_ns) = (self.queue_ns()?, self.stamp().ns()?);
        Some(match stamped_ns.saturating_sub(self.end_ns) {
            // Timestamps are no more precise.
            0..1_000_000 => QueueTime::Milliseconds(milliseconds(queue_ns)),
            ahead_ns => QueueTime::Skew(milliseconds(ahead_ns)),
        })
    }
}

/// How long a message has waited, as far as two hosts' clocks agree.
enum QueueTime {
    Milliseconds(f64),
    /// It has come before it was sent: by so much at least the clocks differ.
    Skew(f64),
}

/// In microseconds, of which a double holds those of centuries.
fn milliseconds(nanos: u64) -> f64 {
    (nanos / 1000) as f64 / 1000.0
}

/// Who got the messages.
fn reader<'a>(reader: &'a Reader, add: &mut impl FnMut(&'static str, Value<'a>)) {
    if let Some(group) = reader.group() {
        add("messaging.consumer.group.name", (&**group).into());
    }
    if let Reader::Member(member) = reader {
        if !member.id.is_empty() {
            add("ktrace.consumer.member.id", (&*member.id).into());
        }
        if let Some(generation) = member.generation {
            add("ktrace.consumer.generation", Value::Int(generation.into()));
        }
    }
}

/// What settles messages stands in the trace of the last of them, and names the others.
fn settled(shown: &[Open]) -> (Option<SpanId>, Vec<Link<'static>>) {
    let others = shown.iter().skip(1).map(|open| link(open.trace_id, open.span_id, false));
    (shown.first().map(|last| last.span_id), others.collect())
}

/// A link to the `send` span. Jaeger takes a link to the parent for all that is known of the two,
/// and shows the span as one that follows the parent, unless the link says that it is the parent's
/// child.
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
