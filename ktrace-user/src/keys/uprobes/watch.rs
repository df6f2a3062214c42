//! The thread that probes and reads what the probes have seen: it keeps the privileges for both,
//! and reads nothing that came from the network.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use aya::maps::{MapData, RingBuf};
use ktrace_common::{SECRETS_RING, Secret, SecretKind};

use super::{Counts, Probes, Store, decode};
use crate::capture::{Alarm, Scrubber, Sleeper, monotonic_ns};
use crate::privilege;

/// Blank records that go around the ring of secrets with what is read between two halves: 64 KiB,
/// each 2 KiB long.
const HALF: u32 = 16;
/// How often secrets are looked through for those that are too old, while there are any.
const TICK_MS: u32 = 1000;

/// The thread; it ends, and all probes are taken off, when this is dropped or the process dies.
pub struct Watch {
    store: Arc<Store>,
    counts: Arc<Mutex<Counts>>,
    stop: Arc<AtomicBool>,
    alarm: Alarm,
    makes_events: bool,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread, which puts secrets into the store.
    pub(crate) fn start(
        (ring, store): (RingBuf<MapData>, Arc<Store>),
        probes: Probes,
        scrubber: Option<Scrubber>,
    ) -> io::Result<Self> {
        let makes_events = probes.makes_events();
        let sleeper = Sleeper::new(&ring)?;
        let alarm = sleeper.alarm()?;
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::<Mutex<Counts>>::default();
        let mut reader =
            Reader { ring, probes, scrubber, store: Arc::clone(&store), counts: Arc::clone(&counts) };
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("ktrace-uprobes".into()).spawn(move || {
            privilege::shed();
            while !stopped.load(Ordering::Acquire) {
                reader.read();
                let at_most = (!reader.store.is_empty()).then_some(TICK_MS);
                if let Err(error) = sleeper.sleep(at_most) {
                    tracing::error!(%error, "secrets of new TLS connections will not be seen");
                    return;
                }
            }
        })?;
        Ok(Self { store, counts, stop, alarm, makes_events, thread: Some(thread) })
    }

    /// What the probes have seen.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Whether the thread calls `perf_event_open`.
    #[must_use]
    pub fn makes_events(&self) -> bool {
        self.makes_events
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the probes off and ends the thread.
    pub fn finish(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.alarm.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that probes for secrets has panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Reader {
    ring: RingBuf<MapData>,
    probes: Probes,
    scrubber: Option<Scrubber>,
    store: Arc<Store>,
    counts: Arc<Mutex<Counts>>,
}

impl Reader {
    /// Reads what is there, does what is to be done about it, and overwrites it.
    fn read(&mut self) {
        let mut secrets = false;
        while let Some((kind, told)) = self.next() {
            if kind == SecretKind::Connecting {
                self.probes.look_at(told.pid);
            } else {
                self.store.add(kind, &told);
                secrets = true;
            }
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.probes.counts();
        self.store.tick(monotonic_ns());
        if secrets {
            self.overwrite();
        }
    }

    /// What says something.
    fn next(&mut self) -> Option<(SecretKind, Secret)> {
        loop {
            if let Some(decoded) = decode(&self.ring.next()?) {
                return Some(decoded);
            }
        }
    }

    /// Once around the ring, and what is read meanwhile is kept.
    fn overwrite(&mut self) {
        let Some(scrubber) = &self.scrubber else { return };
        for _ in 0..3 {
            if let Err(error) = scrubber.write(SECRETS_RING, HALF) {
                tracing::debug!(%error, "what was read of the ring of secrets is not overwritten yet");
                return;
            }
            while let Some(record) = self.ring.next() {
                match decode(&record) {
                    Some((SecretKind::Connecting, told)) => self.probes.look_at(told.pid),
                    Some((kind, told)) => self.store.add(kind, &told),
                    None => {}
                }
            }
        }
    }
}
