//! A hop as OpenTelemetry shows it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use ktrace_kafka::context::{SpanId, TraceId};

/// Attributes of a span: names of the semantic conventions, or `ktrace.*`.
pub type Attributes<'a> = Vec<(&'static str, Value<'a>)>;

/// Of a link: the evidence by which it was found, where no header tells.
pub const INFERRED: &str = "ktrace.inferred";

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Str(Cow<'a, str>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Value<'_> {
    /// The text, of a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

/// The traced process as OpenTelemetry names it. Attribute names may come from the process (`OTEL_RESOURCE_ATTRIBUTES`), so they are owned.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    attributes: Vec<(Arc<str>, Value<'static>)>,
    /// As the format `json` writes it, in every span: made once.
    json: OnceLock<Box<[u8]>>,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes
    }
}

impl Resource {
    /// `attributes` are sorted by name, each name once; `service.name` should be there.
    #[must_use]
    pub fn new(attributes: Vec<(Arc<str>, Value<'static>)>) -> Self {
        Self { attributes, json: OnceLock::new() }
    }

    /// Sorted by name, each name once.
    #[must_use]
    pub fn attributes(&self) -> &[(Arc<str>, Value<'static>)] {
        &self.attributes
    }

    /// What `make` makes of the attributes, at the first time.
    pub(super) fn json(&self, make: impl FnOnce(&[(Arc<str>, Value<'static>)]) -> Vec<u8>) -> &[u8] {
        self.json.get_or_init(|| make(&self.attributes).into())
    }

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unset,
    Error(&'static str),
}

/// A span that this one follows from, possibly of another trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Link<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub attribute: Option<(&'static str, Value<'a>)>,
}

/// One hop of one message, for as long as it takes to write it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    /// W3C `tracestate`, passed on as it came.
    pub trace_state: Option<&'a str>,
    pub links: Vec<Link<'a>>,
    /// `{operation} {topic}`.
    pub name: &'a str,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970, never before `start_ns`.
    pub end_ns: u64,
    pub status: Status,
    pub resource: &'a Resource,
    pub attributes: Attributes<'a>,
}
