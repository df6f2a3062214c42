//! What `run` and `observe` share: from the kernel's events to the sinks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ktrace_kafka::context::formats;
use ktrace_kafka::counters::NotKafka;
use ktrace_tls::keylog::{KeyLog, MAX_BYTES};

use super::lookout::{Lookout, say};
use super::named::Named;
use super::pipeline::{Live, Memory, Pipeline, Plan, Told};
use super::{Failure, Filter, doctor};
use crate::capture::{CaptureError, CounterReader, Live as Source, LiveOptions, PortSet};
use crate::export::top::{Agent, Tells};
use crate::export::{Counts, ExportError, Metrics, SinkLosses, Sinks};
use crate::hop::versioned::Versioned;
use crate::keys::log_file::{self, KeyLogFile};
use crate::keys::uprobes::{Store, Watch};
use crate::keys::{self, Keys, SharedKeyLog};
use crate::privilege::{self, memory::Lack};
use crate::seen::Side;
use crate::summary::Summary;
use crate::worker::{Shared, TlsOptions, TlsSource, Worker, WorkerOptions};

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
    let tls = live.tls.options(&pipeline.ports)?;
    if let Some(asked) = live.ring_size.filter(|asked| *asked != ring_bytes) {
        eprintln!("ktrace: --ring-size is {ring_bytes} bytes instead of {asked}: rings are powers of two");
    }
    let key_file = key_file(&tls.source, memory)?;
    let key_log = key_file.as_ref().map(|file| Arc::clone(file.log()));
    let search = search(&tls, rings)?;
    let derived = tls.uprobes.then(Arc::<Store>::default);
    let of_workers = WorkerOptions {
        key_log: key_log.clone(),
        search: search.clone(),
        derived: derived.clone(),
        ..live.worker(pipeline, &tls)
    };
    let workers: Result<Vec<_>, _> =
        (0..rings).map(|_| worker(&filter, of_workers.clone(), &shared, &sinks)).collect();
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
        tls: tls.is_on().then(|| tls.ports.clone()),
        tls_cgroups: tls.cgroups.clone(),
        secrets: derived.clone(),
        say,
    };
    let cgroup = options.cgroup.clone();
    let named = Named::new(options.pid, options.netns.as_deref())?;
    let mut source =
        Source::open(options).map_err(|error| cannot(&error, &pipeline.ports, cgroup.as_deref()))?;
    // It keeps what it needs to read the file of another user.
    let _following = key_file.map(|file| file.follow(say)).transpose().map_err(|error| {
        Failure::failed(
            format_args!("cannot start a thread: {error}"),
            "check the limits on threads (ulimit -u)",
        )
    })?;
    if tls.source == TlsSource::Memory
        && let Some(lack) = Lack::here()
    {
        say(&format!(
            "--tls memory: {}; TLS connections are counted as tls_denied. `ktrace doctor` says what to do",
            lack.what
        ));
    }
    // All that is started from here on begins with no privilege.
    let mut also = Vec::new();
    if tls.source == TlsSource::Memory {
        also.extend(privilege::filter::READS_MEMORY);
    }
    if source.secrets().is_some_and(Watch::makes_events) {
        also.extend(privilege::filter::PROBES);
    }
    privilege::confine(&[], &also);
    sinks.begin();
    let given = !pipeline.ports.is_auto();
    let lookout = Lookout::start(Arc::clone(&shared), source.counter_reader(), limits, given)?;
    let counts = Arc::new(counts(
        (Arc::clone(&shared), source.counter_reader()),
        (sinks.losses(), filter.clone()),
        (key_log.clone(), derived.clone(), search),
    ));
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
        tls: of_all.tls().into_iter().map(|(service, of)| (service, of.values().sum())).collect(),
    }));
    if tls.is_on() && tls.ports.is_auto() {
        let ports = source.taken_ports();
        shared.brokers.learn_by(move |port| ports.take(port));
    }
    for worker in &mut workers {
        let refusals = source.refusals();
        worker.refuse_by(Box::new(move |connection| refusals.refuse(connection)));
    }
    let each = workers.iter_mut().map(|worker| |event: crate::seen::Event<'_>| worker.event(event));
    let seen = named.watch(stop, || source.run_each(stop, each.collect()));
    let mut summary = Summary::default();
    for worker in workers {
        summary.add(&worker.finish());
    }
    lookout.finish();
    summary.add_shared(&shared);
    summary.add_lost(key_log.iter().flat_map(log_file::losses));
    summary.add_lost(derived.iter().map(|derived| derived.loss()));
    summary.add_lost([
        ("trace_forgotten", filter.forgotten()),
        ("tls_port_not_learned", shared.brokers.not_learned()),
    ]);
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

/// What searches processes for keys, where that is wanted, started while it may read them.
fn search(tls: &TlsOptions, workers: usize) -> Result<Option<Arc<Keys>>, Failure> {
    if tls.source != TlsSource::Memory {
        return Ok(None);
    }
    let options = keys::Options { workers, cpu: tls.cpu, say };
    let keys = Keys::start(options).map_err(|error| {
        Failure::failed(
            format_args!("cannot search for keys: {error}"),
            "check the limits on threads (ulimit -u) and memory",
        )
    })?;
    Ok(Some(Arc::new(keys)))
}

/// The key log that the user has named, opened while all may be read.
fn key_file(source: &TlsSource, memory: Option<&Memory>) -> Result<Option<KeyLogFile>, Failure> {
    /// What is remembered of it takes this part of the agent's memory.
    const PART: usize = 16;
    let TlsSource::KeyLog(path) = source else { return Ok(None) };
    let most_bytes = memory.map_or(MAX_BYTES, |memory| MAX_BYTES.min(memory.bytes / PART));
    let log = Arc::new(Versioned::new(KeyLog::within(most_bytes)));
    KeyLogFile::open(path, log).map(Some).map_err(|error| Failure::Usage {
        what: format!("--tls: {error}"),
        advice: error.advice().to_owned(),
    })
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
    (key_log, derived, search): (Option<SharedKeyLog>, Option<Arc<Store>>, Option<Arc<Keys>>),
) -> impl Fn() -> Counts + Send + Sync {
    move || {
        let kernel = kernel.read();
        let mut lost = sinks.so_far();
        lost.extend(kernel.lost().map(|(reason, count)| (reason, count.events)));
        lost.extend(shared.losses());
        lost.extend(key_log.iter().flat_map(log_file::losses));
        lost.extend(derived.iter().map(|derived| derived.loss()));
        lost.extend([
            ("trace_forgotten", filter.forgotten()),
            ("tls_port_not_learned", shared.brokers.not_learned()),
        ]);
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
            searches: search.as_ref().map(|keys| keys.stats()),
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
