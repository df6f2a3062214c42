//! The options of `run`, `observe` and `replay`, each defined once: flag, environment variable and
//! key of the configuration file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use ipnet::IpNet;

use super::Failure;
use super::monitor::{Limits, Usage};
use super::own_limit::{OwnLimit, own_limit};
use super::summary_file::SummaryFile;
use super::tls::Tls;
use super::values::{bytes, duration, network, pair, ratio, rings, share, url};
use crate::capture::{
    CAPACITY, KNOWN_BYTES, LEAST_RING_BYTES, Live as Source, PortSet, RING_BYTES, ring_bounds, ring_size_of,
};
use crate::export::{Environment, OtlpOptions, Output, Sink, Sinks, WhenFull, print, tree};
use crate::hop::sampling::{Exceptions, Sampling};
use crate::hop::uncommitted::Uncommitted;
use crate::privilege;
use crate::worker::{
    Filter, FilterOptions, Fixed, Follow, Selection, Shared, Sides, TlsOptions, TracePrefix, WorkerOptions,
    budget, queued_at_most,
};

/// The options of all three verbs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pipeline")]
pub struct Pipeline {
    /// Kafka ports: numbers and ranges such as 9092-9094,19092; auto is wherever Kafka is spoken
    #[arg(long, value_name = "LIST", env = "KTRACE_PORTS", default_value = "auto")]
    pub ports: PortSet,
    /// Only messages of these topics; ! in front leaves out. Repeatable, or separated by commas
    #[arg(long, value_name = "GLOB", env = "KTRACE_TOPIC", value_delimiter = ',')]
    pub topic: Vec<String>,
    /// Only what these consumer groups receive; ! in front leaves out
    #[arg(long, value_name = "GLOB", env = "KTRACE_GROUP", value_delimiter = ',')]
    pub group: Vec<String>,
    /// Only messages of these services; ! in front leaves out
    #[arg(long, value_name = "GLOB", env = "KTRACE_SERVICE", value_delimiter = ',')]
    pub service: Vec<String>,
    /// Only messages with these keys, patterns or plain text; what is no text is matched as 0x and
    /// hex digits; ! in front leaves out
    #[arg(long, value_name = "GLOB", env = "KTRACE_KEY", value_delimiter = ',')]
    pub key: Vec<String>,
    /// Only this trace: its id, or its first 8 hex digits or more. Repeatable, or separated by
    /// commas
    #[arg(long, value_name = "ID", env = "KTRACE_TRACE", value_delimiter = ',')]
    pub trace: Vec<TracePrefix>,
    /// Only spans with an error
    #[arg(
        long, env = "KTRACE_ERRORS", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub errors: bool,
    /// Only messages that took longer, such as 500ms or 2s: to send, or to be delivered, counted
    /// from the producer's request, or from the record's timestamp where that request was not seen
    #[arg(long, value_name = "DURATION", env = "KTRACE_SLOWER_THAN", value_parser = duration)]
    pub slower_than: Option<Duration>,
    /// Only messages with exactly this key, and from then on all messages of their traces, whatever
    /// their keys
    #[arg(long, value_name = "KEY", env = "KTRACE_FOLLOW_KEY")]
    pub follow_key: Option<String>,
    /// Only deliveries that their group has not committed, or acknowledged, within this time, such
    /// as 60s: each once, when it is over
    #[arg(long, value_name = "DURATION", env = "KTRACE_UNCOMMITTED", value_parser = duration)]
    pub uncommitted: Option<Duration>,
    /// Show keys of records: messaging.kafka.message.key
    #[arg(
        long, env = "KTRACE_KEYS", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub keys: bool,
    /// Share of traces kept, 0 to 1, decided by trace id, so that all hosts keep the same
    #[arg(long, value_name = "RATIO", env = "KTRACE_SAMPLE", default_value = "1", value_parser = ratio)]
    pub sample: f64,
    /// Keep messages that took longer, such as 500ms, or failed, whatever --sample says: to send,
    /// or to be delivered, counted from the producer's request, or from the record's timestamp
    /// where that request was not seen
    #[arg(long, value_name = "DURATION", env = "KTRACE_SAMPLE_SLOW", value_parser = duration)]
    pub sample_slow: Option<Duration>,
    /// Keep a message or not as the sampling flag in its trace context says, where it has one
    #[arg(
        long, env = "KTRACE_SAMPLE_PARENT", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub sample_parent: bool,
    /// Do not link a message to the one that caused it where no header names that one: the only
    /// message with its key that the process received in the last ten minutes, within the last
    /// minute
    #[arg(
        long, env = "KTRACE_NO_INFER", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub no_infer: bool,
    /// Count old messages as late that a consumer catches up with, when it begins at the log's
    /// beginning or restores its state. By default --slower-than, --sample-slow and the latencies
    /// of --top leave them out
    #[arg(
        long, env = "KTRACE_OLD_IS_LATE", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub old_is_late: bool,
    /// Show at most this many spans a second. Over the limit whole traces are skipped [default: no
    /// limit]
    #[arg(
        long, value_name = "RATE", env = "KTRACE_MAX_SPANS",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_spans: Option<u32>,
    /// Trace header formats looked for, in order; key:NAME adds a header of your own [default: all
    /// known]
    #[arg(long, value_name = "FORMAT", env = "KTRACE_CONTEXT", value_delimiter = ',')]
    pub context: Vec<String>,
    /// Show messages that carry ktrace's own telemetry, as a backend may write it to Kafka. By
    /// default they are left out: the span of each would become the next message
    #[arg(
        long, env = "KTRACE_OWN_TELEMETRY", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub own_telemetry: bool,
    /// Send spans, and ktrace's own metrics, to this OTLP endpoint; beats
    /// OTEL_EXPORTER_OTLP_ENDPOINT
    #[arg(long, value_name = "URL", env = "KTRACE_OTLP", value_parser = url)]
    pub otlp: Option<String>,
    /// Keep all privileges while running, and allow all system calls, core dumps and debuggers: to
    /// debug ktrace itself
    #[arg(
        long, env = "KTRACE_NO_HARDEN", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub no_harden: bool,
    /// Read options from this TOML file; flags and environment beat it
    #[arg(long, value_name = "FILE", env = "KTRACE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// The options of a live capture: `run` and `observe`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Capture")]
pub struct Live {
    /// Only processes under this cgroup v2 directory, also after it was removed and made again
    /// [default: all]
    #[arg(long, value_name = "PATH", env = "KTRACE_CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// Only connections of this process, until it ends
    #[arg(long, value_name = "PID", env = "KTRACE_PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Only connections in this network namespace: its path, its name in /run/netns, or the number
    /// of a process in it
    #[arg(long, value_name = "NETNS", env = "KTRACE_NETNS")]
    pub netns: Option<String>,
    /// At which end of connections messages are shown: those of clients on this host, those of all
    /// clients of brokers on this host, or both
    #[arg(long, value_name = "SIDE", env = "KTRACE_SIDE", value_enum, default_value = "client")]
    pub side: Sides,
    /// Addresses of clients that have an agent of their own: left out at the broker's end.
    /// Repeatable, or separated by commas
    #[arg(long, value_name = "CIDR", env = "KTRACE_AGENTS", value_delimiter = ',', value_parser = network)]
    pub agents: Vec<IpNet>,
    /// Rings between kernel and agent, each read by a thread of its own: 1 to 32, a power of two
    /// [default: one for four cores]
    #[arg(long, value_name = "NUMBER", env = "KTRACE_RINGS", value_parser = rings)]
    pub rings: Option<usize>,
    /// Memory of all rings together, in bytes or with K, M or G [default: 16M for each, less where
    /// memory is limited]
    #[arg(long, value_name = "SIZE", env = "KTRACE_RING_SIZE", value_parser = bytes)]
    pub ring_size: Option<usize>,
    /// Memory that the agent may take, its rings and queues included, with K, M or G [default:
    /// somewhat less than its cgroup may have, and what is held is bounded by 512M]
    #[arg(long, value_name = "SIZE", env = "KTRACE_MEMORY_LIMIT", value_parser = bytes)]
    pub memory_limit: Option<usize>,
    /// CPU time that the agent may take, as a share of one core: 0.2 or 20%. Over the limit whole
    /// traces are skipped [default: no limit]
    #[arg(long, value_name = "SHARE", env = "KTRACE_CPU_LIMIT", value_parser = share)]
    pub cpu_limit: Option<f64>,
    /// Name a service NAME that would be named KEY (or whose executable, its path or container id
    /// is KEY). Repeatable
    #[arg(
        long, value_name = "KEY=NAME", env = "KTRACE_SERVICE_NAME", value_delimiter = ',',
        value_parser = pair
    )]
    pub service_name: Vec<(String, String)>,
    #[command(flatten)]
    pub tls: Tls,
}

