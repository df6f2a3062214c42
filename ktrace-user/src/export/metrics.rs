//! The agent's own counters by OTLP: OpenTelemetry's reader asks for them once a minute, and once more at the end.
//!
//! The reader has a thread of its own, on which it waits for the exporter; the exporter has a runtime that turns only while a
//! request is on its way, on that thread. What is refused for the time being is sent again until the request's time is over: the
//! next counts have all that these had.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#periodic-exporting-metricreader>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, MeterProvider as _};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::endpoint::{Endpoint, METRICS, OtlpOptions};
use super::environment::Environment;
use super::failing::{Failing, say};
use super::sdk::{SCHEMA_URL, scope};
use super::transport::{Backoff, Next, Refusal, Transport};
use super::{ExportError, printable};
use crate::keys::Stats;
use crate::losses::{BYTES, EVENTS, Reason};
use crate::process::host_name;

/// The attribute that bears a loss's reason.
const REASON: &str = "ktrace.lost.reason";

/// The attribute that bears why a connection is none of Kafka's.
const NOT_KAFKA_REASON: &str = "ktrace.not_kafka.reason";
/// The attribute that bears the name of Kafka's API.
const OPERATION: &str = "messaging.operation.name";
/// What becomes of counts that were not taken, and of those that never are.
const MEANWHILE: &str =
    "the next will have all that these had (OTEL_METRICS_EXPORTER=none leaves metrics out)";

/// What the agent has counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans that filters and sampling have let through.
    pub spans: u64,
    /// Zeros too.
    pub lost: BTreeMap<Reason, u64>,
    /// Connections that were given up as none of Kafka's, by reason, zeros too.
    pub not_kafka: BTreeMap<&'static str, u64>,
    /// What brokers refused, by operation and error.
    pub refused: BTreeMap<(&'static str, &'static str), u64>,
    /// Responses that made clients wait, and for how many milliseconds in all, by operation.
    pub throttled: BTreeMap<&'static str, (u64, u64)>,
    /// What searches for keys of TLS connections did; `None` where there are none.
    pub searches: Option<Stats>,
}

/// How often is exported, and how long one request may take: `OTEL_METRIC_EXPORT_*`.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    timeout: Duration,
}

impl Pace {
    /// Zero counts as not set: a reader without a pause would never rest.
    fn of(environment: &Environment) -> Self {
        let milliseconds = |name, usual| {
            let set = environment.milliseconds(name).filter(|set| !set.is_zero());
            set.unwrap_or(Duration::from_millis(usual))
        };
        Self {
            interval: milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            timeout: milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
        }
    }
}

/// Metrics that are set up and not exported yet.
pub struct Metrics {
    exporter: Exporter,
    interval: Duration,
    resource: Resource,
    end: watch::Sender<Option<Instant>>,
}

impl Metrics {
    /// `None` where the environment wants none (`OTEL_METRICS_EXPORTER`, `OTEL_SDK_DISABLED`).
    ///
    /// # Errors
    /// [`ExportError::Otlp`] where the configuration is wrong; a collector that cannot be reached, or takes no metrics, is no
    /// error, and said.
    pub fn new(options: &OtlpOptions) -> Result<Option<Self>, ExportError> {
        if !options.environment.exports("OTEL_METRICS_EXPORTER") {
            return Ok(None);
        }
        Self::at_pace(options, Pace::of(&options.environment)).map(Some)
    }

    fn at_pace(options: &OtlpOptions, Pace { interval, timeout }: Pace) -> Result<Self, ExportError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ExportError::Thread)?;
        let transport = Transport::new(Endpoint::of(&METRICS, options)?);
        let preference = options.environment.first(["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"]);
        let temporality = preference.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
        let (end, ends) = watch::channel(None);
        let failing = Failing::new("metrics", transport.endpoint().to_string(), MEANWHILE);
        let failing = Mutex::new(failing);
        let runtime = Some(runtime);
        let exporter = Exporter { transport, runtime, temporality, timeout, end: ends, failing };
        Ok(Self { exporter, interval, resource: resource(&options.environment), end })
    }

    /// From now on `counts` is asked for what it has.
    pub fn start(self, counts: impl Fn() -> Counts + Send + Sync + 'static) -> Exporting {
        let reader = PeriodicReader::builder(self.exporter).with_interval(self.interval).build();
        let provider = SdkMeterProvider::builder().with_resource(self.resource).with_reader(reader).build();
        observe(&provider, &Arc::new(counts));
        Exporting { provider, end: self.end }
    }
}

