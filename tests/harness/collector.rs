//! A real OpenTelemetry Collector: OTLP in, a file of OTLP JSON lines out, and on to another OTLP endpoint if asked.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{self, Process};
use crate::{ports, tools};

#[derive(Debug)]
pub struct Collector {
    pub grpc_port: u16,
    pub http_port: u16,
    file: PathBuf,
    process: Process,
}

impl Collector {
    /// Starts a Collector in `dir`; `forward_to` is `host:port` of an OTLP/gRPC receiver.
    pub fn start(dir: &Path, forward_to: Option<&str>) -> Result<Self> {
        let [grpc_port, http_port] = ports::free()?;
        let file = dir.join("collected.json");
        let config = dir.join("collector.yaml");
        let (next, exporters) = match forward_to {
            Some(address) => {
                (format!("  otlp:\n    endpoint: {address}\n    tls: {{insecure: true}}\n"), "[file, otlp]")
            }
            None => (String::new(), "[file]"),
        };
        fs::write(
            &config,
            format!(
                "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: '127.0.0.1:{grpc_port}'}}
      http: {{endpoint: '127.0.0.1:{http_port}'}}
processors:
  batch: {{timeout: 200ms}}
exporters:
  file:
    path: {}
    flush_interval: 200ms
{next}service:
  telemetry:
    metrics: {{level: none}}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: {exporters}}}
    metrics: {{receivers: [otlp], exporters: [file]}}
",
                file.display()
            ),
        )?;
        let mut process = Process::start(
            "the Collector",
            process::command(tools::collector()?).arg("--config").arg(&config),
            &dir.join("collector.log"),
        )?;
        process.wait_for_line("Everything is ready", Duration::from_secs(30))?;
        Ok(Self { grpc_port, http_port, file, process })
    }

    /// The endpoint for OTLP over HTTP.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The endpoint for OTLP over gRPC.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc_port)
    }

    /// Stops it, which flushes, and returns what it has got.
    pub fn stop(mut self) -> Result<Vec<Collected>> {
        self.process.terminate(Duration::from_secs(20))?;
        read(&self.file)
    }

    /// What it has written so far.
    pub fn so_far(&self) -> Result<Vec<Collected>> {
        read(&self.file)
    }
}

/// A span as the Collector got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub name: String,
    pub service: String,
}

impl Collected {
    /// The spans by their ids.
    #[must_use]
    pub fn by_id(spans: &[Self]) -> HashMap<(&str, &str), &Self> {
        spans.iter().map(|span| ((span.trace_id.as_str(), span.span_id.as_str()), span)).collect()
    }
}

/// Spans of a file that the Collector's file exporter (or `ktrace -o otlp`) wrote.
pub fn read(file: &Path) -> Result<Vec<Collected>> {
    let mut spans = Vec::new();
    for request in requests(file)? {
        for resource in items(&request["resourceSpans"]) {
            let service = items(&resource["resource"]["attributes"])
                .find(|attribute| attribute["key"] == "service.name")
                .map(|attribute| text_of(&attribute["value"]["stringValue"]))
                .unwrap_or_default();
            for span in items(&resource["scopeSpans"]).flat_map(|scope| items(&scope["spans"])) {
                spans.push(Collected {
                    trace_id: text_of(&span["traceId"]),
                    span_id: text_of(&span["spanId"]),
                    parent_span_id: Some(text_of(&span["parentSpanId"])).filter(|id| !id.is_empty()),
                    name: text_of(&span["name"]),
                    service: service.clone(),
                });
            }
        }
    }
    Ok(spans)
}

/// The last value of each counter in a file that the Collector's file exporter wrote, with a loss's reason behind the name
/// (`ktrace.lost.bytes gap_bytes`).
pub fn counters(file: &Path) -> Result<BTreeMap<String, u64>> {
    let mut counters = BTreeMap::new();
    for request in requests(file)? {
        let scopes = items(&request["resourceMetrics"]).flat_map(|of| items(&of["scopeMetrics"]));
        for metric in scopes.flat_map(|scope| items(&scope["metrics"])) {
            for point in items(&metric["sum"]["dataPoints"]) {
                let reasons = items(&point["attributes"]).map(|pair| &pair["value"]["stringValue"]);
                let names: Vec<_> = [&metric["name"]].into_iter().chain(reasons).map(text_of).collect();
                counters.insert(names.join(" "), text_of(&point["asInt"]).parse()?);
            }
        }
    }
    Ok(counters)
}

fn requests(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("nothing in {}", file.display()))?;
    let request = |line| serde_json::from_str(line).with_context(|| format!("not OTLP JSON: {line}"));
    text.lines().map(request).collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