/// The options of printing: `observe` and `replay`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct Printed {
    /// How messages are printed. In text, ~ before a trace id marks one that was derived because
    /// the message carries none
    #[arg(short, long, value_name = "FORMAT", env = "KTRACE_OUTPUT", value_enum, default_value = "text")]
    pub output: Output,
    /// Show traces as trees, each when nothing of it has passed for some seconds; text only
    #[arg(
        long, env = "KTRACE_TREE", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub tree: bool,
}

/// The option of the summary.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct SummaryArgs {
    /// Write what was seen and lost to this file at the end, as one JSON object. Links that others
    /// may have put there are not followed
    #[arg(long, value_name = "FILE", env = "KTRACE_SUMMARY")]
    pub summary: Option<PathBuf>,
}

impl Pipeline {
    /// Has threads give up the privileges that they do not need, unless the user wants to keep
    /// them. Called before any is started.
    pub fn harden(&self) {
        if !self.no_harden {
            privilege::harden();
        }
    }

    /// # Errors
    /// [`Failure::Usage`] for a pattern that does not read, and a time that is too short.
    pub fn selection(&self) -> Result<Selection, Failure> {
        if self.uncommitted.is_some_and(|patience| patience < Duration::from_millis(1)) {
            return Err(Failure::Usage {
                what: "--uncommitted is too short".to_owned(),
                advice: "give 1ms or more; groups commit every few seconds, so 60s is a good start"
                    .to_owned(),
            });
        }
        let wanted = FilterOptions {
            topic: &self.topic,
            group: &self.group,
            service: &self.service,
            key: &self.key,
            trace: &self.trace,
            errors: self.errors,
            slower_than: self.slower_than,
            keys: self.keys,
        };
        let filter = Filter::new(&wanted).map_err(|error| Failure::Usage {
            what: error.to_string(),
            advice: "patterns know *, ? and [abc]".to_owned(),
        })?;
        // Messages bear keys only where one of these asks for them, see [`Self::worker`].
        let bears_hidden_keys = self.follow_key.is_some() && !self.keys;
        let asks_for_all = wanted.asks_for_all() && !bears_hidden_keys;
        Ok(Selection {
            follow: self.follow_key.as_deref().map(|key| Arc::new(Follow::new(key))),
            filter: (!asks_for_all).then(|| Arc::new(filter)),
            uncommitted: self.uncommitted.map(|patience| Arc::new(Uncommitted::new(patience))),
        })
    }

