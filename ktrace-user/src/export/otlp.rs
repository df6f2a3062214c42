//! OTLP over gRPC or HTTP, with OpenTelemetry's standard environment.
//!
//! Spans are exported in batches, one request at a time. A batch that is refused for now goes back
//! to the front of the queue and is sent again after a growing pause; it is dropped only when the
//! queue needs the room, or the run ends. Spans that the collector will never take are dropped at
//! once.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::endpoint::{Endpoint, OtlpOptions, TRACES};
use super::environment::Environment;
use super::failing::{Failing, say};
use super::queue::{Batch, Bounds, Counters, Receiver, bounded, most_of};
use super::sdk::Converter;
use super::transport::{Backoff, Next, Refusal, Transport};
use super::{ExportError, Sink, WhenFull, printable};
use crate::privilege;

/// How spans are gathered: `OTEL_BSP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batching {
    delay: Duration,
    bounds: Bounds,
    batch: usize,
    timeout: Duration,
}

/// Spans that the queue holds: 90 s at 700 a second, the time in which a collector is upgraded. The
/// specification's 2048 are meant for one application; here all Kafka clients of a host share the
/// queue.
const QUEUE: usize = 65_536;
/// Their size in memory. About what the memory budget sets aside for each sink's queue.
const QUEUE_BYTES: usize = 24 << 20;
/// The average size of a span in memory, where the user asks for a longer queue.
const SPAN_BYTES: usize = QUEUE_BYTES / QUEUE;
/// Four times the specification's, for the same reason.
const BATCH: usize = 2_048;
/// The largest request. gRPC servers accept 4 MiB by default; a batch is mostly a quarter of that,
/// and a larger one is divided.
const REQUEST_BYTES: usize = 7 << 19;

impl Batching {
    fn of(environment: &Environment) -> Self {
        let number =
            |name| environment.number(name).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let milliseconds = |name, usual| {
            let set = environment.milliseconds(name);
            set.unwrap_or(Duration::from_millis(usual))
        };
        let spans = number("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(QUEUE).max(1);
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(BATCH).clamp(1, most_of(spans));
        let bytes = spans.saturating_mul(SPAN_BYTES).max(QUEUE_BYTES);
        Self {
            delay: milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            bounds: Bounds { spans, bytes, batch: Some(batch) },
            batch,
            timeout: milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
        }
    }
}

/// In replay, the time that a collector gets to appear, and to come back once it was there. After
/// that each further batch gets [`LAST_PAUSE`]: replay waits for its sinks, and a long file must
/// not take hours because no collector listens.
const NEVER_THERE: Duration = Duration::from_secs(10);
const WAS_THERE: Duration = Duration::from_secs(120);
/// The longest pause between two attempts when the run ends.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often a collector that has failed is probed while there is nothing to send.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The least time between two lines about spans that a collector rejects from requests that it
/// accepts.
const REJECTED_PAUSE: Duration = Duration::from_secs(60);

type Traces = Transport<ExportTraceServiceRequest, ExportTraceServiceResponse>;

/// Starts exporting by OTLP on a thread of its own. `None` where the environment wants no spans
/// (`OTEL_TRACES_EXPORTER`, `OTEL_SDK_DISABLED`).
///
/// # Errors
/// [`ExportError::Otlp`] where the configuration is wrong. A collector that cannot be reached is
/// reported, and no error.
pub fn otlp(options: &OtlpOptions, when_full: WhenFull) -> Result<Option<Sink>, ExportError> {
    if !options.environment.exports("OTEL_TRACES_EXPORTER") {
        return Ok(None);
    }
    start(options, when_full).map(Some)
}

fn start(options: &OtlpOptions, when_full: WhenFull) -> Result<Sink, ExportError> {
    let batching = Batching::of(&options.environment);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ExportError::Thread)?;
    let transport = Traces::new(Endpoint::of(&TRACES, options)?);
    let (sender, queued, counters) = bounded("otlp", batching.bounds, when_full);
    let (limit, limited) = oneshot::channel();
    let (begin, begun) = oneshot::channel();
    let converter = Converter::of(&options.environment);
    let to = transport.endpoint().to_string();
    let meanwhile = match when_full {
        WhenFull::Drop => "they are kept for as long as the queue has room, and sent again",
        WhenFull::Wait => "they are sent again for a while",
    };
    let failing = Failing::new("spans", to, meanwhile);
    let (ending, ends) = watch::channel(false);
    let export = Export {
        transport,
        converter,
        batching,
        when_full,
        counters,
        failing,
        backoff: Backoff::default(),
        ends,
        ending: false,
        was_there: false,
        rejected: None,
        open: 0,
    };
    let thread = std::thread::Builder::new()
        .name("ktrace-otlp".to_owned())
        .spawn(move || {
            privilege::shed();
            let end = export.run(&runtime, queued, (begun, limited, ending));
            // Dropped, the runtime would wait for the name resolver, which has no time limit.
            runtime.shutdown_background();
            end
        })
        .map_err(ExportError::Thread)?;
    // All that it holds is in its queue, which is budgeted by its spans, as those of all sinks.
    Ok(Sink { sender, thread, limit: Some(limit), begin: Some(begin), bytes: 0 })
}

