//! All calls of `bpf(2)` after the start, made by one thread that keeps the privilege for them.
//!
//! Before Linux 5.19, where `kernel.unprivileged_bpf_disabled` is set, even a look into one's own
//! map takes CAP_BPF (`__sys_bpf` in `kernel/bpf/syscall.c`). Those who read what came from the
//! network shall not have it: they ask here.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use ktrace_common::{Counter, Tally, port_slot};

use super::counters::Counters;
use super::scrubber::Scrubber;
use crate::privilege;
use crate::seen::ConnectionId;

/// What may wait to be done; who asks for more waits, for a microsecond each.
const QUEUE: usize = 1024;

/// The maps that are read and written while the capture runs.
pub(super) struct Held {
    pub(super) counters: PerCpuArray<MapData, Tally>,
    pub(super) tracked: HashMap<MapData, u64, u8>,
    pub(super) refused: HashMap<MapData, u64, u8>,
    /// How many were refused: the kernel side looks among them when it changes.
    pub(super) refusals: Array<MapData, u32>,
    /// Kafka ports, or with `auto` those on which TLS is taken for Kafka.
    pub(super) ports: Array<MapData, u64>,
    /// `None` where the kernel does not take the program.
    pub(super) scrubber: Option<Scrubber>,
}

/// Asks the thread, which ends with the last of these.
#[derive(Clone)]
pub(super) struct Calls {
    asked: SyncSender<Call>,
}

enum Call {
    Count(SyncSender<Counters>),
    Refuse(ConnectionId),
    Track { cookie: u64, ring: u8 },
    TakePort(u16),
    Scrub { ring: u8, records: u32 },
}

impl Calls {
    /// Starts the thread.
    pub(super) fn start(held: Held) -> io::Result<Self> {
        let (asked, calls) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("ktrace-bpf".into()).spawn(move || {
            privilege::shed();
            run(held, &calls);
        })?;
        Ok(Self { asked })
    }

    /// The counters now; zeros if the thread is gone.
    pub(super) fn count(&self) -> Counters {
        let (answer, answered) = mpsc::sync_channel(1);
        self.ask(Call::Count(answer));
        answered.recv().unwrap_or_default()
    }

    /// Nothing more of this connection is copied.
    pub(super) fn refuse(&self, connection: ConnectionId) {
        self.ask(Call::Refuse(connection));
    }

    /// The end of this socket is reported although its beginning was not seen.
    pub(super) fn track(&self, cookie: u64, ring: u8) {
        self.ask(Call::Track { cookie, ring });
    }

    /// TLS on this port is taken for Kafka from now on.
    pub(super) fn take_port(&self, port: u16) {
        self.ask(Call::TakePort(port));
    }

    /// Writes this number of blank records into a ring.
    pub(super) fn scrub(&self, ring: u8, records: u32) {
        self.ask(Call::Scrub { ring, records });
    }

    fn ask(&self, call: Call) {
        if self.asked.send(call).is_err() {
            tracing::error!("the thread that speaks to the programs is gone");
        }
    }
}

fn run(mut held: Held, calls: &Receiver<Call>) {
    let mut refusals = 0_u32;
    for call in calls {
        match call {
            // Who asked may have given up.
            Call::Count(answer) => drop(answer.send(count(&held.counters))),
            Call::Refuse(connection) => {
                refusals = refusals.wrapping_add(1);
                let done = held
                    .refused
                    .insert(&connection.0, &1, 0)
                    .and_then(|()| held.refusals.set(0, &refusals, 0));
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection goes on being copied");
                }
            }
            // A failure only means that the socket's end is not reported.
            Call::Track { cookie, ring } => drop(held.tracked.insert(&cookie, &ring, 0)),
            Call::TakePort(port) => {
                let (word, bit) = port_slot(port);
                let done = held.ports.get(&word, 0).and_then(|bits| held.ports.set(word, &(bits | bit), 0));
                if let Err(error) = done {
                    tracing::warn!(%error, port, "TLS to a broker's port is not taken");
                }
            }
            Call::Scrub { ring, records } => {
                if let Some(scrubber) = &held.scrubber
                    && let Err(error) = scrubber.write(ring, records)
                    && !is_passing(&error)
                {
                    tracing::warn!(%error, "what was read of a ring stays in memory until more comes");
                    held.scrubber = None;
                }
            }
        }
    }
}

/// Whether a call that failed so may succeed the next time, which comes within a second.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOMEM | libc::EAGAIN))
}

/// Summed over all CPUs. A counter that the kernel would not give reads as zero.
fn count(map: &PerCpuArray<MapData, Tally>) -> Counters {
    let mut counters = Counters::default();
    for counter in Counter::ALL {
        let Ok(cpus) = map.get(&(counter as u32), 0) else { continue };
        for [events, bytes] in cpus.iter() {
            counters.add(counter, *events, *bytes);
        }
    }
    counters
}
