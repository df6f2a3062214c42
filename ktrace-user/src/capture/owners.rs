//! Reads processes from /proc the moment that they connect, in a thread of its own: a process may
//! be gone a millisecond later, and the thread that reads the segments may be busy for longer than
//! that.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use ktrace_common::Owner;

use super::epoll::{Alarm, Sleeper};
use super::ring::{Record, decode};
use crate::process::Table;
use crate::seen::Process;
use crate::{privilege, sched};

/// Owners read in a row, and the pause after them, so that a process that connects without end does
/// not keep the CPU busy here: each takes about 10 µs if the process is known already. Meanwhile
/// the ring holds 4096.
const BURST: u32 = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// Owners read and not yet taken: as many as the ring holds.
const QUEUE: usize = 4096;

/// A process has connected a socket.
pub(super) struct Owned {
    pub(super) cookie: u64,
    pub(super) process: Arc<Process>,
    /// Kernel time of the connect.
    pub(super) time_ns: u64,
}

/// The thread; it ends when this is dropped.
pub(super) struct Owners {
    stop: Arc<AtomicBool>,
    alarm: Alarm,
    thread: Option<JoinHandle<()>>,
}

impl Owners {
    /// Starts the thread on the ring of owners. What it reads goes to the receiver of the ring of
    /// the socket's segments.
    pub(super) fn start(
        mut ring: RingBuf<MapData>,
        rings: usize,
        table: Arc<Mutex<Table>>,
    ) -> io::Result<(Self, Vec<Receiver<Owned>>)> {
        let sleeper = Sleeper::new(&ring)?;
        let alarm = sleeper.alarm()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..rings).map(|_| mpsc::sync_channel(QUEUE)).unzip();
        let thread = thread::Builder::new().name("ktrace-owners".into()).spawn(move || {
            // What this thread does not read at once is lost. On a busy host, of processes that end
            // a fraction of a millisecond after they connect, half are gone when a thread of
            // ordinary priority looks; with this, none. [`BURST`] keeps it from taking a CPU for
            // itself.
            if let Err(error) = sched::hurry() {
                tracing::debug!(%error, "without CAP_SYS_NICE, processes that end at once may not be named");
            }
            privilege::shed();
            loop {
                // Looked at before the ring, so that what came before the end is read.
                let last = stopped.load(Ordering::Acquire);
                drain(&mut ring, &table, &senders);
                if last {
                    return;
                }
                if let Err(error) = sleeper.sleep(None) {
                    tracing::error!(%error, "owners of new connections will not be known");
                    return;
                }
            }
        })?;
        Ok((Self { stop, alarm, thread: Some(thread) }, receivers))
    }

    /// Reads what is left in the ring, and ends the thread.
    pub(super) fn finish(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.alarm.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads processes has panicked");
        }
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.finish();
    }
}

fn drain(ring: &mut RingBuf<MapData>, table: &Mutex<Table>, senders: &[SyncSender<Owned>]) {
    let mut burst = 0;
    while let Some(record) = ring.next() {
        burst += 1;
        if burst % BURST == 0 {
            thread::sleep(PAUSE);
        }
        let Some(Record::Owner(owner)) = decode(&record) else { continue };
        let comm = owner.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let comm = String::from_utf8_lossy(comm);
        let process = table.lock().unwrap_or_else(PoisonError::into_inner).get(owner.pid, &comm);
        // A full queue costs only the report: the socket is then looked for as those of before the
        // agent are. There is no receiver once the capture has ended.
        let to = match usize::from(owner.ring) {
            ring if owner.ring != Owner::ANY_RING => senders.get(ring..=ring).unwrap_or_default(),
            _ => senders,
        };
        for sender in to {
            let process = Arc::clone(&process);
            drop(sender.try_send(Owned { cookie: owner.cookie, process, time_ns: owner.time_ns }));
        }
    }
}
