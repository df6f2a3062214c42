//! Looks for the owners of sockets in a thread of its own, so that the rings are read meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::PortSet;
use super::accepting::Accepting;
use super::existing::{self, Holder, Holders};
use super::netlink::Socket;
use crate::privilege;
use crate::process::{Table, is_alive};
use crate::seen::Process;

/// Between two searches that were asked for: going through /proc has its price, and a socket whose
/// owner was not found stays without. So many times as long as the one before took, which is 5 % of
/// a core, within these bounds.
const PAUSE_TIMES: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A socket that a search has found.
#[derive(Clone)]
pub(super) struct Found {
    /// The inode of its network namespace.
    pub(super) netns: u64,
    pub(super) pid: Option<u32>,
    /// Read by the search, as it takes a privilege to read it. `None` as for `pid`.
    pub(super) process: Option<Arc<Process>>,
}

/// What the searches have found, shared by all that read rings.
#[derive(Clone)]
pub(super) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None`: of all sockets.
    ports: Option<PortSet>,
    /// Sockets that are remembered.
    most: usize,
    /// Whether it is to be known who accepts connections.
    accepts: bool,
    processes: Arc<Mutex<Table>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By cookie, as the last search has found them.
    found: HashMap<u64, Found>,
    accepting: Accepting,
    searches: u64,
    /// A connection lacks its owner since.
    asked: Option<Instant>,
    stop: bool,
}

impl Resolver {
    /// Begins with a search; no more than `most` sockets are remembered. `accepts`: brokers' ends
    /// are captured. The thread ends with [`Resolver::finish`].
    pub(super) fn start(
        ports: PortSet,
        most: usize,
        accepts: bool,
        processes: Arc<Mutex<Table>>,
    ) -> std::io::Result<Self> {
        let ports = (!ports.is_auto()).then_some(ports);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { ports, most, accepts, processes, state, changed });
        let resolver = Self { shared: Arc::clone(&shared) };
        thread::Builder::new().name("ktrace-resolve".into()).spawn(move || {
            privilege::shed();
            shared.run();
        })?;
        Ok(resolver)
    }

    /// Waits for the first search, but no longer than `patience`.
    pub(super) fn first(&self, patience: Duration) {
        let state = self.shared.lock();
        // Whether it has come in time shows later.
        drop(self.shared.changed.wait_timeout_while(state, patience, |state| state.searches == 0));
    }

    /// A socket has been without owner for a while.
    pub(super) fn ask(&self) {
        self.shared.lock().asked.get_or_insert_with(Instant::now);
        self.shared.changed.notify_all();
    }

    /// How many searches there were.
    pub(super) fn searches(&self) -> u64 {
        self.shared.lock().searches
    }

    /// What the last search has found of a socket.
    pub(super) fn found(&self, cookie: u64) -> Option<Found> {
        self.shared.lock().found.get(&cookie).cloned()
    }

    /// Whether it is found out who listens.
    pub(super) fn accepts(&self) -> bool {
        self.shared.accepts
    }

    /// Who accepts what comes to this address, as far as the last search has found it; a process
    /// that has ended since accepts nothing.
    pub(super) fn accepting(&self, at: SocketAddr) -> Option<Found> {
        let found = self.shared.lock().accepting.of(at).cloned()?;
        found.process.as_ref().is_some_and(|process| is_alive(process)).then_some(found)
    }

    /// Ends the thread, after the search that it is in.
    pub(super) fn finish(&self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With their processes, each read once however many sockets it holds.
    fn read(&self, Holders { connected, listening, addresses }: Holders) -> (HashMap<u64, Found>, Accepting) {
        let mut read: HashMap<u32, Arc<Process>> = HashMap::new();
        let mut process = |pid| {
            let new = || self.processes.lock().unwrap_or_else(PoisonError::into_inner).get(pid, "");
            Arc::clone(read.entry(pid).or_insert_with(new))
        };
        let mut found = |Holder { netns, pid }: Holder| Found { netns, pid, process: pid.map(&mut process) };
        let connected = connected.into_iter().map(|(cookie, holder)| (cookie, found(holder))).collect();
        let listening = listening.into_iter().map(|(at, holder)| (at, found(holder)));
        (connected, Accepting::new(listening, addresses))
    }

    fn run(&self) {
        loop {
            let began = Instant::now();
            let wanted = |socket: &Socket| {
                self.ports.as_ref().is_none_or(|ports| {
                    ports.contains(socket.remote.port()) || ports.contains(socket.local.port())
                })
            };
            let found = existing::find_holders(self.most, self.accepts, wanted).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot list the sockets of this host");
                Holders::default()
            });
            let (found, accepting) = self.read(found);
            // Keys are gone with their connection, so a process is looked for sooner where they are
            // wanted.
            let shortest = if self.accepts { SHORTEST_PAUSE } else { LONGEST_PAUSE };
            let pause = (began.elapsed() * PAUSE_TIMES).clamp(shortest, LONGEST_PAUSE);
            let mut state = self.lock();
            (state.found, state.accepting) = (found, accepting);
            state.searches += 1;
            self.changed.notify_all();
            // Asked for during the search, and not answered by it: again.
            while !state.stop {
                let now = Instant::now();
                let due = state.asked.map(|asked| asked.max(began + pause));
                match due {
                    Some(due) if due <= now => break,
                    due => {
                        let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(now));
                        let waited = self.changed.wait_timeout(state, wait.min(Duration::from_secs(3600)));
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
            }
            state.asked = None;
            if state.stop {
                return;
            }
        }
    }
}