/// Metrics that are exported until the end.
pub struct Exporting {
    provider: SdkMeterProvider,
    end: watch::Sender<Option<Instant>>,
}

impl Exporting {
    /// Exports the last counts within `limit`, which must be below the 5 s that OpenTelemetry's reader waits.
    pub fn finish(self, limit: Duration) {
        // The exporter tells its failures itself.
        let _ = self.end_within(limit);
    }

    fn end_within(&self, limit: Duration) -> OTelSdkResult {
        self.end.send_replace(Some(Instant::now() + limit));
        self.provider.shutdown()
    }
}

/// The instruments.
fn observe(provider: &SdkMeterProvider, counts: &Arc<impl Fn() -> Counts + Send + Sync + 'static>) {
    let meter = provider.meter_with_scope(scope());
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter("ktrace.spans")
        .with_unit("{span}")
        .with_description("Spans that filters and sampling have let through")
        .with_callback(move |observer| observer.observe(now().spans, &[]))
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter(EVENTS)
        .with_unit("{event}")
        .with_description("What was not shown, by reason; what an event is depends on the reason")
        .with_callback(move |observer| lost(observer, &now(), EVENTS))
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter(BYTES)
        .with_unit("By")
        .with_description("Bytes of connections that were not read, by reason")
        .with_callback(move |observer| lost(observer, &now(), BYTES))
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter("ktrace.not_kafka")
        .with_unit("{connection}")
        .with_description("Connections that were looked at and given up as none of Kafka's, by reason")
        .with_callback(move |observer| {
            for (reason, count) in now().not_kafka {
                observer.observe(count, &[KeyValue::new(NOT_KAFKA_REASON, reason)]);
            }
        })
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter("ktrace.refused")
        .with_unit("{refusal}")
        .with_description("What brokers refused their clients, by operation and error")
        .with_callback(move |observer| {
            for ((operation, error), count) in now().refused {
                let of = [KeyValue::new(OPERATION, operation), KeyValue::new("error.type", error)];
                observer.observe(count, &of);
            }
        })
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter("ktrace.throttled")
        .with_unit("{response}")
        .with_description("Responses that made clients wait by their quotas, by operation")
        .with_callback(move |observer| {
            for (operation, (responses, _)) in now().throttled {
                observer.observe(responses, &[KeyValue::new(OPERATION, operation)]);
            }
        })
        .build();
    let now = Arc::clone(counts);
    let _ = meter
        .u64_observable_counter("ktrace.throttle.time")
        .with_unit("ms")
        .with_description("How long brokers made clients wait by their quotas, by operation")
        .with_callback(move |observer| {
            for (operation, (_, ms)) in now().throttled {
                observer.observe(ms, &[KeyValue::new(OPERATION, operation)]);
            }
        })
        .build();
    let ms = |ns: u64| ns / 1_000_000;
    observe_searches(provider, counts, "ktrace.tls.searches", "{search}", |stats| stats.searches);
    observe_searches(provider, counts, "ktrace.tls.search.bytes", "By", |stats| stats.bytes);
    observe_searches(provider, counts, "ktrace.tls.search.cpu", "ms", move |stats| ms(stats.cpu_ns));
    observe_searches(provider, counts, "ktrace.tls.keys", "{key}", |stats| stats.keys);
    observe_searches(provider, counts, "ktrace.tls.key.wait", "ms", move |stats| ms(stats.waited_ns));
}

/// A count of the searches for keys, where there are any.
fn observe_searches(
    provider: &SdkMeterProvider,
    counts: &Arc<impl Fn() -> Counts + Send + Sync + 'static>,
    name: &'static str,
    unit: &'static str,
    of: impl Fn(&Stats) -> u64 + Send + Sync + 'static,
) {
    let now = Arc::clone(counts);
    let _ = provider
        .meter_with_scope(scope())
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description("Searches for keys of TLS connections in the memory of processes")
        .with_callback(move |observer| {
            if let Some(stats) = now().searches {
                observer.observe(of(&stats), &[]);
            }
        })
        .build();
}

