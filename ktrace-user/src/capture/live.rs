//! The kernel as a source: programs attached, the ring read, owners found.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use aya::maps::MapError;
use aya::programs::ProgramError;
use ktrace_common::{MAX_RINGS, ends as watched};

use super::attachment::{Attachment, Refusal};
use super::bpf_call;
use super::calls::{Calls, Held};
use super::cgroup;
use super::connections::CAPACITY;
use super::hierarchy::Conflict;
use super::netns::{Netns, NetnsError};
use super::owners::Owners;
use super::page::page_size;
use super::programs::{Maps, Programs, Settings};
use super::reader::{Reader, Shared, Wanted};
use super::resolver::Resolver;
use super::ring::{LARGEST, ring_size, wake_shift};
use super::{CounterReader, Counters, PortSet, Refusals, TakenPorts, privilege};
use crate::keys::uprobes::{Probes, Store, Watch};
use crate::process::{ServiceNames, Table};
use crate::sched;
use crate::seen::Event;

/// Of a ring, unless the user says otherwise: a host that sends as fast as it can fills it in some
/// milliseconds, by when its reader was woken several times. It counts twice in the agent's
/// resident set, as it is mapped twice so that no record is torn at its end.
pub const RING_BYTES: usize = 16 << 20;

/// What to watch.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    pub ports: PortSet,
    /// Only processes below this cgroup v2 directory; `None` for the whole host.
    pub cgroup: Option<PathBuf>,
    /// Only connections of this process, by its number in the initial pid namespace.
    pub pid: Option<u32>,
    /// Only connections in this network namespace: a path to it, a name below /run/netns, or the
    /// number of a process in it.
    pub netns: Option<String>,
    /// Ring buffers, each read by a thread of its own; rounded up to a power of two, at most
    /// [`MAX_RINGS`].
    pub rings: usize,
    /// Bytes of all ring buffers together; each is rounded up to a power of two and whole pages,
    /// and has at most 1 GiB.
    pub ring_bytes: usize,
    /// Connections that are remembered at a time, of all rings together.
    pub connections: usize,
    /// Clients' ends of connections (their remote port is a Kafka port).
    pub client_end: bool,
    /// Brokers' ends of connections (their local port is a Kafka port). With both, a connection
    /// within the host is seen twice.
    pub broker_end: bool,
    /// The user's names for services.
    pub services: ServiceNames,
    /// TLS connections may be opened, those to these ports among them: the reader is woken for
    /// their first records, and with `auto` they are copied from their beginning.
    pub tls: Option<PortSet>,
    /// Processes below these cgroups are marked: [`Process::is_in_tls_cgroup`](crate::seen::Process).
    pub tls_cgroups: Vec<PathBuf>,
    /// Libraries are probed for secrets of TLS connections, which are put here
    /// ([`uprobes`](crate::keys::uprobes)).
    pub secrets: Option<Arc<Store>>,
    /// Puts a line before the user, from any thread: what is not captured, or no longer.
    pub say: fn(&str),
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            ports: PortSet::default(),
            cgroup: None,
            pid: None,
            netns: None,
            rings: 1,
            ring_bytes: RING_BYTES,
            connections: CAPACITY,
            client_end: true,
            broker_end: false,
            services: ServiceNames::default(),
            tls: None,
            tls_cgroups: Vec::new(),
            secrets: None,
            say: |line| eprintln!("ktrace: {line}"),
        }
    }
}

