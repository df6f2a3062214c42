//! What a worker knows between messages, under a million distinct messages a second, sent and
//! delivered, for a minute: what it costs a record, and how large it becomes. Time is simulated;
//! workers share what they share in the agent, and take turns on one thread. The sink drops hops.
//!
//! Sixteen producers (plain, idempotent, idempotent with trace context, transactional) write to
//! eight partitions each, in uncompressed batches of 1000 records of 100 bytes; one batch a second
//! fails at first and is sent again. Sixteen members of four groups read them as they come, a
//! quarter of them waiting for markers of transactions, and commit ten times a second.
//!
//! `--hostile`: in place of all that, every exchange names a group, a member, a client, a topic and
//! a producer that were never there before, a thousand times a second: memory stays bounded, and
//! what makes room is counted.
//!
//! `--seconds N`, `--workers N`.

mod clients;
mod hostile;
mod traffic;
mod wire;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clients::Clients;
use hostile::Hostile;
use ktrace_user::hop::Hop;
use ktrace_user::seen::Event;
use ktrace_user::worker::{Shared, Worker, WorkerOptions};
use mimalloc::MiMalloc;
use traffic::Traffic;

/// The agent's allocator, and how much it has given out.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the agent's allocator as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(size, Ordering::Relaxed);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// CPU time of this thread: others may run beside it.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer; the clock is there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn option(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |value| value.parse().expect("a number"))
}

struct Workers {
    workers: Vec<Worker>,
    shown: Arc<AtomicU64>,
    took: Duration,
}

impl Workers {
    fn new(shared: &Arc<Shared>, count: u64) -> Self {
        let shown = Arc::new(AtomicU64::new(0));
        let worker = |_| {
            let shown = Arc::clone(&shown);
            let sink = move |_: Hop| {
                shown.fetch_add(1, Ordering::Relaxed);
            };
            Worker::new(WorkerOptions { infer: true, ..WorkerOptions::default() }, shared, Box::new(sink))
                .expect("known formats")
        };
        Self { workers: (0..count).map(worker).collect(), shown, took: Duration::ZERO }
    }

    /// Gives events to the worker of this connection.
    fn read(&mut self, connection: u64, events: &[Event<'_>]) {
        let at = connection as usize % self.workers.len();
        let begin = cpu_time();
        for event in events {
            self.workers[at].event(event.clone());
        }
        self.took += cpu_time() - begin;
    }

    fn sizes(&self, shared: &Shared) -> String {
        let own = self.workers.iter().flat_map(Worker::sizes);
        let mut sums: Vec<(&str, usize)> = shared.sizes();
        for (what, size) in own {
            match sums.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += size,
                None => sums.push((what, size)),
            }
        }
        let told = sums.iter().filter(|(_, size)| *size > 0).map(|(what, size)| format!("{size} {what}"));
        told.collect::<Vec<_>>().join(", ")
    }
}

fn main() {
    let (seconds, workers) = (option("--seconds", 60), option("--workers", 2));
    let shared = Arc::new(Shared::default());
    if std::env::args().any(|argument| argument == "--hostile") {
        let mut traffic = Hostile::default();
        measure(&mut traffic, Workers::new(&shared, workers), &shared, seconds);
    } else {
        let mut traffic = Clients::new();
        let mut all = Workers::new(&shared, workers);
        traffic.begin(&mut |connection, events| all.read(connection, events));
        measure(&mut traffic, all, &shared, seconds);
    }
}

fn measure(traffic: &mut dyn Traffic, mut all: Workers, shared: &Shared, seconds: u64) {
    let before = HELD.load(Ordering::Relaxed);
    println!("{:>6} {:>12} {:>10} {:>9}  what is held", "second", "records", "ns/record", "MB");
    let (mut records, mut took) = (0, Duration::ZERO);
    for second in 1..=seconds {
        for _ in 0..1000 {
            traffic.millisecond(&mut |connection, events| all.read(connection, events));
        }
        if second % 10 == 0 || second == seconds {
            let (spent, read) = (all.took - took, traffic.records() - records);
            (took, records) = (all.took, traffic.records());
            println!(
                "{second:>6} {records:>12} {:>10.1} {:>9.1}  {}",
                spent.as_nanos() as f64 / read as f64,
                HELD.load(Ordering::Relaxed).saturating_sub(before) as f64 / 1e6,
                all.sizes(shared),
            );
        }
    }
    let shown = Arc::clone(&all.shown);
    let totals: Vec<_> = all.workers.into_iter().map(Worker::finish).collect();
    let read: u64 = totals.iter().map(|totals| totals.records).sum();
    assert!(totals.iter().all(|totals| totals.malformed.is_empty()), "{totals:?}");
    assert_eq!(read, traffic.records(), "all records are read");
    let nanos = all.took.as_nanos() as f64 / read as f64;
    println!("{read} records, {} hops, {nanos:.1} ns a record", shown.load(Ordering::Relaxed));
    for totals in totals {
        println!("lost: {:?}", totals.lost);
    }
}
