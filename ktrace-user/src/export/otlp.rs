//! OTLP over gRPC or HTTP, by OpenTelemetry's own exporter with its standard environment.
//!
//! The exporter knows one resource at a time, so a batch goes out as one request for each traced process, one after the other on
//! one connection. The alternative, one request with many resources, would mean to write endpoint, header, TLS, compression and
//! retry handling again beside the exporter's: a host has few Kafka clients, and requests are cheap.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::endpoint::{Endpoint, OtlpOptions, TRACES, number};
use super::failing::Failing;
use super::queue::{Counters, Receiver, queue};
use super::sdk::{Converter, by_resource};
use super::{ExportError, Sink, WhenFull};
use crate::hop::Hops;
use crate::privilege;

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
    let failing = Failing::new("spans");
    let export = Export { exporter, converter, batching, when_full, counters, failing, open: 0 };
    let thread = std::thread::Builder::new()
        .name("ktrace-otlp".to_owned())
        .spawn(move || {
            privilege::shed();
            export.run(&runtime, queued, limited)
        })
        .map_err(ExportError::Thread)?;
    Ok(Sink { sender, thread, limit: Some(limit), bytes: 0 })
}

struct Export {
    exporter: SpanExporter,
    converter: Converter,
    batching: Batching,
    when_full: WhenFull,
    counters: Arc<Counters>,
    failing: Failing,
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
                    self.failing.why().unwrap_or("the collector refused some, or was too slow").to_owned();
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
            WhenFull::Wait if self.failing.why().is_some() => PATIENCE,
            _ => self.batching.timeout,
        };
        let failure = match timeout(patience, self.exporter.export(spans)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {patience:?}")),
        };
        self.open = self.open.saturating_sub(count);
        match failure {
            Some(_) => self.counters.fail(count),
            None => self.counters.deliver(count),
        }
        self.failing.note(failure);
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
    let endpoint = Endpoint::of(&TRACES, options)?;
    endpoint.build(
        |tls| endpoint.grpc(SpanExporter::builder().with_tonic(), tls).build(),
        || endpoint.http(SpanExporter::builder().with_http()).build(),
    )
}

#[cfg(test)]
mod tests;
