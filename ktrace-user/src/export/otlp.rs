//! OTLP over gRPC or HTTP, by OpenTelemetry's own exporter with its standard environment.
//!
//! The exporter knows one resource at a time, so a batch goes out as one request for each traced process, one after the other on
//! one connection. The alternative, one request with many resources, would mean to write endpoint, header, TLS, compression and
//! retry handling again beside the exporter's: a host has few Kafka clients, and requests are cheap.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>,
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::queue::{Counters, Receiver, queue};
use super::sdk::{Converter, by_resource};
use super::{ExportError, Sink, WhenFull};
use crate::hop::Hops;

/// Where to send, beyond what the environment says.
#[derive(Clone, Debug, Default)]
pub struct OtlpOptions {
    /// `--otlp`: beats the environment.
    pub url: Option<String>,
}

/// How spans are gathered: `OTEL_BSP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batching {
    delay: Duration,
    queue: usize,
    batch: usize,
    timeout: Duration,
}

impl Batching {
    /// Queue and batch are by default eight and four times the specification's, which are meant for one application: here all
    /// Kafka clients of a host share them. A batch of some 1 MiB stays below the 4 MiB that gRPC servers accept.
    fn from_environment() -> Result<Self, ExportError> {
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(16_384).max(1);
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")?.unwrap_or(2_048).max(1);
        Ok(Self {
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(5_000)),
            queue,
            batch: batch.min(queue),
            timeout: Duration::from_millis(number("OTEL_BSP_EXPORT_TIMEOUT")?.unwrap_or(30_000)),
        })
    }
}

/// In replay, a collector that has just failed gets this much time for each further request: replay waits for its sinks, and a
/// long file must not take hours because nobody listens.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts exporting by OTLP on a thread of its own.
///
/// # Errors
/// [`ExportError::Otlp`] where the configuration is wrong; a collector that cannot be reached is no error, but lost spans.
pub fn otlp(options: &OtlpOptions, when_full: WhenFull) -> Result<Sink, ExportError> {
    let batching = Batching::from_environment()?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ExportError::Thread)?;
    let exporter = {
        // The gRPC channel starts its task on the runtime that is current.
        let _entered = runtime.enter();
        exporter(options)?
    };
    let (sender, queued, counters) = queue("otlp", batching.queue, when_full);
    let (limit, limited) = oneshot::channel();
    let converter = Converter::from_environment();
    let export = Export { exporter, converter, batching, when_full, counters, failing: None, open: 0 };
    let thread = std::thread::Builder::new()
        .name("ktrace-otlp".to_owned())
        .spawn(move || export.run(&runtime, queued, limited))
        .map_err(ExportError::Thread)?;
    Ok(Sink { sender, thread, limit: Some(limit) })
}

struct Export {
    exporter: SpanExporter,
    converter: Converter,
    batching: Batching,
    when_full: WhenFull,
    counters: Arc<Counters>,
    /// Why the last request failed, if it did; so a row of failures is told once.
    failing: Option<String>,
    /// Spans taken from the queue and neither delivered nor counted as lost.
    open: usize,
}

impl Export {
    fn run(
        mut self,
        runtime: &Runtime,
        mut queued: Receiver,
        limited: oneshot::Receiver<Duration>,
    ) -> Result<(), ExportError> {
        let counters = Arc::clone(&self.counters);
        let finished = runtime.block_on(async {
            tokio::select! {
                () = self.drain(&mut queued) => true,
                () = time_is_up(limited) => false,
            }
        });
        if !finished {
            counters.fail(self.open.saturating_add(queued.end()));
        }
        let _ = self.exporter.shutdown();
        match counters.failed() {
            0 => Ok(()),
            spans => {
                let why =
                    self.failing.unwrap_or_else(|| "the collector refused some, or was too slow".to_owned());
                Err(ExportError::Undelivered { spans, why })
            }
        }
    }

    /// Until all producers are gone and the queue is empty.
    async fn drain(&mut self, queued: &mut Receiver) {
        let Batching { delay, batch: most, .. } = self.batching;
        let mut hops = Hops::default();
        while queued.take(&mut hops, most, delay).await {
            self.open = hops.len();
            let mut spans = hops.spans();
            while spans.len() > 0 {
                let batch = spans.by_ref().take(most);
                queued.begin(batch.len());
                for (resource, spans) in by_resource(batch) {
                    self.exporter.set_resource(&self.converter.sdk_resource(resource));
                    let spans = spans.iter().map(|span| self.converter.span(span)).collect();
                    self.export(spans).await;
                }
            }
        }
    }

    /// One request.
    async fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len();
        let patience = match self.when_full {
            WhenFull::Wait if self.failing.is_some() => PATIENCE,
            _ => self.batching.timeout,
        };
        let failure = match timeout(patience, self.exporter.export(spans)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {patience:?}")),
        };
        self.open = self.open.saturating_sub(count);
        self.note(failure, count);
    }

    /// Counts, and tells the first failure of a row and its end.
    fn note(&mut self, failure: Option<String>, count: usize) {
        match failure {
            Some(why) => {
                self.counters.fail(count);
                if self.failing.is_none() {
                    tracing::warn!("OTLP export fails, spans are being lost: {why}");
                }
                self.failing = Some(why);
            }
            None => {
                self.counters.deliver(count);
                if self.failing.take().is_some() {
                    tracing::warn!("OTLP export works again");
                }
            }
        }
    }
}

