//! The run of `run` and `observe`: from the kernel's events to the sinks, and its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ktrace_kafka::context::formats;
use ktrace_kafka::counters::NotKafka;
use ktrace_tls::keylog::{KeyLog, MAX_BYTES};

use super::monitor::{Monitor, say};
use super::named::Named;
use super::pipeline::{Live, Memory, Pipeline, Plan, SummaryArgs};
use super::{Failure, doctor};
use crate::capture::{CaptureError, CounterReader, Live as Source, LiveOptions, PortSet};
use crate::export::top::{Agent, ReadAgent};
use crate::export::{Counts, ExportError, Metrics, SinkLosses, Sinks};
use crate::hop::versioned::Versioned;
use crate::keys::log_file::{self, KeyLogFile};
use crate::keys::uprobes::{Store, Watch};
use crate::keys::{self, Keys, SharedKeyLog};
use crate::losses::Reason;
use crate::privilege::{self, memory::Lack};
use crate::seen::Side;
use crate::summary::Summary;
use crate::worker::{Selection, Shared, TlsOptions, TlsSource, Worker, WorkerOptions};

/// How long sinks and metrics may take to deliver what they hold at the end. Kubernetes allows 30 s
/// before it kills.
pub const FLUSH: Duration = Duration::from_secs(10);
/// The part of that for metrics. They are exported last, as they count what the sinks could not
/// deliver.
const METRICS_FLUSH: Duration = Duration::from_secs(2);

/// What `run` and `observe` have made of their options.
pub struct Run<'a> {
    pub live: Live,
    /// The limit of the agent's memory, if there is one.
    pub memory: Option<&'a Memory>,
    pub pipeline: &'a Pipeline,
    pub summary: &'a SummaryArgs,
    pub sinks: Sinks,
    pub metrics: Option<Metrics>,
}