struct Export {
    transport: Traces,
    converter: Converter,
    batching: Batching,
    when_full: WhenFull,
    counters: Arc<Counters>,
    failing: Failing,
    backoff: Backoff,
    /// Whether the run ends.
    ends: watch::Receiver<bool>,
    /// The same, once it was heard.
    ending: bool,
    /// The collector has answered before.
    was_there: bool,
    /// When a line said last that it rejects some spans.
    rejected: Option<Instant>,
    /// Spans in hand: neither in the queue nor counted as delivered or lost.
    open: usize,
}

impl Export {
    fn run(
        mut self,
        runtime: &Runtime,
        mut queued: Receiver,
        (begun, limited, ending): (oneshot::Receiver<()>, oneshot::Receiver<Duration>, watch::Sender<bool>),
    ) -> Result<(), ExportError> {
        let counters = Arc::clone(&self.counters);
        let finished = runtime.block_on(async {
            let sent = async {
                // A run that never begins, because its options are wrong, says nothing of a
                // collector.
                let begun = tokio::select! {
                    begun = begun => begun.is_ok(),
                    () = queued.anything() => false,
                };
                if begun {
                    self.probe().await;
                }
                self.drain(&mut queued).await;
            };
            tokio::select! {
                () = sent => true,
                () = time_is_up(limited, ending) => false,
            }
        });
        if !finished {
            counters.fail(self.open.saturating_add(queued.end()));
        }
        match counters.failed() + counters.refused() {
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
        loop {
            let mut delay = self.batching.delay;
            if self.failing.since().is_some() {
                // That the collector is back is worth knowing even while there is nothing to send.
                tokio::select! {
                    () = queued.anything() => {}
                    () = sleep(LOOK_AGAIN) => {
                        self.probe().await;
                        continue;
                    }
                }
                // A batch that failed was gathered before.
                delay = Duration::ZERO;
            }
            let Some(batch) = queued.take_batch(delay).await else { return };
            self.open = batch.hops.len();
            self.deliver(batch, queued).await;
            self.open = 0;
        }
    }

    /// Checks whether the collector listens. Whether it accepts spans shows when it gets some.
    async fn probe(&mut self) {
        match self.transport.probe().await {
            Ok(()) => self.reached(),
            Err(refusal) => {
                let lost = self.lost();
                say(self.failing.refused(&refusal, lost, Instant::now()));
            }
        }
    }

    /// Sends a batch in as few requests as possible. Spans that are refused for now go back to the
    /// queue, and a pause follows.
    async fn deliver(&mut self, mut batch: Batch, queued: &Receiver) {
        let mut most = batch.hops.len();
        while !batch.hops.is_empty() {
            let count = most.min(batch.hops.len());
            let request = self.converter.request(batch.hops.spans().take(count));
            if request.encoded_len() > REQUEST_BYTES && count > 1 {
                most = count.div_ceil(2);
                continue;
            }
            let patience = match self.patience() {
                Some(patience) => patience.min(self.batching.timeout),
                None => self.batching.timeout,
            };
            let sent = timeout(patience, self.transport.send(&request))
                .await
                .unwrap_or_else(|_| Err(Refusal::unanswered(format!("no answer within {patience:?}"))));
            let wait = match sent {
                Ok(answer) => {
                    self.rejected(answer, count);
                    self.taken();
                    None
                }
                Err(Refusal { next: Next::Smaller, .. }) if count > 1 => {
                    most = count.div_ceil(2);
                    continue;
                }
                Err(refusal) => {
                    self.was_there |= refusal.answered;
                    let lost = self.lost();
                    say(self.failing.refused(&refusal, lost, Instant::now()));
                    match refusal.next {
                        Next::Again(_) if self.patience().is_some() => {
                            self.counters.fail(count);
                            None
                        }
                        Next::Again(asked) => Some(self.backoff.wait(asked)),
                        Next::Smaller | Next::GiveUp => {
                            self.counters.refuse(count);
                            None
                        }
                    }
                }
            };
            if let Some(wait) = wait {
                self.open = 0;
                queued.give_back(batch);
                return self.pause(wait).await;
            }
            self.open -= count;
            if count == batch.hops.len() {
                return queued.done(&batch);
            }
            batch = queued.done_with(&batch, count);
        }
    }

    /// In replay, when the collector has failed for too long: how much time a batch gets now.
    fn patience(&self) -> Option<Duration> {
        let failing = self.failing.since().filter(|_| self.when_full == WhenFull::Wait)?;
        let limit = if self.was_there { WAS_THERE } else { NEVER_THERE };
        (failing.elapsed() > limit).then_some(LAST_PAUSE)
    }

    /// Pauses. The end of the run ends a pause: spans that are held then are sent at once, whatever
    /// pause the collector asked for, or they would be lost for certain.
    async fn pause(&mut self, wait: Duration) {
        if self.ending {
            return sleep(wait.min(LAST_PAUSE)).await;
        }
        let ended = self.ends.wait_for(|ending| *ending);
        tokio::select! {
            () = sleep(wait) => {}
            _ = ended => {
                self.ending = true;
                self.backoff = Backoff::default();
            }
        }
    }

    /// The collector has taken spans.
    fn taken(&mut self) {
        self.was_there = true;
        self.reached();
    }

    /// It listens.
    fn reached(&mut self) {
        self.backoff = Backoff::default();
        let lost = self.lost();
        say(self.failing.taken(lost, Instant::now()));
    }

    /// <https://opentelemetry.io/docs/specs/otlp/#partial-success>: what is rejected so must not be sent again.
    fn rejected(&mut self, answer: ExportTraceServiceResponse, count: usize) {
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = usize::try_from(partial.rejected_spans).unwrap_or(0).min(count);
        self.counters.deliver(count - rejected);
        self.counters.refuse(rejected);
        let (message, to) = (printable(&partial.error_message), self.transport.endpoint());
        if rejected == 0 && message.is_empty() {
            return;
        }
        tracing::info!("{to} has rejected {rejected} of {count} spans: {message}");
        if rejected > 0 && self.rejected.is_none_or(|said| said.elapsed() > REJECTED_PAUSE) {
            let all = self.counters.refused();
            say(Some(format!("{to} has rejected spans, which are lost, {all} so far: {message}")));
            self.rejected = Some(Instant::now());
        }
    }

    fn lost(&self) -> u64 {
        self.counters.failed() + self.counters.refused() + self.counters.queue_full()
    }
}

/// Never, unless the run ends; then `ending` says so at once, and this is over after the time that
/// the end allows.
async fn time_is_up(limited: oneshot::Receiver<Duration>, ending: watch::Sender<bool>) {
    match limited.await {
        Ok(limit) => {
            ending.send_replace(true);
            sleep(limit).await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// What the environment makes of batches, and of every resource.
#[cfg(test)]
pub(super) fn settings(environment: &Environment) -> String {
    let attributes = environment.resource_attributes();
    format!("{:?} {attributes:?}", Batching::of(environment))
}

#[cfg(test)]
mod tests;