/// Never, unless the run ends; then after the time that it allows.
async fn time_is_up(limited: oneshot::Receiver<Duration>) {
    match limited.await {
        Ok(limit) => sleep(limit).await,
        Err(_) => std::future::pending().await,
    }
}

/// Must be called within a tokio runtime.
fn exporter(options: &OtlpOptions) -> Result<SpanExporter, ExportError> {
    let wrong = |what: String| ExportError::Otlp { what };
    let endpoint = options.url.clone().or_else(|| {
        first_set(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
            .map(|(_, value)| value)
    });
    if let Some(endpoint) = &endpoint
        && !endpoint.starts_with("http://")
        && !endpoint.starts_with("https://")
    {
        return Err(wrong(format!("the endpoint {endpoint} does not begin with http:// or https://")));
    }
    // 4318 is OTLP's port for HTTP, where gRPC never gets an answer.
    let usual = if endpoint.as_deref().is_some_and(is_http_port) { "http/protobuf" } else { "grpc" };
    let (name, protocol) = first_set(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"])
        .unwrap_or(("the endpoint's protocol", usual.to_owned()));
    let built = match protocol.to_ascii_lowercase().as_str() {
        "grpc" => {
            let build = |tls: Option<ClientTlsConfig>| {
                let mut builder = SpanExporter::builder().with_tonic().with_retry_policy(retries());
                if let Some(tls) = tls {
                    builder = builder.with_tls_config(tls);
                }
                match &options.url {
                    Some(url) => builder.with_endpoint(url).build(),
                    None => builder.build(),
                }
            };
            // Certificates are loaded when TLS is configured, so plain endpoints must not ask for it.
            if endpoint.is_none_or(|endpoint| endpoint.starts_with("http:")) {
                build(None)
            } else {
                let tls = tls()?;
                // The host's own roots; Mozilla's alone where it has none, as in an empty container.
                build(Some(tls.clone().with_enabled_roots()))
                    .or_else(|_| build(Some(tls.with_webpki_roots())))
            }
        }
        "http/protobuf" => {
            if endpoint.is_some_and(|endpoint| endpoint.starts_with("https:")) {
                return Err(wrong(format!(
                    "{name}=http/protobuf works without TLS only; use grpc for https:"
                )));
            }
            let builder = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_retry_policy(retries());
            match &options.url {
                Some(url) => builder.with_endpoint(signal_url(url)).build(),
                None => builder.build(),
            }
        }
        other => return Err(wrong(format!("{name}={other} is neither grpc nor http/protobuf"))),
    };
    built.map_err(|error| wrong(error.to_string()))
}

/// Whether an endpoint names the port that OTLP has for HTTP.
fn is_http_port(endpoint: &str) -> bool {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    authority.split('/').next().is_some_and(|authority| authority.ends_with(":4318"))
}

/// Within `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s), which bounds all attempts together.
fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(6).with_max_delay(Duration::from_secs(5))
}

/// A base URL gets the path of traces, as the specification has it for base URLs of the environment.
fn signal_url(url: &str) -> String {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if path.is_empty() { format!("{}/v1/traces", url.trim_end_matches('/')) } else { url.to_owned() }
}

/// `OTEL_EXPORTER_OTLP_CERTIFICATE` and the client's own, which the exporter leaves to its caller.
fn tls() -> Result<ClientTlsConfig, ExportError> {
    let file = |signal, general| -> Result<Option<Vec<u8>>, ExportError> {
        let Some((name, path)) = first_set([signal, general]) else { return Ok(None) };
        let what = |error| ExportError::Otlp { what: format!("{name}={path}: {error}") };
        std::fs::read(&path).map(Some).map_err(what)
    };
    let mut config = ClientTlsConfig::new();
    if let Some(authority) = file("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")?
    {
        config = config.ca_certificate(Certificate::from_pem(authority));
    }
    let certificate =
        file("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")?;
    let key = file("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY")?;
    Ok(match (certificate, key) {
        (Some(certificate), Some(key)) => config.identity(Identity::from_pem(certificate, key)),
        _ => config,
    })
}

/// Empty counts as not set.
fn first_set<const N: usize>(names: [&'static str; N]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, env::var(name).ok().filter(|value| !value.is_empty())?)))
}

fn number<N: FromStr>(name: &'static str) -> Result<Option<N>, ExportError> {
    let Some((_, value)) = first_set([name]) else { return Ok(None) };
    let number = value.trim().parse().ok();
    number.map(Some).ok_or_else(|| ExportError::Otlp { what: format!("{name}={value} is no number") })
}

#[cfg(test)]
mod tests;