    #[must_use]
    pub fn worker(&self) -> WorkerOptions {
        let sampling = Sampling::new(self.sample);
        let recognised = self.ports.is_auto();
        let keys = self.keys || !self.key.is_empty() || self.follow_key.is_some();
        WorkerOptions {
            context: self.context.clone(),
            sampling,
            exceptions: Exceptions {
                parents: self.sample_parent,
                slow_ns: self.sample_slow.map(|least| least.as_nanos().try_into().unwrap_or(u64::MAX)),
            },
            recognised,
            keys,
            infer: !self.no_infer,
            own_telemetry: self.own_telemetry,
            old_is_late: self.old_is_late,
            ..WorkerOptions::default()
        }
    }

    /// The state that the workers of a run share, with its limit of spans.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        let shared = Shared::default();
        if let Some(spans) = self.max_spans {
            shared.show_at_most(spans);
        }
        Arc::new(shared)
    }

    /// Where spans and metrics go. Prints which variables of OpenTelemetry's environment are not
    /// honoured, so it is called once, and only if something is exported.
    #[must_use]
    pub fn export(&self) -> OtlpOptions {
        let environment = Environment::of_process();
        for remark in environment.remarks() {
            eprintln!("ktrace: {remark}");
        }
        OtlpOptions { url: self.otlp.clone(), environment }
    }
}