/// The counts that belong to this metric.
fn lost(observer: &dyn AsyncInstrument<u64>, counts: &Counts, metric: &str) {
    for (reason, count) in counts.lost.iter().filter(|(reason, _)| reason.metric() == Some(metric)) {
        observer.observe(*count, &[KeyValue::new(REASON, reason.name())]);
    }
}

/// The agent itself. What the environment says of it comes first.
fn resource(environment: &Environment) -> Resource {
    let mut own = vec![
        KeyValue::new("service.name", "ktrace"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("host.name", host_name()),
    ];
    // Two agents must not count as one.
    if let Ok(id) = std::fs::read_to_string("/proc/sys/kernel/random/uuid") {
        own.push(KeyValue::new("service.instance.id", id.trim().to_owned()));
    }
    let named = environment.get("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name.to_owned()));
    let given = environment.resource_attributes().into_iter().chain(named);
    Resource::builder_empty()
        .with_schema_url(own, SCHEMA_URL)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(given.map(|(name, value)| KeyValue::new(name, value)))
        .build()
}

/// What the reader exports by.
struct Exporter {
    transport: Transport<ExportMetricsServiceRequest, ExportMetricsServiceResponse>,
    /// There until it is dropped.
    runtime: Option<Runtime>,
    temporality: Temporality,
    timeout: Duration,
    /// When the run's time is over, once it ends.
    end: watch::Receiver<Option<Instant>>,
    failing: Mutex<Failing>,
}

impl Exporter {
    async fn request(&self, metrics: &ResourceMetrics) {
        let request = ExportMetricsServiceRequest::from(metrics);
        let exported = timeout(self.timeout, self.until_taken(&request));
        let failure = tokio::select! {
            exported = exported => exported.err().map(|_| format!("no answer within {:?}", self.timeout)),
            () = time_is_up(self.end.clone()) => Some("no answer before the end".to_owned()),
        };
        let silent = self.failing().why().is_none();
        if let Some(why) = failure.filter(|_| silent) {
            self.refused(&Refusal::unanswered(why));
        }
    }

    async fn until_taken(&self, request: &ExportMetricsServiceRequest) {
        let mut backoff = Backoff::default();
        loop {
            match self.transport.send(request).await {
                Ok(answer) => return self.taken(answer),
                Err(refusal) => {
                    self.refused(&refusal);
                    match refusal.next {
                        Next::Smaller | Next::GiveUp => return,
                        Next::Again(asked) => sleep(backoff.wait(asked)).await,
                    }
                }
            }
        }
    }

    fn taken(&self, answer: ExportMetricsServiceResponse) {
        say(self.failing().taken(0, std::time::Instant::now()));
        let partial = answer.partial_success.unwrap_or_default();
        if partial.rejected_data_points > 0 || !partial.error_message.is_empty() {
            let (to, message) = (self.transport.endpoint(), printable(&partial.error_message));
            tracing::warn!("{to} has rejected {} points of metrics: {message}", partial.rejected_data_points);
        }
    }

    fn refused(&self, refusal: &Refusal) {
        let line = self.failing().refused(refusal, 0, std::time::Instant::now());
        let line = line.map(|line| match refusal.next {
            Next::Again(_) => line,
            Next::Smaller | Next::GiveUp => format!("{line}; {MEANWHILE}"),
        });
        say(line);
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PushMetricExporter for Exporter {
    /// Never an error: the reader would log each.
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(self.request(metrics));
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

impl Drop for Exporter {
    /// Otherwise the runtime would wait for the resolver of names, who knows no limit.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Never, unless the run ends; then at the time that it allows.
async fn time_is_up(mut end: watch::Receiver<Option<Instant>>) {
    let end = end.wait_for(Option::is_some).await.map(|end| *end);
    match end {
        Ok(Some(end)) => sleep_until(end).await,
        _ => std::future::pending().await,
    }
}

/// What the environment makes of metrics.
#[cfg(test)]
pub(super) fn settings(environment: &Environment) -> String {
    let preference = environment.first(["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"]);
    let name = resource(environment).get(&"service.name".into());
    format!("{:?} {preference:?} {name:?}", Pace::of(environment))
}

#[cfg(test)]
mod tests;
