//! Looks for the owners of sockets in a thread of its own, so that the ring is read meanwhile.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::PortSet;
use super::existing::{self, Found};

/// Between two searches that were asked for: going through /proc has its price, and a socket whose owner was not found stays without.
const PAUSE: Duration = Duration::from_secs(5);

/// One search at a time.
pub(super) struct Resolver {
    ports: PortSet,
    running: Option<Receiver<Vec<Found>>>,
    last: Option<Instant>,
    asked: bool,
}

impl Resolver {
    pub(super) fn new(ports: PortSet) -> Self {
        Self { ports, running: None, last: None, asked: false }
    }

    /// A socket without owner has been seen.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// Begins a search if one was asked for and the last one is long enough ago; gives what the last one has found, once it has ended.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<Found> {
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
        if self.asked
            && self.running.is_none()
            && self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE)
        {
            self.start(now);
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
        self.asked = false;
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