/// A limit of the agent's memory.
#[derive(Clone, Debug)]
pub struct Memory {
    pub bytes: usize,
    /// The cgroup's limit that it comes from; `None` for `--memory-limit`.
    of_cgroup: Option<OwnLimit>,
}

impl Memory {
    /// Whether growth between two looks is a large part of it.
    fn is_small(&self) -> bool {
        self.bytes < 200 << 20
    }

    fn is_too_small(&self, least: usize) -> Failure {
        match &self.of_cgroup {
            None => Failure::Usage {
                what: format!("--memory-limit is too small: {} MiB are needed", mebibytes(least)),
                advice: "give more, or fewer --rings, or make --ring-size smaller".to_owned(),
            },
            Some(own) => Failure::Usage {
                what: format!(
                    "{} limits memory to {} MiB: {} MiB are needed",
                    own.file.display(),
                    own.bytes >> 20,
                    enough_of_cgroup(least)
                ),
                advice: "raise the limit of the container or unit, or give fewer --rings, or make \
                         --ring-size smaller"
                    .to_owned(),
            },
        }
    }
}

/// The part of the kernel's limit that is left free: a tenth, and of a small limit a seventh. The
/// kernel charges the states of sockets to the agent; they cannot be bounded (60 000 take 14 MB),
/// and are a larger part of a small limit.
fn left_free(of_cgroup: usize) -> usize {
    const MOST_OF_SMALL: usize = 9 << 20;
    (of_cgroup / 10).max((of_cgroup / 7).min(MOST_OF_SMALL))
}

/// The kernel's limit, in mebibytes, that leaves `bytes`.
fn enough_of_cgroup(bytes: usize) -> usize {
    let is_enough = |mebibytes: &usize| {
        let limit = mebibytes.saturating_mul(1 << 20);
        limit.saturating_sub(left_free(limit)) >= bytes
    };
    (mebibytes(bytes)..=usize::MAX >> 20).find(is_enough).unwrap_or(usize::MAX >> 20)
}

fn mebibytes(bytes: usize) -> usize {
    bytes.div_ceil(1 << 20)
}

/// A limit that is enough, found upwards from `least`: the part that is set aside grows with the
/// limit.
fn enough<T>(memory: &Memory, least: usize, fits: impl Fn(&Memory) -> Result<T, usize>) -> usize {
    /// Each step covers most of what the one before it has added.
    const STEPS: usize = 64;
    let mut bytes = least;
    for _ in 0..STEPS {
        match fits(&Memory { bytes, ..memory.clone() }) {
            Ok(_) => break,
            Err(more) => bytes = more.max(bytes.saturating_add(1 << 20)),
        }
    }
    bytes
}

/// The connections that the capture remembers take this part of the limit.
const CONNECTIONS_PART: usize = 16;

