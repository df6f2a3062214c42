//! The kernel as a source: programs attached, the ring read, owners found.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, MapError, RingBuf};
use aya::programs::ProgramError;
use aya::programs::links::FdLink;
use ktrace_common::{SegmentHeader, ends as watched, flags};

use super::cgroup;
use super::clock::{Clock, monotonic_ns};
use super::connections::{Connections, direction, ends, side};
use super::existing::Found;
use super::owners::Owners;
use super::programs::{Maps, PROGRAMS, Programs, Settings};
use super::resolver::Resolver;
use super::ring::{Record, decode, ring_size, wake_shift};
use super::sleeper::Sleeper;
use super::{ConnectionId, CounterReader, Counters, Event, PortSet, Segment};
use crate::process::{ServiceNames, Table};

/// How long the agent sleeps while the ring is empty: at first, doubled each time that nothing came, and at most. An idle host is so looked at
/// ten times a second, for less than a thousandth of a CPU; a busy one wakes the agent by amount.
const SHORTEST_SLEEP_MS: i32 = 2;
const LONGEST_SLEEP_MS: i32 = 100;
/// Records read between two looks at the rest (stop, clock, owners).
const BATCH: usize = 4096;
/// Between two measurements of the clocks and clearings of what is over.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long the ring may fill while the sockets of the host are listed at the start.
const FIRST_SEARCH: Duration = Duration::from_millis(500);

/// What to watch.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    pub ports: PortSet,
    /// Only processes below this cgroup v2 directory; `None` for the whole host.
    pub cgroup: Option<PathBuf>,
    /// Bytes of the ring buffer, rounded up to a power of two and whole pages; at most 1 GiB.
    pub ring_bytes: usize,
    /// Clients' ends of connections (their remote port is a Kafka port).
    pub client_end: bool,
    /// Brokers' ends of connections (their local port is a Kafka port). With both, a connection within the host is seen twice.
    pub broker_end: bool,
    /// The user's names for services.
    pub services: ServiceNames,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            ports: PortSet::default(),
            cgroup: None,
            ring_bytes: 64 << 20,
            client_end: true,
            broker_end: false,
            services: ServiceNames::default(),
        }
    }
}

