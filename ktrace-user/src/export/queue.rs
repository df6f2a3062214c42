//! The bounded queue between producers of hops and a sink, which shows them as spans.
//!
//! Hops are handed over many at a time: a sink takes all that is there, and waits a little before it does so that it need not be
//! woken for each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::hop::{Hop, Hops};

/// What a producer does when a sink's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Counts the span as lost. For live capture, which must never wait.
    Drop,
    /// Waits. For replay.
    Wait,
}

/// What became of a sink's spans.
#[derive(Debug)]
pub(super) struct Counters {
    /// The queue's name in the agent's log.
    name: &'static str,
    /// How many spans the queue holds.
    bound: AtomicUsize,
    accepted: AtomicU64,
    delivered: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    traces_cut: AtomicU64,
}

impl Counters {
    /// How many spans the queue holds.
    pub fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// It holds no more than this from now on.
    pub fn hold_at_most(&self, spans: usize) {
        self.bound.fetch_min(spans.max(1), Ordering::Relaxed);
    }

    /// One more. Only with the queue's lock, so nobody else counts at the same time.
    fn accept(&self) {
        self.accepted.store(self.accepted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Spans that the sink could not deliver.
    pub fn fail(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that the sink could not deliver, so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Traces that were shown before all of them was there.
    pub fn cut_trace(&self) {
        self.traces_cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Spans that the sink has delivered.
    pub fn deliver(&self, spans: usize) {
        self.delivered.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that were taken and neither delivered nor failed yet.
    pub fn waiting(&self) -> u64 {
        let done = self.delivered.load(Ordering::Relaxed) + self.failed();
        self.accepted.load(Ordering::Relaxed).saturating_sub(done)
    }

    /// The sink is given up, and with it all that it has not delivered.
    pub fn give_up(&self) {
        self.failed.fetch_add(self.waiting(), Ordering::Relaxed);
    }

    /// Counts by the reasons that the summary names.
    pub fn lost(&self) -> [(&'static str, u64); 3] {
        [
            ("export_queue_full", self.queue_full.load(Ordering::Relaxed)),
            ("export_failed", self.failed()),
            ("trace_cut", self.traces_cut.load(Ordering::Relaxed)),
        ]
    }

    fn drop_one(&self) {
        if self.queue_full.fetch_add(1, Ordering::Relaxed) == 0 {
            let (name, bound) = (self.name, self.bound());
            tracing::warn!(queue = name, bound, "queue is full, spans are being dropped");
        }
    }
}

struct Queue {
    state: Mutex<State>,
    counters: Arc<Counters>,
    /// Where the sink sleeps until something is there, or enough.
    sink: Notify,
    /// Where producers wait for room.
    room: Condvar,
}

struct State {
    hops: Hops,
    /// These, and those that the sink has taken and not begun with.
    held: usize,
    /// With so many the sink is woken again.
    enough: usize,
    producers: usize,
    /// The sink has ended.
    ended: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer's end of the queue.
pub(super) struct Sender {
    queue: Arc<Queue>,
    when_full: WhenFull,
}

/// The sink's end of the queue.
pub(super) struct Receiver {
    queue: Arc<Queue>,
}

/// A queue of at most `bound` spans.
pub(super) fn queue(
    name: &'static str,
    bound: usize,
    when_full: WhenFull,
) -> (Sender, Receiver, Arc<Counters>) {
    let bound = bound.max(1);
    let zero = AtomicU64::default;
    let counters = Counters {
        name,
        bound: AtomicUsize::new(bound),
        accepted: zero(),
        delivered: zero(),
        queue_full: zero(),
        failed: zero(),
        traces_cut: zero(),
    };
    let counters = Arc::new(counters);
    let queue = Arc::new(Queue {
        state: Mutex::new(State { hops: Hops::default(), held: 0, enough: 1, producers: 1, ended: false }),
        counters: Arc::clone(&counters),
        sink: Notify::new(),
        room: Condvar::new(),
    });
    (Sender { queue: Arc::clone(&queue), when_full }, Receiver { queue }, counters)
}

impl Sender {
    /// A sink that has ended takes nothing more; that is no loss, since it tells itself why it ended.
    pub fn send(&self, hop: Hop) {
        let Queue { counters, sink, room, .. } = &*self.queue;
        let mut state = self.queue.state();
        while state.held >= counters.bound() && !state.ended {
            match self.when_full {
                WhenFull::Drop => {
                    drop(state);
                    return counters.drop_one();
                }
                WhenFull::Wait => state = room.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        if state.ended {
            return;
        }
        state.held += 1;
        counters.accept();
        state.hops.push(hop);
        let len = state.hops.len();
        let wake = len == 1 || len == state.enough;
        drop(state);
        if wake {
            sink.notify_one();
        }
    }

    /// What becomes of the queue's spans.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.queue.counters
    }

    /// This producer is done.
    pub fn close(self) -> Arc<Counters> {
        Arc::clone(&self.queue.counters)
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.queue.state().producers += 1;
        Self { queue: Arc::clone(&self.queue), when_full: self.when_full }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let producers = {
            let mut state = self.queue.state();
            state.producers -= 1;
            state.producers
        };
        if producers == 0 {
            self.queue.sink.notify_one();
        }
    }
}

impl Receiver {
    /// Waits for hops, then for `enough` of them or `within`, and takes all that are there in exchange for `into`, whose own are
    /// forgotten. Returns whether there are any; there are none only when all producers are gone.
    ///
    /// They go on counting against the bound until the sink begins with them: see [`Self::begin`].
    pub async fn take(&mut self, into: &mut Hops, enough: usize, within: Duration) -> bool {
        into.clear();
        self.until(1).await;
        // Not there in time: then it is less.
        let _ = timeout(within, self.until(enough.clamp(1, self.queue.counters.bound()))).await;
        std::mem::swap(&mut self.queue.state().hops, into);
        !into.is_empty()
    }

    /// So many are there, or nobody brings more.
    async fn until(&self, enough: usize) {
        loop {
            {
                let mut state = self.queue.state();
                if state.hops.len() >= enough || state.producers == 0 {
                    return;
                }
                state.enough = enough;
            }
            // Who wakes between the look and here leaves a permit.
            self.queue.sink.notified().await;
        }
    }

    /// The sink begins with so many of those that it has taken: there is room for others.
    pub fn begin(&self, hops: usize) {
        let full = {
            let mut state = self.queue.state();
            let full = state.held >= self.queue.counters.bound();
            state.held -= hops;
            full
        };
        if full {
            self.queue.room.notify_all();
        }
    }

    /// The sink ends: nothing more comes in. Returns how many hops nobody has taken.
    pub fn end(&self) -> usize {
        let left = {
            let mut state = self.queue.state();
            state.ended = true;
            state.hops.len()
        };
        self.queue.room.notify_all();
        left
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::hop::samples;

    const SOON: Duration = Duration::from_millis(1);
    const NEVER: Duration = Duration::from_secs(3600);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn take_all(receiver: &mut Receiver) -> usize {
        let (mut hops, mut count) = (Hops::default(), 0);
        while runtime().block_on(receiver.take(&mut hops, 10, SOON)) {
            count += hops.len();
            receiver.begin(hops.len());
        }
        count
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (sender, mut hops, counters) = queue("test", 2, WhenFull::Drop);
        for _ in 0..5 {
            sender.send(samples::sent());
        }
        assert_eq!(counters.lost(), [("export_queue_full", 3), ("export_failed", 0), ("trace_cut", 0)]);
        drop(sender);
        assert_eq!(take_all(&mut hops), 2);
    }

    #[test]
    fn what_is_taken_and_not_begun_counts_against_the_bound() {
        let (sender, mut receiver, counters) = queue("test", 2, WhenFull::Drop);
        let mut hops = Hops::default();
        (0..2).for_each(|_| sender.send(samples::sent()));
        assert!(runtime().block_on(receiver.take(&mut hops, 2, NEVER)));
        sender.send(samples::sent());
        receiver.begin(1);
        (0..2).for_each(|_| sender.send(samples::sent()));
        assert_eq!((hops.len(), receiver.end()), (2, 1));
        assert_eq!(counters.lost(), [("export_queue_full", 2), ("export_failed", 0), ("trace_cut", 0)]);
    }

    #[test]
    fn waiting_loses_nothing() {
        let (sender, mut hops, counters) = queue("test", 2, WhenFull::Wait);
        let second = sender.clone();
        let producers = [sender, second]
            .map(|sender| std::thread::spawn(move || (0..100).for_each(|_| sender.send(samples::sent()))));
        assert_eq!(take_all(&mut hops), 200);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(counters.lost(), [("export_queue_full", 0), ("export_failed", 0), ("trace_cut", 0)]);
    }

    #[test]
    fn a_sink_that_has_ended_keeps_no_producer() {
        let (sender, receiver, counters) = queue("test", 1, WhenFull::Wait);
        sender.send(samples::sent());
        let producer = std::thread::spawn(move || sender.send(samples::sent()));
        drop(receiver);
        producer.join().unwrap();
        assert_eq!(counters.waiting(), 1);
    }

    #[test]
    fn nothing_comes_in_behind_the_end() {
        let (sender, receiver, counters) = queue("test", 8, WhenFull::Drop);
        sender.send(samples::sent());
        assert_eq!(receiver.end(), 1);
        // Else nobody would count it: the sink has just counted what was there.
        sender.send(samples::sent());
        assert_eq!((receiver.end(), counters.waiting()), (1, 1));
    }
}