/// Bytes of all rings together: a quarter of the limit, or an eighth of a small one, rounded down
/// to a power of two for each.
fn fitting(memory: &Memory, rings: usize) -> usize {
    // Rings are mapped twice, so the process's resident set, which the user looks at, has them
    // twice; the kernel counts them once.
    let times = if memory.of_cgroup.is_none() { 2 } else { 1 };
    let part = if memory.is_small() { 8 } else { 4 };
    let each = (memory.bytes / part / times / rings).max(LEAST_RING_BYTES);
    rings.saturating_mul(1 << each.ilog2())
}

/// The resources that a run takes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rings: usize,
    /// Of all rings together.
    pub ring_bytes: usize,
    /// Connections that the capture remembers at a time.
    pub connections: usize,
    pub limits: Limits,
}

impl Live {
    /// How much memory the agent may take: `--memory-limit`, or somewhat less than its cgroup may
    /// have ([`left_free`]).
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let own = own_limit();
        let Some(limit) = self.memory_limit else {
            return own.map(|own| Memory { bytes: own.bytes - left_free(own.bytes), of_cgroup: Some(own) });
        };
        if let Some(own) = own.filter(|own| own.bytes < limit) {
            let (given, bytes) = (mebibytes(limit), mebibytes(own.bytes));
            let file = own.file.display();
            eprintln!(
                "ktrace: --memory-limit is {given} MiB, but {file} says {bytes} MiB: the kernel may kill ktrace \
                 before its limit"
            );
        }
        Some(Memory { bytes: limit, of_cgroup: None })
    }

    /// Plans rings that fit into a limit of memory, and the agent's own limits. Sets how much the
    /// workers may hold in `shared`, and the queues in `sinks`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a memory limit that is too small, and rings that cannot be.
    pub fn plan(&self, memory: Option<&Memory>, shared: &Shared, sinks: &Sinks) -> Result<Plan, Failure> {
        let rings = self.rings();
        shared.is_shared_by(rings);
        let usual = rings.saturating_mul(RING_BYTES);
        let Some(memory) = memory else {
            let limits = Limits { cpu: self.cpu_limit, memory: None };
            let ring_bytes = self.ring_bytes()?.unwrap_or(usual);
            return Ok(Plan { rings, ring_bytes, connections: rings.saturating_mul(CAPACITY), limits });
        };
        let limit = memory.bytes;
        let asked = self.ring_bytes()?;
        let ring_bytes = |memory: &Memory| asked.unwrap_or_else(|| usual.min(fitting(memory, rings)));
        let connections = |limit: usize| {
            // Of a very small limit, the workers have no room for more.
            let part = if limit < 64 << 20 { 2 * CONNECTIONS_PART } else { CONNECTIONS_PART };
            (limit / part / KNOWN_BYTES).min(rings.saturating_mul(CAPACITY))
        };
        // What is left for the workers, and what the rings take of the resident set beyond what
        // they take of the limit.
        let fits = |memory: &Memory| {
            let kernel_bytes = Source::ring_bytes(rings, ring_bytes(memory));
            // For another limit than the current one: queues are as short already as the current
            // one makes them.
            let others = if memory.bytes == limit { 0 } else { queued_at_most(memory.bytes) };
            let fixed = Fixed {
                rings,
                ring_bytes: kernel_bytes,
                connections_bytes: connections(memory.bytes).saturating_mul(KNOWN_BYTES),
                queued: sinks.hold_at_most(queued_at_most(memory.bytes)).max(others),
                sinks_bytes: sinks.bytes(),
            };
            if memory.of_cgroup.is_some() {
                return budget(memory.bytes, &fixed).map(|bytes| (bytes, 0));
            }
            // Rings count twice, as in the resident set, if that leaves enough.
            let twice = Fixed { ring_bytes: kernel_bytes.saturating_mul(2), ..fixed };
            budget(memory.bytes, &twice)
                .map(|bytes| (bytes, 0))
                .or_else(|_| budget(memory.bytes, &fixed).map(|bytes| (bytes, kernel_bytes)))
        };
        let (bytes, beyond) =
            fits(memory).map_err(|least| memory.is_too_small(enough(memory, least, fits)))?;
        let (ring_bytes, connections) = (ring_bytes(memory), connections(limit));
        shared.may_hold(bytes.min(if memory.of_cgroup.is_some() { Shared::USUAL_BYTES } else { usize::MAX }));
        if self.ring_size.is_none() && ring_bytes < usual {
            let (each, limit) = (ring_bytes / rings / 1024, mebibytes(limit));
            eprintln!(
                "ktrace: rings of {each} KiB each, not {} MiB, as memory is limited to {limit} MiB; --ring-size \
                 changes that",
                RING_BYTES >> 20
            );
        }
        let usage = match &memory.of_cgroup {
            Some(own) if !own.is_shared() => Usage::OfCgroup(own.dir.clone()),
            Some(_) | None => Usage::Resident,
        };
        // Sockets' states in the kernel may grow by some megabytes between two looks.
        let growth = if memory.is_small() { limit / 10 } else { limit / 16 };
        let limits = Limits { cpu: self.cpu_limit, memory: Some((usage, limit - growth + beyond)) };
        Ok(Plan { rings, ring_bytes, connections, limits })
    }

    /// The number of rings: `--rings`, or one for four cores, and 8 at most.
    #[must_use]
    pub fn rings(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.rings.unwrap_or_else(|| cores.div_ceil(4).next_power_of_two().min(8))
    }

    /// `--ring-size`, rounded as the kernel has it: each ring is a number of pages that is a power
    /// of two.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a size that rings cannot have.
    fn ring_bytes(&self) -> Result<Option<usize>, Failure> {
        let rings = self.rings();
        let Some(asked) = self.ring_size else { return Ok(None) };
        let [least, most] = ring_bounds().map(|bytes| bytes.saturating_mul(rings));
        if !(least..=most).contains(&asked) {
            return Err(Failure::Usage {
                what: format!(
                    "--ring-size is {asked} bytes: {rings} rings may have {least} to {most} together"
                ),
                advice: "give another size, or another number of --rings".to_owned(),
            });
        }
        Ok(Some(ring_size_of(asked / rings).saturating_mul(rings)))
    }

    #[must_use]
    pub fn worker(&self, pipeline: &Pipeline, tls: &TlsOptions) -> WorkerOptions {
        let (agents, tls) = (self.agents.clone(), tls.clone());
        WorkerOptions { sides: self.side, agents, tls, ..pipeline.worker() }
    }
}

