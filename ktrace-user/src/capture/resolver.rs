//! Looks for the owners of sockets in a thread of its own, so that the ring is read meanwhile.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::PortSet;
use super::existing::{self, Found};

/// Between two searches that were asked for: going through /proc has its price, and a socket whose owner was not found stays without.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a socket may be without owner before a search begins: most often the owner is just being read.
const GRACE: Duration = Duration::from_millis(200);
/// Sockets remembered between two searches; one is enough to begin a search, and it finds all.
const MOST_ASKED: usize = 64;

/// One search at a time.
pub(super) struct Resolver {
    ports: PortSet,
    running: Option<Receiver<Vec<Found>>>,
    last: Option<Instant>,
    /// Sockets seen without owner since the last search.
    asked: Vec<u64>,
    /// When the first of them was.
    since: Option<Instant>,
}

impl Resolver {
    pub(super) fn new(ports: PortSet) -> Self {
        Self { ports, running: None, last: None, asked: Vec::new(), since: None }
    }

    /// A socket without owner has been seen.
    pub(super) fn ask(&mut self, cookie: u64) {
        if self.asked.len() < MOST_ASKED {
            self.asked.push(cookie);
        }
    }

    /// Begins a search if a socket that was asked for still `lacks` its owner and the last search is long enough ago; gives what the last one has
    /// found, once it has ended.
    pub(super) fn turn(&mut self, now: Instant, lacks: impl Fn(u64) -> bool) -> Vec<Found> {
        let found = match self.running.as_ref().map(Receiver::try_recv) {
            Some(Ok(found)) => {
                self.running = None;
                found
            }
            Some(Err(TryRecvError::Disconnected)) => {
                self.running = None;
                Vec::new()
            }
            Some(Err(TryRecvError::Empty)) | None => Vec::new(),
        };
        if self.asked.is_empty() {
            return found;
        }
        let waited = now.saturating_duration_since(*self.since.get_or_insert(now));
        let paused = self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if waited >= GRACE && paused && self.running.is_none() {
            if self.asked.iter().any(|cookie| lacks(*cookie)) {
                self.start(now);
            }
            self.asked.clear();
            self.since = None;
        }
        found
    }

    /// Searches now and waits for the result, but no longer than `patience`; a later result comes by [`Self::turn`].
    pub(super) fn search(&mut self, patience: Duration) -> Vec<Found> {
        self.start(Instant::now());
        let found = self.running.as_ref().and_then(|running| running.recv_timeout(patience).ok());
        if found.is_some() {
            self.running = None;
        }
        found.unwrap_or_default()
    }

    fn start(&mut self, now: Instant) {
        self.last = Some(now);
        let (sender, receiver) = mpsc::channel();
        let ports = self.ports.clone();
        let search = move || match existing::find(&ports) {
            // The receiver is gone when the capture has ended; then nobody wants to know.
            Ok(found) => drop(sender.send(found)),
            Err(error) => tracing::warn!(%error, "cannot list the sockets of this host"),
        };
        match thread::Builder::new().name("ktrace-resolve".into()).spawn(search) {
            Ok(_) => self.running = Some(receiver),
            Err(error) => tracing::warn!(%error, "cannot start a thread"),
        }
    }
}
