//! The agent's spans as `-o json` writes them, one a line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::truth::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Client,
    Producer,
    Consumer,
    Internal,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub links: Vec<Link>,
    pub name: String,
    pub kind: Kind,
    pub start_unix_nanos: u64,
    pub end_unix_nanos: u64,
    pub status: String,
    pub resource: BTreeMap<String, Value>,
    pub attributes: BTreeMap<String, Value>,
}

impl Span {
    #[must_use]
    pub fn text(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute)?.as_str()
    }

    /// The traced process's `service.name`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.resource.get("service.name").and_then(Value::as_str).unwrap_or_default()
    }

    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.text("messaging.destination.name")
    }

    /// The message's place, if the span names all of it.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        Some(Place {
            topic: self.topic()?.into(),
            partition: self.text("messaging.destination.partition.id")?.parse().ok()?,
            offset: self.attributes.get("messaging.kafka.offset")?.as_i64()?,
        })
    }

    #[must_use]
    pub fn is_derived(&self) -> bool {
        self.attributes.get("ktrace.derived") == Some(&Value::Bool(true))
    }

    /// `send`, `poll`, `commit` or `ack`: the first word of the name. What a broker refused brought
    /// no message, whatever it was: `refused`.
    #[must_use]
    pub fn operation(&self) -> &str {
        if self.attributes.contains_key("ktrace.refused.count") {
            return "refused";
        }
        self.name.split(' ').next().unwrap_or_default()
    }
}

/// All spans of a file.
pub fn read(file: &Path) -> Result<Vec<Span>> {
    let text = fs::read_to_string(file).with_context(|| format!("no spans in {}", file.display()))?;
    parse(&text)
}

/// All spans of a text, one a line.
pub fn parse(text: &str) -> Result<Vec<Span>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a span: {line}")))
        .collect()
}