/// Why nothing can be captured from this kernel. [`CaptureError::advice`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("this ktrace was built without eBPF")]
    NotBuilt,
    #[error("bpf(2) cannot be called: a seccomp filter kills who calls it")]
    Killed,
    #[error("no cgroup v2 directory to attach to: {0}")]
    Cgroup(#[source] Box<dyn Error + Send + Sync>),
    #[error("--cgroup: {0}")]
    NoSuchCgroup(#[source] Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot load the eBPF object: {}", with_causes(.0))]
    Object(#[source] Box<aya::EbpfError>),
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    #[error("map {name}: {}", with_causes(.source))]
    Map { name: &'static str, source: Box<MapError> },
    #[error("program {name}: {}", refusal(.source))]
    Program { name: &'static str, source: Box<ProgramError> },
    #[error("program {name} cannot be attached beside another tool's: {}", .why.0)]
    Occupied { name: &'static str, why: Occupied },
    #[error("cannot wait for the ring buffer: {0}")]
    Wait(#[source] io::Error),
}

/// Another tool's program that ours would disturb, or that lets no other be attached.
#[derive(Debug)]
pub struct Occupied(Box<Conflict>);

impl CaptureError {
    pub(super) fn refused(name: &'static str, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict(conflict) => Self::Occupied { name, why: Occupied(Box::new(conflict)) },
            Refusal::Program(source) => Self::Program { name, source: Box::new(source) },
            // The first refusal was an error by itself already.
            Refusal::NotLoaded(_) => Self::Program { name, source: Box::new(ProgramError::NotLoaded) },
        }
    }

    /// Whether what the user has named is at fault, and not what this host allows.
    #[must_use]
    pub fn is_of_what_was_named(&self) -> bool {
        match self {
            Self::NoSuchCgroup(_) => true,
            Self::Netns(error) => error.is_missing(),
            _ => false,
        }
    }

    /// The number of the kernel's error that is at the bottom of it.
    pub(super) fn errno(&self) -> Option<i32> {
        let mut error: Option<&dyn Error> = Some(self);
        let mut errno = None;
        while let Some(of) = error {
            errno = of.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(errno);
            error = of.source();
        }
        errno
    }

    pub(super) fn map(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> Cow<'static, str> {
        let advice = match self {
            Self::Occupied { why, .. } => return why.0.advice().into(),
            Self::NotBuilt => {
                "install bpf-linker and build again without AYA_BUILD_SKIP; `ktrace replay` works without \
                eBPF"
            }
            Self::Cgroup(_) => {
                "mount the tree (mount -t cgroup2 none /sys/fs/cgroup/unified), or name a directory in it \
                with --cgroup"
            }
            Self::Killed => bpf_call::ALLOW,
            Self::NoSuchCgroup(_) => {
                "name a directory of the cgroup v2 tree, as `findmnt -t cgroup2` and `systemd-cgls` show it"
            }
            Self::Netns(_) => {
                "name it as `ip netns list` does, or by its path or the number of a process in it; takes \
                CAP_SYS_ADMIN and Linux 5.14"
            }
            Self::Object(_) | Self::Map { .. } | Self::Program { .. } => {
                "run as root or with CAP_BPF and CAP_NET_ADMIN, on Linux 5.8 or newer; `ktrace doctor` \
                tells what is missing"
            }
            Self::NoMap(_) | Self::Wait(_) => "this is a defect of ktrace: please report it",
        };
        advice.into()
    }
}

/// A running capture. The programs stay attached as long as this lives and [`Live::run`] has not
/// returned; when the process dies, by whatever means, the kernel removes them.
pub struct Live {
    attachment: Attachment,
    readers: Vec<Reader>,
    calls: Calls,
    owners: Owners,
    resolver: Resolver,
    /// A key is gone with its connection, so its records are read at once.
    reads_tls: bool,
    /// `None` where it is not asked for, or not possible.
    secrets: Option<Watch>,
}

impl Live {
    /// Loads the programs and attaches them; from here on the kernel fills the rings.
    pub fn open(options: LiveOptions) -> Result<Self, CaptureError> {
        let rings = options.rings.clamp(1, MAX_RINGS).next_power_of_two();
        let readers_of = rings;
        let ring_bytes = ring_size(options.ring_bytes / rings, page_size());
        let netns = options.netns.as_deref().map(Netns::open).transpose()?;
        let named = options.cgroup;
        let cgroup = cgroup::open(named.as_deref()).map_err(|source| match &named {
            Some(_) => CaptureError::NoSuchCgroup(Box::new(source)),
            None => CaptureError::Cgroup(Box::new(source)),
        })?;
        // Better than to be killed without a word.
        if privilege::is_filtered() && bpf_call::call() == bpf_call::Call::Killed {
            return Err(CaptureError::Killed);
        }
        let mut programs = Programs::new(&Settings {
            ports: &options.ports,
            tls: options.tls.as_ref(),
            rings: u32::try_from(rings).unwrap_or(1),
            ring_bytes,
            wake_shift: wake_shift(ring_bytes),
            ends: if options.client_end { watched::CLIENT } else { 0 }
                | if options.broker_end { watched::BROKER } else { 0 },
            pid: options.pid.unwrap_or(0),
            netns_cookie: netns.as_ref().map_or(0, |netns| netns.cookie),
            secrets: options.secrets.is_some(),
        })?;
        if named.is_none() && !cgroup.whole_host {
            (options.say)(
                "only this container's part of the cgroup tree is in sight: other processes are not seen",
            );
        }
        let reads_tls = options.tls.is_some();
        let Maps { rings, owners, counters, tracked, refused, refusals, ports } = programs.maps()?;
        let table = Table::new(options.services).with_tls_cgroups(options.tls_cgroups);
        let processes = Arc::new(Mutex::new(table));
        let (owners, owned) =
            Owners::start(owners, rings.len(), Arc::clone(&processes)).map_err(CaptureError::Wait)?;
        let scrubber = programs.scrubber().map_err(|error| {
            let error = refusal(&error);
            tracing::warn!(error, "what was read of a ring stays in memory until more comes");
        });
        let probes = options.secrets.is_some().then(|| {
            let (by_link, by_event) = programs.uprobes().map_err(|error| refusal(&error))?;
            Probes::new(by_link, by_event, options.say).map_err(|error| error.to_string())
        });
        let secrets = match (probes, options.secrets) {
            (Some(Ok(probes)), Some(store)) => {
                let scrubber = scrubber.as_ref().ok().and_then(|scrubber| scrubber.try_clone().ok());
                let watch = Watch::start((programs.secrets()?, store), probes, scrubber);
                Some(watch.map_err(CaptureError::Wait)?)
            }
            (Some(Err(why)), _) => {
                (options.say)(&format!(
                    "libraries cannot be probed for secrets of TLS ({why}): needs CAP_PERFMON, before \
                    Linux 6.6 CAP_SYS_ADMIN too, and a kernel with uprobes"
                ));
                None
            }
            _ => None,
        };
        let attachment = Attachment::start(programs, cgroup, named, options.say)?;
        let accepts = options.broker_end && reads_tls;
        let resolver = Resolver::start(options.ports, options.connections, accepts, Arc::clone(&processes))
            .map_err(CaptureError::Wait)?;
        let held = Held { counters, tracked, refused, refusals, ports, scrubber: scrubber.ok() };
        let calls = Calls::start(held).map_err(CaptureError::Wait)?;
        let wanted = Wanted { pid: options.pid, netns: netns.map(|netns| netns.inode) };
        let shared = Shared { resolver: resolver.clone(), calls: calls.clone(), wanted };
        let connections = options.connections / readers_of;
        let readers: io::Result<Vec<Reader>> = (0..)
            .zip(rings)
            .zip(owned)
            .map(|((number, ring), owned)| Reader::new(number, ring, owned, shared.clone(), connections))
            .collect();
        let readers = readers.map_err(CaptureError::Wait)?;
        Ok(Self { attachment, readers, calls, owners, resolver, secrets, reads_tls })
    }

    /// What the kernel side has counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.calls.count()
    }

    /// Secrets of TLS connections that were seen derived; `None` where they are not asked for, or
    /// nothing can be probed.
    #[must_use]
    pub fn secrets(&self) -> Option<&Watch> {
        self.secrets.as_ref()
    }

    /// Reads the counters from elsewhere, while [`Live::run`] is busy.
    #[must_use]
    pub fn counter_reader(&self) -> CounterReader {
        CounterReader::new(self.calls.clone())
    }

    /// Refuses connections from elsewhere.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        Refusals::new(self.calls.clone())
    }

    /// Adds ports on which TLS is taken, from elsewhere.
    #[must_use]
    pub fn taken_ports(&self) -> TakenPorts {
        TakenPorts::new(self.calls.clone())
    }

    /// Bytes that this number of rings, of these bytes together, really have.
    #[must_use]
    pub fn ring_bytes(rings: usize, bytes: usize) -> usize {
        let each = ring_size(bytes / rings.max(1), page_size());
        rings.saturating_mul(usize::try_from(each).unwrap_or(usize::MAX))
    }

    /// How many rings there are.
    #[must_use]
    pub fn rings(&self) -> usize {
        self.readers.len()
    }

    /// Reads the only ring in this thread until `stop` is set, and hands every event to `sink`;
    /// then detaches, hands on what is left in the ring, and gives the final counts. Notices `stop`
    /// within 100 ms.
    ///
    /// # Panics
    /// Where there are several rings.
    pub fn run(&mut self, stop: &AtomicBool, sink: impl FnMut(Event<'_>)) -> Result<Counters, CaptureError> {
        let mut sink = sink;
        let [reader] = &mut self.readers[..] else { panic!("several rings need as many sinks") };
        let seen = reader.watch(stop, &mut sink);
        self.attachment.detach();
        self.owners.finish();
        if let Some(secrets) = &mut self.secrets {
            secrets.finish();
        }
        reader.rest(&mut sink);
        self.resolver.finish();
        seen.map_err(CaptureError::Wait)?;
        Ok(self.counters())
    }

    /// The same with any number of rings: each is read by a thread of its own, and has a sink of
    /// its own, in the rings' order. All events of a connection come to the same sink.
    pub fn run_each<S: FnMut(Event<'_>) + Send>(
        &mut self,
        stop: &AtomicBool,
        sinks: Vec<S>,
    ) -> Result<Counters, CaptureError> {
        debug_assert_eq!(sinks.len(), self.readers.len());
        let Self { attachment, readers, owners, secrets, reads_tls, .. } = self;
        let reads_tls = *reads_tls;
        let (watched, detached) = (Barrier::new(readers.len() + 1), Barrier::new(readers.len() + 1));
        let seen: io::Result<()> = thread::scope(|scope| {
            let threads: Vec<_> = readers
                .iter_mut()
                .zip(sinks)
                .map(|(reader, mut sink)| {
                    let (watched, detached) = (&watched, &detached);
                    scope.spawn(move || {
                        if reads_tls {
                            sched::be_prompt(0);
                        }
                        // Nothing is used of a reader or a sink that has panicked.
                        let seen = catch_unwind(AssertUnwindSafe(|| reader.watch(stop, &mut sink)));
                        // One that fails ends all: its connections would be missing.
                        stop.store(true, Ordering::Relaxed);
                        watched.wait();
                        detached.wait();
                        let seen = seen.unwrap_or_else(|panic| resume_unwind(panic));
                        reader.rest(&mut sink);
                        seen
                    })
                })
                .collect();
            watched.wait();
            attachment.detach();
            owners.finish();
            if let Some(secrets) = secrets {
                secrets.finish();
            }
            detached.wait();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(seen) => seen,
                Err(panic) => resume_unwind(panic),
            })
        });
        self.resolver.finish();
        seen.map_err(CaptureError::Wait)?;
        Ok(self.counters())
    }
}

/// An error with what has caused it, as far as it does not say so itself.
fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said += ": ";
            said += &more;
        }
        cause = error.source();
    }
    said
}

/// Why a program was refused, in one line: of the verifier's log the line that says it.
pub(super) fn refusal(error: &ProgramError) -> String {
    let (io_error, verifier_log) = match error {
        ProgramError::LoadError { io_error, verifier_log } => (io_error, verifier_log),
        ProgramError::SyscallError(error) => return format!("{}: {}", error.call, error.io_error),
        other => return other.to_string(),
    };
    let log = verifier_log.to_string();
    let statistics = ["verification time", "stack depth", "processed ", "mark_precise"];
    let why = log
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
    match why {
        Some(why) => format!("{io_error} ({why})"),
        None => io_error.to_string(),
    }
}

/// The size of a ring that is to have at least these bytes.
#[must_use]
pub fn ring_size_of(bytes: usize) -> usize {
    // An u32 fits.
    ring_size(bytes, page_size()) as usize
}

/// The least and the most bytes that a ring can have.
#[must_use]
pub fn ring_bounds() -> [usize; 2] {
    [page_size(), LARGEST]
}