impl Printed {
    /// The sink that prints. `memory_limit` is the agent's.
    ///
    /// # Errors
    /// [`Failure::Usage`] where a tree is wanted in another format than text.
    pub fn sink(
        &self,
        when_full: WhenFull,
        stop: &Arc<AtomicBool>,
        memory_limit: Option<usize>,
    ) -> Result<Sink, Failure> {
        let stop = Arc::clone(stop);
        if !self.tree {
            return Ok(print(self.output, when_full, stop)?);
        }
        if self.output != Output::Text {
            return Err(Failure::Usage {
                what: "--tree shows text, and no other output".to_owned(),
                advice: "leave out --tree, or --output (KTRACE_OUTPUT)".to_owned(),
            });
        }
        Ok(tree(when_full, stop, memory_limit)?)
    }
}

impl SummaryArgs {
    /// Opens the summary's file, so that a wrong path is an error before the run.
    ///
    /// # Errors
    /// [`Failure::Failed`] where it cannot be written.
    pub fn open(&self) -> Result<SummaryFile, Failure> {
        SummaryFile::open(self.summary.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_be_enough_is_and_less_is_not() {
        for least in (1..600).map(|mebibytes| (mebibytes << 20) - 12_345) {
            let left = |mebibytes: usize| (mebibytes << 20) - left_free(mebibytes << 20);
            let enough = enough_of_cgroup(least);
            assert!(left(enough) >= least && left(enough - 1) < least, "{least}: {enough}");
        }
    }
}
