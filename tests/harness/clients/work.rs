//! What clients do, and the options that say so to their programs.

use std::path::Path;

use super::library::Library;

/// What a producer does.
#[derive(Clone, Debug)]
pub struct Produce<'a> {
    pub library: Library,
    pub bootstrap: &'a str,
    pub topic: &'a str,
    /// Also the client id and the first part of the keys, so different for each producer of a test.
    pub service: &'a str,
    pub count: u32,
    pub codec: &'a str,
    /// `none`, `traceparent`, `b3`, `b3-multi`, `trace_id`, `traceId`, `trace-id`; `edges` for what
    /// is unusual in headers. Go, Node and Rust know only the first two and `edges`, kcat does
    /// not know that one.
    pub header_style: &'a str,
    pub payload: u32,
    /// `all`, `1` or `0`.
    pub acks: &'a str,
    pub interval_ms: u32,
}

impl<'a> Produce<'a> {
    /// One message, uncompressed, without headers.
    #[must_use]
    pub fn new(library: Library, bootstrap: &'a str, topic: &'a str, service: &'a str) -> Self {
        Self {
            library,
            bootstrap,
            topic,
            service,
            count: 1,
            codec: "none",
            header_style: "none",
            payload: 100,
            acks: "all",
            interval_ms: 0,
        }
    }

    pub(super) fn options(&self, truth: &Path) -> Vec<String> {
        let idempotent = if self.acks == "all" { "true" } else { "false" };
        [
            ("bootstrap", self.bootstrap),
            ("topic", self.topic),
            ("service", self.service),
            ("client-id", self.service),
            ("truth", &truth.to_string_lossy()),
            ("count", &self.count.to_string()),
            ("codec", self.codec),
            ("acks", self.acks),
            ("idempotence", idempotent),
            ("payload", &self.payload.to_string()),
            ("header-style", self.header_style),
            ("interval-ms", &self.interval_ms.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect()
    }
}

/// What a consumer does: it reads from the beginning, as a member of a group.
#[derive(Clone, Debug)]
pub struct Consume<'a> {
    pub library: Library,
    pub bootstrap: &'a str,
    pub topics: &'a [&'a str],
    /// Also the client id.
    pub service: &'a str,
    pub group: &'a str,
    /// It ends when it has got this number.
    pub expect: usize,
}

impl Consume<'_> {
    pub(super) fn options(&self, truth: &Path) -> Vec<String> {
        [
            ("bootstrap", self.bootstrap),
            ("topic", &self.topics.join(",")),
            ("service", self.service),
            ("client-id", self.service),
            ("truth", &truth.to_string_lossy()),
            ("group", self.group),
            ("expect", &self.expect.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect()
    }
}
