//! A hop as OpenTelemetry shows it.

use std::sync::Arc;

use ktrace_kafka::context::{SpanId, TraceId};

/// Attributes of a resource, a span or a link: names of the semantic conventions, or `ktrace.*`.
pub type Attributes = Vec<(&'static str, Value)>;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of the program itself: no span pays for it.
    Static(&'static str),
    Str(Arc<str>),
    Int(i64),
    Double(f64),
    Bool(bool),
    StrArray(Vec<Arc<str>>),
}

impl Value {
    /// The text, of a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// The traced process as OpenTelemetry names it. Attribute names may come from the process (`OTEL_RESOURCE_ATTRIBUTES`), so they are owned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Sorted by name, each name once, `service.name` always there.
    pub attributes: Vec<(Arc<str>, Value)>,
}

impl Resource {
    /// `service.name`, or `unknown_service` where it is missing.
    #[must_use]
    pub fn service_name(&self) -> &str {
        self.attributes
            .iter()
            .find(|(name, _)| &**name == "service.name")
            .and_then(|(_, value)| value.as_text())
            .unwrap_or("unknown_service")
    }
}

/// OpenTelemetry's span kinds, those that occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Client,
    Producer,
    Consumer,
}

/// `Error` bears the text that the span's `error.type` explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Unset,
    Error(Arc<str>),
}

/// A span that this one follows from, possibly of another trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub attributes: Attributes,
}

/// One hop of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    /// W3C `tracestate`, passed on as it came.
    pub trace_state: Option<Arc<str>>,
    pub links: Vec<Link>,
    /// `{operation} {topic}`.
    pub name: Arc<str>,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970, never before `start_ns`.
    pub end_ns: u64,
    pub status: Status,
    pub resource: Arc<Resource>,
    pub attributes: Attributes,
}