/// Why nothing can be captured from this kernel. [`CaptureError::advice`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("this ktrace was built without eBPF")]
    NotBuilt,
    #[error("no cgroup v2 directory to attach to: {0}")]
    Cgroup(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot load the eBPF object: {0}")]
    Object(#[source] Box<aya::EbpfError>),
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    #[error("map {name}: {source}")]
    Map { name: &'static str, source: Box<MapError> },
    #[error("program {name}: {}", refusal(.source))]
    Program { name: &'static str, source: Box<ProgramError> },
    #[error("cannot wait for the ring buffer: {0}")]
    Wait(#[source] io::Error),
}

impl CaptureError {
    pub(super) fn map(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotBuilt => {
                "install bpf-linker and build again without AYA_BUILD_SKIP; `ktrace replay` works without eBPF"
            }
            Self::Cgroup(_) => {
                "mount the tree (mount -t cgroup2 none /sys/fs/cgroup/unified), or name a directory in it with --cgroup"
            }
            Self::Object(_) | Self::Map { .. } | Self::Program { .. } => {
                "run as root or with CAP_BPF and CAP_NET_ADMIN, on Linux 5.8 or newer; `ktrace doctor` tells what is missing"
            }
            Self::NoMap(_) | Self::Wait(_) => "this is a defect of ktrace: please report it",
        }
    }
}

/// A running capture. The programs stay attached as long as this lives and [`Live::run`] has not returned; when the process dies, by whatever
/// means, the kernel removes them.
pub struct Live {
    links: Vec<FdLink>,
    ring: RingBuf<MapData>,
    tracked: HashMap<MapData, u64, u8>,
    counters: CounterReader,
    owners: Owners,
    state: State,
}

/// What is known while the ring is read.
struct State {
    clock: Clock,
    connections: Connections,
    processes: Arc<Mutex<Table>>,
    resolver: Resolver,
    /// Sockets whose end the kernel side is to tell although it did not see their beginning.
    untracked: Vec<u64>,
}

impl Live {
    /// Loads the programs and attaches them; from here on the kernel fills the ring.
    pub fn open(options: LiveOptions) -> Result<Self, CaptureError> {
        let ring_bytes = ring_size(options.ring_bytes, page_size());
        let mut programs = Programs::new(&Settings {
            ports: &options.ports,
            ring_bytes,
            wake_shift: wake_shift(ring_bytes),
            ends: if options.client_end { watched::CLIENT } else { 0 }
                | if options.broker_end { watched::BROKER } else { 0 },
        })?;
        let cgroup = cgroup::open(options.cgroup.as_deref())
            .map_err(|source| CaptureError::Cgroup(Box::new(source)))?;
        if options.cgroup.is_none() && !cgroup.whole_host {
            tracing::warn!(
                "only this container's part of the cgroup tree is in sight: other processes are not seen"
            );
        }
        let Maps { ring, owners, counters, tracked } = programs.maps()?;
        let processes = Arc::new(Mutex::new(Table::new(options.services)));
        let owners = Owners::start(owners, Arc::clone(&processes)).map_err(CaptureError::Wait)?;
        let mut links = Vec::with_capacity(PROGRAMS.len());
        // Owners first, so that no segment comes before its owner.
        for (name, needed) in PROGRAMS.into_iter().rev() {
            match programs.attach(name, &cgroup) {
                Ok(link) => links.push(link),
                Err(source) if needed => {
                    return Err(CaptureError::Program { name, source: Box::new(source) });
                }
                Err(error) => {
                    let error = refusal(&error);
                    tracing::warn!(name, error, "a program is missing; capture goes on without it");
                }
            }
        }
        Ok(Self {
            links,
            ring,
            tracked,
            counters: CounterReader::new(counters),
            owners,
            state: State {
                clock: Clock::measure(),
                connections: Connections::default(),
                processes,
                resolver: Resolver::new(options.ports),
                untracked: Vec::new(),
            },
        })
    }

    /// What the kernel side has counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.read()
    }

    /// Reads the counters from elsewhere, while [`Live::run`] is busy.
    #[must_use]
    pub fn counter_reader(&self) -> CounterReader {
        self.counters.clone()
    }

    /// Reads the ring in this thread until `stop` is set, and hands every event to `sink`; then detaches, hands on what is left in the ring, and
    /// gives the final counts. Notices `stop` within 100 ms.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        mut sink: impl FnMut(Event<'_>),
    ) -> Result<Counters, CaptureError> {
        let sleeper = Sleeper::new(&self.ring).map_err(CaptureError::Wait)?;
        let found = self.state.resolver.search(FIRST_SEARCH);
        self.state.found(found, &mut sink);
        let mut sleep_ms = SHORTEST_SLEEP_MS;
        let mut upkeep = Instant::now();

        while !stop.load(Ordering::Relaxed) {
            let full_batch = self.drain(BATCH, &mut sink);
            sink(Event::Tick { time_ns: self.state.clock.wall_ns(monotonic_ns()) });
            let now = Instant::now();
            let found = self.state.resolver.turn(now, |cookie| self.state.connections.lacks_owner(cookie));
            self.state.found(found, &mut sink);
            if now.saturating_duration_since(upkeep) >= UPKEEP {
                upkeep = now;
                self.state.clock = Clock::measure();
                self.state.connections.expire(monotonic_ns());
            }
            match full_batch {
                BATCH => {}
                0 => {
                    sleeper.sleep(Some(sleep_ms)).map_err(CaptureError::Wait)?;
                    sleep_ms = (sleep_ms * 2).min(LONGEST_SLEEP_MS);
                }
                _ => {
                    sleep_ms = SHORTEST_SLEEP_MS;
                    sleeper.sleep(Some(sleep_ms)).map_err(CaptureError::Wait)?;
                }
            }
        }
        self.links.clear();
        self.owners.finish();
        while self.drain(BATCH, &mut sink) > 0 {}
        Ok(self.counters())
    }

    /// Hands on at most `limit` records of the ring, and says how many there were.
    fn drain(&mut self, limit: usize, sink: &mut impl FnMut(Event<'_>)) -> usize {
        for owned in self.owners.take() {
            if let Some(event) = self.state.connections.connecting(owned.cookie, owned.process, owned.time_ns)
            {
                sink(event);
            }
        }
        let mut count = 0;
        while count < limit
            && let Some(record) = self.ring.next()
        {
            self.state.record(&record, sink);
            count += 1;
        }
        for cookie in self.state.untracked.drain(..) {
            // A failure only means that the socket's end is not told.
            let _ = self.tracked.insert(&cookie, &1, 0);
        }
        count
    }
}

impl State {
    fn record(&mut self, record: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        match decode(record) {
            Some(Record::Segment(header, payload)) => {
                if let Some(opened) = self.connections.passes(&header) {
                    if self.connections.lacks_owner(header.cookie) {
                        self.untracked.push(header.cookie);
                        self.resolver.ask(header.cookie);
                    }
                    sink(opened);
                }
                sink(Event::Segment(self.segment(&header, payload)));
            }
            Some(Record::Closed(closed)) => {
                if let Some(event) = self.connections.closed(closed.cookie, closed.time_ns) {
                    sink(event);
                }
            }
            Some(Record::Owner(_)) | None => {
                tracing::error!("the ring holds a record of a kind that the programs do not write")
            }
        }
    }

    fn segment<'a>(&self, header: &SegmentHeader, payload: &'a [u8]) -> Segment<'a> {
        let is = |bit: u8| header.flags & bit != 0;
        Segment {
            connection: ConnectionId(header.cookie),
            ends: ends(header),
            side: side(header),
            direction: direction(header),
            seq: header.seq,
            ack: is(flags::ACK).then_some(header.ack),
            syn: is(flags::SYN),
            fin: is(flags::FIN),
            rst: is(flags::RST),
            time_ns: self.clock.wall_ns(header.time_ns),
            payload,
            len: header.len,
        }
    }

    /// Gives sockets whose owner is not known the one that was found.
    fn found(&mut self, found: Vec<Found>, sink: &mut impl FnMut(Event<'_>)) {
        let now_ns = monotonic_ns();
        for socket in found {
            if !self.connections.lacks_owner(socket.cookie) {
                continue;
            }
            self.untracked.push(socket.cookie);
            if let Some(pid) = socket.pid {
                let process = self.processes.lock().unwrap_or_else(PoisonError::into_inner).get(pid, "");
                if let Some(opened) = self.connections.owned(socket.cookie, process, now_ns) {
                    sink(opened);
                }
            }
        }
    }
}

/// Why a program was refused, in one line: of the verifier's log the line that says it.
pub(super) fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
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

/// Bytes of a memory page.
pub(super) fn page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
