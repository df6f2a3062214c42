//! A real Jaeger, all in one, that keeps traces in memory.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::{self, Process};
use crate::{ports, tools};

#[derive(Debug)]
pub struct Jaeger {
    pub otlp_grpc_port: u16,
    query_port: u16,
    _process: Process,
}

/// A span as Jaeger shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub span_id: String,
    /// The parent within the same trace.
    pub parent_span_id: Option<String>,
    pub operation: String,
    pub service: String,
    /// `span.kind`.
    pub kind: String,
}

/// Who calls whom, and how often: what Jaeger's page draws as the graph of services.
pub type Graph = BTreeMap<(String, String), u64>;

impl Jaeger {
    pub fn start(dir: &Path) -> Result<Self> {
        let [grpc, http, query, query_grpc, admin, collector_grpc, collector_http, sampling] = ports::free()?;
        let [zipkin_udp, compact_udp, binary_udp] = ports::free()?;
        let mut command = process::command(tools::jaeger()?);
        for (flag, port) in [
            ("collector.otlp.grpc.host-port", grpc),
            ("collector.otlp.http.host-port", http),
            ("query.http-server.host-port", query),
            ("query.grpc-server.host-port", query_grpc),
            ("admin.http.host-port", admin),
            ("collector.grpc-server.host-port", collector_grpc),
            ("collector.http-server.host-port", collector_http),
            ("http-server.host-port", sampling),
            ("processor.zipkin-compact.server-host-port", zipkin_udp),
            ("processor.jaeger-compact.server-host-port", compact_udp),
            ("processor.jaeger-binary.server-host-port", binary_udp),
        ] {
            command.arg(format!("--{flag}=127.0.0.1:{port}"));
        }
        let mut process = Process::start(
            "Jaeger",
            command
                .arg("--collector.otlp.enabled=true")
                .env("SPAN_STORAGE_TYPE", "memory")
                // it would trace itself, and export that to a port that is not ours
                .env("OTEL_TRACES_SAMPLER", "always_off")
                .current_dir(dir),
            &dir.join("jaeger.log"),
        )?;
        process.wait_for_line("Query server started", Duration::from_secs(30))?;
        let jaeger = Self { otlp_grpc_port: grpc, query_port: query, _process: process };
        jaeger.until(Duration::from_secs(20), || Ok(jaeger.get("/api/services").is_ok().then_some(())))?;
        Ok(jaeger)
    }

    /// `host:port` for OTLP over gRPC.
    #[must_use]
    pub fn otlp_address(&self) -> String {
        format!("127.0.0.1:{}", self.otlp_grpc_port)
    }

    /// The spans of one trace; waits until there are at least `at_least`.
    pub fn trace(&self, trace_id: &str, at_least: usize) -> Result<Vec<Shown>> {
        self.until(Duration::from_secs(20), || {
            let answer = self.get(&format!("/api/traces/{trace_id}"))?;
            let spans = shown(&answer);
            Ok((spans.len() >= at_least).then_some(spans))
        })
        .with_context(|| format!("Jaeger has no {at_least} spans of trace {trace_id}"))
    }

    /// The names of all services that Jaeger knows.
    pub fn services(&self) -> Result<Vec<String>> {
        let answer = self.get("/api/services")?;
        Ok(answer["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect())
    }

    /// The graph of all services as soon as it is the wanted one, else as it is in the end. The
    /// storage in memory computes it from the spans when it is asked: a call for each span
    /// whose parent is another service's. Other storages have a job for it
    /// (`spark-dependencies`), which counts each reference, so links as well.
    pub fn graph(&self, wanted: &Graph) -> Result<Graph> {
        let deadline = process::deadline(Duration::from_secs(20));
        loop {
            let until = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() + 60_000;
            let answer = self.get(&format!("/api/dependencies?endTs={until}&lookback=3600000"))?;
            let graph = edges(&answer);
            if graph == *wanted || Instant::now() >= deadline {
                return Ok(graph);
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// HTTP/1.0, so that the answer is not in chunks.
    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.query_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
        // an unknown trace is 404, with a body that has no data
        ensure!(head.contains(" 200 ") || head.contains(" 404 "), "GET {path}: {head}");
        Ok(serde_json::from_str(body)?)
    }

    fn until<T>(&self, within: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = process::deadline(within);
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("not within {within:?}");
            }
            sleep(Duration::from_millis(200));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn edges(answer: &Value) -> Graph {
    let edge =
        |one: &Value| ((text(&one["parent"]), text(&one["child"])), one["callCount"].as_u64().unwrap_or(0));
    answer["data"].as_array().into_iter().flatten().map(edge).collect()
}

fn shown(answer: &Value) -> Vec<Shown> {
    let mut spans = Vec::new();
    for trace in answer["data"].as_array().into_iter().flatten() {
        for span in trace["spans"].as_array().into_iter().flatten() {
            let process = text(&span["processID"]);
            // a parent that is linked to as well comes as FOLLOWS_FROM alone, and Jaeger's page draws it as
            // the parent
            let references = span["references"].as_array();
            let within = || references.into_iter().flatten().filter(|one| one["traceID"] == span["traceID"]);
            let parent = within().find(|one| one["refType"] == "CHILD_OF").or_else(|| within().next());
            let kind = span["tags"].as_array().into_iter().flatten().find(|tag| tag["key"] == "span.kind");
            spans.push(Shown {
                kind: kind.map(|tag| text(&tag["value"])).unwrap_or_default(),
                span_id: text(&span["spanID"]),
                parent_span_id: parent.map(|reference| text(&reference["spanID"])),
                operation: text(&span["operationName"]),
                service: text(&trace["processes"][process.as_str()]["serviceName"]),
            });
        }
    }
    spans
}
