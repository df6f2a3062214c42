//! A real OpenTelemetry Collector: OTLP in, a file of OTLP JSON lines out, and on to another OTLP
//! endpoint or to Kafka if asked.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{self, Process};
use crate::{ports, tools};

#[derive(Debug)]
pub struct Collector {
    pub grpc_port: u16,
    pub http_port: u16,
    file: PathBuf,
    came_back: PathBuf,
    process: Process,
}

/// The topic to which a Collector with Kafka writes metrics.
pub const METRICS_TOPIC: &str = "telemetry_metrics";

/// The topic to which a Collector with Kafka writes spans in an encoding.
#[must_use]
pub fn spans_topic(encoding: &str) -> String {
    format!("telemetry_{encoding}")
}

/// The file of the spans that came back from Kafka.
const CAME_BACK: &str = "came-back.json";

/// What a Collector's configuration has beside OTLP in and a file out.
#[derive(Debug, Default)]
struct Parts {
    receivers: String,
    exporters: String,
    /// Further exporters of each pipeline, each with a comma before it.
    of_traces: String,
    of_metrics: String,
    pipelines: String,
}

impl Collector {
    /// Starts a Collector in `dir`; `forward_to` is `host:port` of an OTLP/gRPC receiver.
    pub fn start(dir: &Path, forward_to: Option<&str>) -> Result<Self> {
        let (next, exporters) = match forward_to {
            Some(address) => {
                (format!("  otlp:\n    endpoint: {address}\n    tls: {{insecure: true}}\n"), ", otlp")
            }
            None => (String::new(), ""),
        };
        Self::launch(dir, &Parts { exporters: next, of_traces: exporters.to_owned(), ..Parts::default() })
    }

    /// Starts a Collector that also writes all it gets to Kafka, spans in each of these encodings
    /// to a topic of its own ([`spans_topic`]) and metrics to [`METRICS_TOPIC`], and that reads
    /// the spans again, into the file that [`Self::came_back`] reads.
    pub fn start_with_kafka(dir: &Path, bootstrap: &str, encodings: &[&str]) -> Result<Self> {
        let mut parts = Parts::default();
        let brokers = format!("    brokers: ['{bootstrap}']\n");
        let mut names = Vec::new();
        for encoding in encodings {
            let topic = spans_topic(encoding);
            let name = format!("kafka/{encoding}");
            parts.exporters += &format!(
                "  {name}:\n{brokers}    traces: {{topic: {topic}, encoding: {encoding}}}\n    \
                 metrics: {{topic: {METRICS_TOPIC}}}\n    producer: {{compression: gzip}}\n"
            );
            parts.receivers += &format!(
                "  {name}:\n{brokers}    group_id: ingester\n    initial_offset: earliest\n    \
                 traces: {{topics: [{topic}], encoding: {encoding}}}\n"
            );
            parts.of_traces += &format!(", {name}");
            names.push(name);
        }
        parts.of_metrics = names.first().map(|name| format!(", {name}")).unwrap_or_default();
        parts.exporters += &format!(
            "  file/back:\n    path: {}\n    flush_interval: 200ms\n",
            dir.join(CAME_BACK).display()
        );
        parts.pipelines =
            format!("    traces/back: {{receivers: [{}], exporters: [file/back]}}\n", names.join(", "));
        Self::launch(dir, &parts)
    }

    fn launch(dir: &Path, parts: &Parts) -> Result<Self> {
        let [grpc_port, http_port] = ports::free()?;
        let file = dir.join("collected.json");
        let config = dir.join("collector.yaml");
        let Parts { receivers, exporters, of_traces, of_metrics, pipelines } = parts;
        fs::write(
            &config,
            format!(
                "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: '127.0.0.1:{grpc_port}'}}
      http: {{endpoint: '127.0.0.1:{http_port}'}}
{receivers}processors:
  batch: {{timeout: 200ms}}
exporters:
  file:
    path: {}
    flush_interval: 200ms
{exporters}service:
  telemetry:
    metrics: {{level: none}}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [file{of_traces}]}}
    metrics: {{receivers: [otlp], exporters: [file{of_metrics}]}}
{pipelines}",
                file.display()
            ),
        )?;
        let mut process = Process::start(
            "the Collector",
            process::command(tools::collector()?).arg("--config").arg(&config),
            &dir.join("collector.log"),
        )?;
        process.wait_for_line("Everything is ready", Duration::from_secs(30))?;
        Ok(Self { grpc_port, http_port, file, came_back: dir.join(CAME_BACK), process })
    }

    /// Gives it a request of OTLP in JSON, as an application does.
    pub fn take_spans(&self, request: &Value) -> Result<()> {
        let body = request.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let len = body.len();
        write!(
            stream,
            "POST /v1/traces HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 "), "the Collector refused spans: {answer}");
        Ok(())
    }

    /// The spans that it has read from Kafka so far, once for each encoding.
    pub fn came_back(&self) -> Result<Vec<Collected>> {
        read(&self.came_back)
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

/// The last value of each counter in a file that the Collector's file exporter wrote, with a loss's
/// reason behind the name (`ktrace.lost.bytes gap_bytes`).
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