/// Watches until `stop` is set. `begun` is called once the capture runs, with a way to read the
/// state of the agent itself.
pub fn watch(run: Run<'_>, stop: &AtomicBool, begun: impl FnOnce(ReadAgent)) -> Result<(), Failure> {
    let Run { live, memory, pipeline, summary, mut sinks, metrics } = run;
    let summary_file = summary.open()?;
    // The user's mistakes are reported before the host's.
    let shared = pipeline.shared();
    let Plan { rings, ring_bytes, connections, limits } = live.plan(memory, &shared, &sinks)?;
    let selection = pipeline.selection()?;
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
        (0..rings).map(|_| worker(&selection, of_workers.clone(), &shared, &sinks)).collect();
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
    // The thread keeps the privilege that it needs to read another user's file.
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
    // Threads that start from here on have no privilege.
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
    let monitor = Monitor::start(Arc::clone(&shared), source.counter_reader(), limits, given)?;
    let counters = Arc::new(Counters {
        kernel: source.counter_reader(),
        shared: Arc::clone(&shared),
        selection,
        key_log,
        derived,
        search,
        sinks: sinks.losses(),
    });
    let metrics = metrics.map(|metrics| {
        let counters = Arc::clone(&counters);
        metrics.start(move || counters.counts())
    });
    if pipeline.ports.is_auto() {
        eprintln!("ktrace: watching for Kafka on all ports; Ctrl-C ends");
    } else {
        eprintln!("ktrace: watching connections to Kafka ports {}; Ctrl-C ends", pipeline.ports);
    }
    let of_agent = Arc::clone(&counters);
    begun(Box::new(move || of_agent.agent()));
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
    monitor.finish();
    summary.add_shared(&shared);
    let last = metrics.as_ref().map_or(Duration::ZERO, |_| METRICS_FLUSH);
    let (_, exported) = sinks.finish(FLUSH.saturating_sub(last), false);
    if let Some(metrics) = metrics {
        metrics.finish(last);
    }
    summary.add_lost(counters.outside());
    summary_file.write(&summary)?;
    seen.map_err(|error| Failure::failed(&error, error.advice()))?;
    match exported {
        Ok(()) => named.end(),
        // The spans are counted as lost. An agent that was asked to end has not failed.
        Err(error @ ExportError::Undelivered { .. }) => {
            eprintln!("ktrace: {error}");
            named.end()
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts the search of processes for keys, where it is wanted, while the agent may read them.
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

/// The key log that the user has named, opened while the agent may read any file.
fn key_file(source: &TlsSource, memory: Option<&Memory>) -> Result<Option<KeyLogFile>, Failure> {
    /// The secrets of a key log may take this part of the agent's memory.
    const PART: usize = 16;
    let TlsSource::KeyLog(path) = source else { return Ok(None) };
    let most_bytes = memory.map_or(MAX_BYTES, |memory| MAX_BYTES.min(memory.bytes / PART));
    let log = Arc::new(Versioned::new(KeyLog::within(most_bytes)));
    KeyLogFile::open(path, log).map(Some).map_err(|error| Failure::Usage {
        what: format!("--tls: {error}"),
        advice: error.advice().to_owned(),
    })
}

/// Why the capture cannot begin, and what to do.
fn cannot(error: &CaptureError, ports: &PortSet, cgroup: Option<&Path>) -> Failure {
    let (what, advice) = (error.to_string(), error.advice().into_owned());
    match error {
        CaptureError::Occupied { .. } => Failure::CannotCapture { what, advice },
        _ if error.is_of_what_was_named() => Failure::Failed { what, advice },
        _ => Failure::CannotCapture { what, advice: doctor::advice(ports, cgroup, &advice) },
    }
}

/// Everything that counts losses in a run. Metrics, `--top` and the summary read the same counts.
struct Counters {
    kernel: CounterReader,
    shared: Arc<Shared>,
    selection: Selection,
    key_log: Option<SharedKeyLog>,
    derived: Option<Arc<Store>>,
    search: Option<Arc<Keys>>,
    sinks: SinkLosses,
}

impl Counters {
    /// What was lost so far outside of the workers, by reason, zeros too.
    fn outside(&self) -> impl Iterator<Item = (Reason, u64)> {
        let kernel = self.kernel.read();
        let sources = self.key_log.iter().flat_map(log_file::losses);
        let sources = sources.chain(self.derived.iter().map(|derived| derived.loss()));
        let filters = [
            (Reason::TraceForgotten, self.selection.forgotten()),
            (Reason::TlsPortNotLearned, self.shared.brokers.not_learned()),
        ];
        let kernel: Vec<_> = kernel.lost().map(|(reason, count)| (reason, count.events)).collect();
        kernel.into_iter().chain(sources).chain(filters).chain(self.sinks.so_far())
    }

    /// What was lost so far, by reason, zeros too.
    fn lost(&self) -> BTreeMap<Reason, u64> {
        let mut lost: BTreeMap<_, _> = self.shared.losses().collect();
        lost.extend(self.outside());
        lost
    }

    /// For metrics.
    fn counts(&self) -> Counts {
        let others = self.shared.not_kafka();
        let count =
            |reason: &NotKafka| (reason.name(), others.get(reason.name()).map_or(0, |others| others.count));
        let not_kafka = NotKafka::ALL.iter().map(count).collect();
        let throttled = self.shared.throttled();
        Counts {
            spans: self.shared.spans(),
            lost: self.lost(),
            not_kafka,
            refused: self.shared.refused(),
            throttled: throttled.into_iter().map(|(name, of)| (name, (of.responses, of.ms))).collect(),
            searches: self.search.as_ref().map(|keys| keys.stats()),
        }
    }

    /// For `--top`.
    fn agent(&self) -> Agent {
        let tls = self.shared.tls().into_iter();
        Agent {
            lost: self.lost().into_iter().collect(),
            tls: tls.map(|(service, of)| (service, of.values().sum())).collect(),
        }
    }
}

/// The pipeline of one ring up to the sinks.
pub fn worker(
    selection: &Selection,
    options: WorkerOptions,
    shared: &Arc<Shared>,
    sinks: &Sinks,
) -> Result<Worker, Failure> {
    let options = WorkerOptions { selection: selection.clone(), ..options };
    let senders = sinks.senders();
    let of_all = Arc::clone(shared);
    let emit = move |hop| {
        of_all.count_span();
        senders.send(hop);
    };
    Worker::new(options, shared, Box::new(emit)).map_err(|error| Failure::Usage {
        what: format!("--context: {error}"),
        advice: format!(
            "known are {}; key:NAME is a header of your own",
            formats().collect::<Vec<_>>().join(", ")
        ),
    })
}
