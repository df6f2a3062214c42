//! What `run` and `observe` share: from the kernel's events to the sinks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ktrace_kafka::context::formats;
use ktrace_kafka::counters::NotKafka;

use super::lookout::{Lookout, say};
use super::named::Named;
use super::pipeline::{Live, Memory, Pipeline, Plan, Told};
use super::{Failure, Filter, doctor};
use crate::capture::{CaptureError, CounterReader, Live as Source, LiveOptions, PortSet, Side};
use crate::export::top::{Agent, Tells};
use crate::export::{Counts, ExportError, Metrics, SinkLosses, Sinks};
use crate::privilege;
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
    mut sinks: Sinks,
    metrics: Option<Metrics>,
    stop: &AtomicBool,
    begun: impl FnOnce(Tells),
) -> Result<(), Failure> {
    let told = told.open()?;
    // What the user got wrong comes before what the host lacks.
    let shared = pipeline.shared();
    let Plan { rings, ring_bytes, connections, limits } = live.plan(memory, &shared, &sinks)?;
    let filter = pipeline.filter()?;
    if let Some(asked) = live.ring_size.filter(|asked| *asked != ring_bytes) {
        eprintln!("ktrace: --ring-size is {ring_bytes} bytes instead of {asked}: rings are powers of two");
    }
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
        say,
    };
    let cgroup = options.cgroup.clone();
    let named = Named::new(options.pid, options.netns.as_deref())?;
    let mut source =
        Source::open(options).map_err(|error| cannot(&error, &pipeline.ports, cgroup.as_deref()))?;
    // All that is started from here on begins with no privilege.
    privilege::confine(&[]);
    sinks.begin();
    let given = !pipeline.ports.is_auto();
    let lookout = Lookout::start(Arc::clone(&shared), source.counter_reader(), limits, given)?;
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
    let seen = named.watch(stop, || source.run_each(stop, each.collect()));
    let mut summary = Summary::default();
    for worker in workers {
        summary.add(&worker.finish());
    }
    lookout.finish();
    summary.add_shared(&shared);
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
    told.write(&summary)?;
    seen.map_err(|error| Failure::failed(&error, error.advice()))?;
    match exported {
        Ok(()) => named.end(),
        // Counted: an agent that ends because it is asked to has not failed.
        Err(error @ ExportError::Undelivered { .. }) => {
            eprintln!("ktrace: {error}");
            named.end()
        }
        Err(error) => Err(error.into()),
    }
}

/// Why the watch cannot begin.
fn cannot(error: &CaptureError, ports: &PortSet, cgroup: Option<&Path>) -> Failure {
    let (what, advice) = (error.to_string(), error.advice().into_owned());
    match error {
        CaptureError::Occupied { .. } => Failure::CannotCapture { what, advice },
        _ if error.is_of_what_was_named() => Failure::Failed { what, advice },
        _ => Failure::CannotCapture { what, advice: doctor::advice(ports, cgroup, &advice) },
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
        let others = shared.not_kafka();
        let count =
            |reason: &NotKafka| (reason.name(), others.get(reason.name()).map_or(0, |others| others.count));
        let not_kafka = NotKafka::ALL.iter().map(count).collect();
        let throttled = shared.throttled();
        Counts {
            spans: shared.spans(),
            lost,
            not_kafka,
            refused: shared.refused(),
            throttled: throttled.into_iter().map(|(name, of)| (name, (of.responses, of.ms))).collect(),
        }
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
