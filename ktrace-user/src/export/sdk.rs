//! Spans as the OpenTelemetry SDK has them: the one conversion behind both OTLP sinks, and the
//! request that carries them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link as SdkLink, SpanContext, SpanId, SpanKind, Status as SdkStatus, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::{Attributes, ResourceAttributesWithSchema};
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{SpanData, SpanLinks};

use super::environment::Environment;
use crate::span::{Kind, Resource, Span, Status, Value};

/// The semantic conventions that names and values follow.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Attributes of the place where the agent runs.
const OF_THE_HOST: [&str; 8] = [
    "host.",
    "os.",
    "process.",
    "container.",
    "service.instance.",
    "k8s.node.",
    "k8s.pod.",
    "k8s.container.",
];

/// The instrumentation scope of all telemetry of ktrace.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("ktrace")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}

/// Converts spans; holds what is the same for all of them.
pub(super) struct Converter {
    scope: InstrumentationScope,
    /// The agent's own `OTEL_RESOURCE_ATTRIBUTES`.
    agent: Vec<KeyValue>,
}

impl Converter {
    /// With what `OTEL_RESOURCE_ATTRIBUTES` of the agent adds to every resource.
    pub fn of(environment: &Environment) -> Self {
        let added = environment.resource_attributes().into_iter();
        Self::new(added.map(|(name, value)| KeyValue::new(name, value)).collect())
    }

    pub fn new(mut agent: Vec<KeyValue>) -> Self {
        agent.sort_by(|a, b| a.key.cmp(&b.key));
        Self { scope: scope(), agent }
    }

    /// The process's attributes, then those of the agent that the process has not set. Without a
    /// process of this host the client runs elsewhere, so attributes of the agent's host are left
    /// out.
    pub fn resource(&self, resource: &Resource) -> Vec<KeyValue> {
        let has = |name: &str| resource.attributes().iter().any(|(own, _)| **own == *name);
        let elsewhere = !has("process.pid");
        let own = |name: &str| {
            has(name) || (elsewhere && OF_THE_HOST.iter().any(|prefix| name.starts_with(prefix)))
        };
        let process = resource
            .attributes()
            .iter()
            .map(|(name, value)| KeyValue::new(Arc::clone(name), sdk_value(value)));
        process.chain(self.agent.iter().filter(|added| !own(added.key.as_str())).cloned()).collect()
    }

    /// A request with a resource for each process, in the order in which they first come.
    pub fn request<'a>(&self, spans: impl IntoIterator<Item = Span<'a>>) -> ExportTraceServiceRequest {
        let groups = by_resource(spans).into_iter().flat_map(|(resource, spans)| {
            let resource = ResourceAttributesWithSchema {
                attributes: Attributes::from(self.resource(resource)),
                schema_url: Some(SCHEMA_URL.to_owned()),
            };
            let spans = spans.into_iter().map(|span| self.span(&span)).collect();
            group_spans_by_resource_and_scope(spans, &resource)
        });
        ExportTraceServiceRequest { resource_spans: groups.collect() }
    }

    /// A parent came out of a message's headers, or was computed as another agent computes it: it
    /// is remote.
    pub fn span(&self, span: &Span<'_>) -> SpanData {
        let mut links = SpanLinks::default();
        links.links.extend(span.links.iter().map(|link| {
            let context = context(link.trace_id, link.span_id, true, TraceState::default());
            SdkLink::new(context, attributes(&link.attribute), 0)
        }));
        let state = span.trace_state.and_then(|state| state.parse().ok()).unwrap_or_default();
        SpanData {
            span_context: context(span.trace_id, span.span_id, false, state),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_bytes())),
            parent_span_is_remote: span.parent.is_some(),
            span_kind: match span.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Client => SpanKind::Client,
                Kind::Producer => SpanKind::Producer,
                Kind::Consumer => SpanKind::Consumer,
            },
            name: span.name.to_string().into(),
            start_time: time(span.start_ns),
            end_time: time(span.end_ns),
            attributes: attributes(&span.attributes),
            dropped_attributes_count: 0,
            events: Default::default(),
            links,
            status: match span.status {
                Status::Unset => SdkStatus::Unset,
                Status::Error(text) => SdkStatus::error(text.to_string()),
            },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Spans of the same traced process together, in the order in which the processes first come; order
/// within a process stays.
fn by_resource<'a>(spans: impl IntoIterator<Item = Span<'a>>) -> Vec<(&'a Resource, Vec<Span<'a>>)> {
    let mut groups: Vec<(&Resource, Vec<Span<'_>>)> = Vec::new();
    for span in spans {
        let resource = span.resource;
        let same = |(of, _): &(&Resource, _)| std::ptr::eq(*of, resource) || *of == resource;
        match groups.iter().position(same) {
            Some(at) => groups[at].1.push(span),
            None => groups.push((resource, vec![span])),
        }
    }
    groups
}

fn context(
    trace: ktrace_kafka::context::TraceId,
    span: ktrace_kafka::context::SpanId,
    remote: bool,
    state: TraceState,
) -> SpanContext {
    let trace = TraceId::from_bytes(trace.to_bytes());
    SpanContext::new(trace, SpanId::from_bytes(span.to_bytes()), TraceFlags::SAMPLED, remote, state)
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn attributes<'a>(attributes: impl IntoIterator<Item = &'a (&'static str, Value<'a>)>) -> Vec<KeyValue> {
    attributes.into_iter().map(|(name, value)| KeyValue::new(*name, sdk_value(value))).collect()
}

fn sdk_value(value: &Value<'_>) -> opentelemetry::Value {
    match value {
        Value::Str(text) => text.to_string().into(),
        Value::Int(number) => (*number).into(),
        Value::Double(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_agent_adds_only_what_the_process_has_not_set() {
        let agent = [("service.name", "agent"), ("deployment.environment.name", "prod")];
        let agent = agent.map(|(name, value)| KeyValue::new(name, value)).to_vec();
        let resource = Converter::new(agent).resource(samples::send().resource);
        let names: Vec<_> = resource.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            names,
            [
                ("process.pid", text("7")),
                ("service.name", text("orders-api")),
                ("deployment.environment.name", text("prod"))
            ]
        );
    }

    #[test]
    fn trace_state_is_passed_on_and_nonsense_is_not() {
        let converter = Converter::new(vec![]);
        let state = |span: &Span<'_>| converter.span(span).span_context.trace_state().header();
        let mut span = samples::send();
        assert_eq!(state(&span), "vendor=a,other=b");
        span.trace_state = Some("no state");
        assert_eq!(state(&span), "");
    }

    #[test]
    fn groups_are_by_equality_and_keep_their_order() {
        let [send, poll, failed] = [samples::send(), samples::poll(), samples::failed()];
        let groups = by_resource([send, poll, failed]);
        let sizes: Vec<_> =
            groups.iter().map(|(resource, spans)| (resource.service_name(), spans.len())).collect();
        assert_eq!(sizes, [("orders-api", 2), ("billing", 1)]);
    }
}
