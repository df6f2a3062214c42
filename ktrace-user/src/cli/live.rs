//! What `run` and `observe` share: from the kernel's events to the sinks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ktrace_kafka::context::formats;

use super::lookout::Lookout;
use super::pipeline::{Live, Memory, Pipeline, Plan, Told};
use super::{Failure, Filter, doctor};
use crate::capture::{CounterReader, Live as Source, LiveOptions, Side};
use crate::export::top::{Agent, Tells};
use crate::export::{Counts, ExportError, Metrics, SinkLosses, Sinks};
use crate::summary::Summary;
use crate::worker::{Shared, Worker, WorkerOptions};

/// Sinks and metrics get this long to deliver what is held at the end. Kubernetes allows 30 s before it kills.
pub const FLUSH: Duration = Duration::from_secs(10);
/// Of that, metrics, which go last as they count what the sinks could not deliver.
const METRICS_FLUSH: Duration = Duration::from_secs(2);

/// Until `stop` is set, within a limit of `memory`. `begun` is told when the watch has begun, and given what tells of the agent itself.
pub fn watch(
    (live, memory): (Live, Option<&Memory>),
    pipeline: &Pipeline,
    told: &Told,
    sinks: Sinks,
    metrics: Option<Metrics>,
    stop: &AtomicBool,
    begun: impl FnOnce(Tells),
) -> Result<(), Failure> {
    told.check()?;
    // What the user got wrong comes before what the host lacks.
    let shared = pipeline.shared();
    let Plan { rings, ring_bytes, connections, limits } = live.plan(memory, &shared, &sinks)?;
    let filter = pipeline.filter()?;
    let workers: Result<Vec<_>, _> =
        (0..rings).map(|_| worker(&filter, live.worker(pipeline), &shared, &sinks)).collect();
    let mut workers = workers?;
    let options = LiveOptions {
        ports: pipeline.ports.clone(),
        cgroup: live.cgroup,
        pid: live.pid,
        netns: live.netns,
        rings,
        ring_bytes,
        connections,
        client_end: live.side.have(Side::Client),
        broker_end: live.side.have(Side::Broker),
        services: live.service_name.into_iter().collect(),
    };
    let mut source = Source::open(options).map_err(|error| Failure::CannotCapture {
        what: error.to_string(),
        advice: doctor::advice(&pipeline.ports, error.advice()),
    })?;
    let lookout = Lookout::start(Arc::clone(&shared), source.counter_reader(), limits)?;
    let counts =
        Arc::new(counts((Arc::clone(&shared), source.counter_reader()), (sinks.losses(), filter.clone())));
    let metrics = metrics.map(|metrics| {
        let counts = Arc::clone(&counts);
        metrics.start(move || counts())
    });
    if pipeline.ports.is_auto() {
        eprintln!("ktrace: watching for Kafka on all ports; Ctrl-C ends");
    } else {
        eprintln!("ktrace: watching connections to Kafka ports {}; Ctrl-C ends", pipeline.ports);
    }
    let of_all = Arc::clone(&shared);
    begun(Box::new(move || Agent {
        lost: counts().lost.into_iter().collect(),
        tls: of_all.tls().into_iter().collect(),
    }));
    for worker in &mut workers {
        let refusals = source.refusals();
        worker.refuse_by(Box::new(move |connection| refusals.refuse(connection)));
    }
    let each = workers.iter_mut().map(|worker| |event: crate::capture::Event<'_>| worker.event(event));
    let seen = source.run_each(stop, each.collect());
    let mut summary = Summary::default();
    for worker in workers {
        summary.add(&worker.finish());
    }
    lookout.finish();
    summary.spans = shared.spans();
    summary.add_lost([("trace_forgotten", filter.forgotten())]);
    let last = metrics.as_ref().map_or(Duration::ZERO, |_| METRICS_FLUSH);
    let (lost, exported) = sinks.finish(FLUSH.saturating_sub(last), false);
    if let Some(metrics) = metrics {
        metrics.finish(last);
    }
    summary.add_lost(lost);
    if let Ok(counters) = &seen {
        summary.add_lost(counters.lost().map(|(reason, count)| (reason, count.events)));
    }
    told.tell(&summary)?;
    seen.map_err(|error| Failure::failed(&error, error.advice()))?;
    match exported {
        // Counted and logged when it happened: an agent that is told to end has not failed.
        Ok(()) | Err(ExportError::Undelivered { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What metrics and `--top` tell, whenever they are asked for it.
fn counts(
    (shared, kernel): (Arc<Shared>, CounterReader),
    (sinks, filter): (SinkLosses, Filter),
) -> impl Fn() -> Counts + Send + Sync {
    move || {
        let kernel = kernel.read();
        let mut lost = sinks.so_far();
        lost.extend(kernel.lost().map(|(reason, count)| (reason, count.events)));
        lost.extend(shared.losses());
        lost.extend([("trace_forgotten", filter.forgotten())]);
        Counts { spans: shared.spans(), lost }
    }
}

/// The pipeline of one ring up to the sinks.
pub fn worker(
    filter: &Filter,
    options: WorkerOptions,
    shared: &Arc<Shared>,
    sinks: &Sinks,
) -> Result<Worker, Failure> {
    let options = WorkerOptions { uncommitted: filter.uncommitted(), ..options };
    let filter = filter.clone();
    let senders = sinks.senders();
    let told = Arc::clone(shared);
    let sink = move |hop| {
        if let Some(hop) = filter.pass(hop) {
            told.count_span();
            senders.send(hop);
        }
    };
    Worker::new(options, shared, Box::new(sink)).map_err(|error| Failure::Usage {
        what: format!("--context: {error}"),
        advice: format!(
            "known are {}; key:NAME is a header of your own",
            formats().collect::<Vec<_>>().join(", ")
        ),
    })
}
