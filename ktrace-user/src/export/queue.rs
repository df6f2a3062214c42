//! The bounded queue between producers of hops and a sink, which shows them as spans.
//!
//! Hops are handed over many at a time: a sink takes all that is there, and waits a little before it does so that it need not be
//! woken for each. A sink that may have to try again takes batches, gives back what it could not deliver, and is done with the rest:
//! until then all of it counts against the queue's bound, and where that is reached the oldest batch gives way to what is new.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::hop::{Hop, HopRef, Hops};
use crate::losses::Reason;

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
    refused: AtomicU64,
    /// Of those that found the queue full, the ones that had been taken.
    evicted: AtomicU64,
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

    /// Spans that the sink could not deliver in time.
    pub fn fail(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that the sink could not deliver, so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Spans that the collector will never take.
    pub fn refuse(&self, spans: usize) {
        self.refused.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that the collector will never take, so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Spans that found no room or had to make it, so far.
    pub fn queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// Traces that were shown before all of them was there.
    pub fn cut_trace(&self) {
        self.traces_cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Spans that the sink has delivered.
    pub fn deliver(&self, spans: usize) {
        self.delivered.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that were taken and of which nothing has become yet.
    pub fn waiting(&self) -> u64 {
        let done = [&self.delivered, &self.failed, &self.refused, &self.evicted];
        let done = done.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        self.accepted.load(Ordering::Relaxed).saturating_sub(done)
    }

    /// The sink is given up, and with it all that it has not delivered.
    pub fn give_up(&self) {
        self.failed.fetch_add(self.waiting(), Ordering::Relaxed);
    }

    /// Counts by the reasons that the summary names.
    pub fn lost(&self) -> [(Reason, u64); 4] {
        [
            (Reason::ExportQueueFull, self.queue_full()),
            (Reason::ExportFailed, self.failed()),
            (Reason::ExportRefused, self.refused()),
            (Reason::TraceCut, self.traces_cut.load(Ordering::Relaxed)),
        ]
    }

    fn drop_some(&self, spans: usize) {
        if self.queue_full.fetch_add(spans as u64, Ordering::Relaxed) == 0 {
            let (name, bound) = (self.name, self.bound());
            tracing::warn!(queue = name, bound, "queue is full, spans are being dropped");
        }
    }

    /// Spans that were taken have given way to newer ones.
    fn give_way(&self, spans: usize) {
        self.evicted.fetch_add(spans as u64, Ordering::Relaxed);
        self.drop_some(spans);
    }
}

/// How much a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub spans: usize,
    /// What the spans may weigh together.
    pub bytes: usize,
    /// Spans of a batch, for a sink that takes batches.
    pub batch: Option<usize>,
}

/// The most spans of a batch in a queue of so many. It counts until it is delivered: so there is room for one that is on its way, for
/// one that may give way, and for the one that is being filled.
pub(super) fn most_of(bound: usize) -> usize {
    (bound / 3).max(1)
}

struct Queue {
    state: Mutex<State>,
    counters: Arc<Counters>,
    bounds: Bounds,
    /// Where the sink sleeps until something is there, or enough.
    sink: Notify,
    /// Where producers wait for room.
    room: Condvar,
}

/// Hops that go out together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub hops: Hops,
    /// What they weigh.
    bytes: usize,
}

struct State {
    /// Whole batches, the oldest first.
    batches: VecDeque<Batch>,
    /// The newest hops.
    newest: Batch,
    /// Hops in all of these.
    queued: usize,
    /// These, and those that the sink has taken and not begun with.
    held: usize,
    /// What those weigh, where that is bounded.
    held_bytes: usize,
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

impl State {
    fn is_full(&self, queue: &Queue) -> bool {
        self.held >= queue.counters.bound() || self.held_bytes >= queue.bounds.bytes
    }

    /// The oldest that is not in the sink's hands.
    fn pop_batch(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.queued -= batch.hops.len();
        Some(batch)
    }

    fn forget(&mut self, batch: &Batch) {
        self.held -= batch.hops.len();
        self.held_bytes -= batch.bytes;
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
    bounded(name, Bounds { spans: bound, bytes: usize::MAX, batch: None }, when_full)
}

/// A queue with these bounds.
pub(super) fn bounded(
    name: &'static str,
    bounds: Bounds,
    when_full: WhenFull,
) -> (Sender, Receiver, Arc<Counters>) {
    let bounds = Bounds { spans: bounds.spans.max(1), ..bounds };
    let zero = AtomicU64::default;
    let counters = Counters {
        name,
        bound: AtomicUsize::new(bounds.spans),
        accepted: zero(),
        delivered: zero(),
        queue_full: zero(),
        failed: zero(),
        refused: zero(),
        evicted: zero(),
        traces_cut: zero(),
    };
    let counters = Arc::new(counters);
    let state = State {
        batches: VecDeque::new(),
        newest: Batch::default(),
        queued: 0,
        held: 0,
        held_bytes: 0,
        enough: 1,
        producers: 1,
        ended: false,
    };
    let queue = Arc::new(Queue {
        state: Mutex::new(state),
        counters: Arc::clone(&counters),
        bounds,
        sink: Notify::new(),
        room: Condvar::new(),
    });
    (Sender { queue: Arc::clone(&queue), when_full }, Receiver { queue }, counters)
}

impl Sender {
    /// A sink that has ended takes nothing more; that is no loss, since it tells itself why it ended.
    pub fn send(&self, hop: Hop) {
        let Queue { counters, bounds, sink, room, .. } = &*self.queue;
        let mut gone = Vec::new();
        let mut state = self.queue.state();
        while state.is_full(&self.queue) && !state.ended {
            match self.when_full {
                WhenFull::Drop => match state.pop_batch() {
                    Some(oldest) => {
                        state.forget(&oldest);
                        counters.give_way(oldest.hops.len());
                        gone.push(oldest);
                    }
                    None => {
                        drop(state);
                        return counters.drop_some(1);
                    }
                },
                WhenFull::Wait => state = room.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        if state.ended {
            return;
        }
        counters.accept();
        state.held += 1;
        state.queued += 1;
        if let Some(most) = bounds.batch {
            let bytes = hop.passage.bytes();
            state.held_bytes += bytes;
            state.newest.bytes += bytes;
            state.newest.hops.push(hop);
            if state.newest.hops.len() >= most.min(most_of(counters.bound())) {
                let whole = std::mem::take(&mut state.newest);
                state.batches.push_back(whole);
            }
        } else {
            state.newest.hops.push(hop);
        }
        let wake = state.queued == 1 || state.queued == state.enough;
        drop(state);
        if wake {
            sink.notify_one();
        }
        // What gave way is freed without the lock.
        drop(gone);
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
        self.gather(enough, within).await;
        let mut state = self.queue.state();
        std::mem::swap(&mut state.newest.hops, into);
        state.queued = 0;
        !into.is_empty()
    }

    /// Waits for hops, then for a whole batch of them or `within`, and takes the oldest batch, or what there is of one. `None` only
    /// when all producers are gone and nothing is left.
    ///
    /// It counts against the bound until it is given back or done with: see [`Self::give_back`], [`Self::done`].
    pub async fn take_batch(&mut self, within: Duration) -> Option<Batch> {
        self.gather(self.queue.bounds.batch.unwrap_or(1), within).await;
        let mut state = self.queue.state();
        state.pop_batch().or_else(|| {
            let batch = std::mem::take(&mut state.newest);
            state.queued -= batch.hops.len();
            Some(batch).filter(|batch| !batch.hops.is_empty())
        })
    }

    /// The batch is to be taken again, before all others, unless it has to give way.
    pub fn give_back(&self, batch: Batch) {
        let mut state = self.queue.state();
        state.queued += batch.hops.len();
        state.batches.push_front(batch);
    }

    /// The sink has delivered the batch, or given it up: there is room for others.
    pub fn done(&self, batch: &Batch) {
        let full = {
            let mut state = self.queue.state();
            let full = state.is_full(&self.queue);
            state.forget(batch);
            full
        };
        if full {
            self.queue.room.notify_all();
        }
    }

    /// The sink is done with the first `hops` of the batch.
    pub fn done_with(&self, batch: &Batch, hops: usize) -> Batch {
        let rest = Batch::of(batch.hops.iter().skip(hops).map(HopRef::to_hop));
        {
            let mut state = self.queue.state();
            state.held -= hops;
            state.held_bytes -= batch.bytes - rest.bytes;
        }
        self.queue.room.notify_all();
        rest
    }

    /// Waits until there is anything, or all producers are gone.
    pub async fn anything(&self) {
        self.until(1).await;
    }

    async fn gather(&self, enough: usize, within: Duration) {
        self.until(1).await;
        let bound = self.queue.counters.bound();
        let most = if self.queue.bounds.batch.is_some() { most_of(bound) } else { bound };
        // Not there in time: then it is less.
        let _ = timeout(within, self.until(enough.clamp(1, most))).await;
    }

    /// So many are there, or nobody brings more.
    async fn until(&self, enough: usize) {
        loop {
            {
                let mut state = self.queue.state();
                if state.queued >= enough || state.producers == 0 {
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
            let full = state.is_full(&self.queue);
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
            state.queued
        };
        self.queue.room.notify_all();
        left
    }
}

impl Batch {
    fn of(hops: impl Iterator<Item = Hop>) -> Self {
        let mut batch = Self::default();
        for hop in hops {
            batch.bytes += hop.passage.bytes();
            batch.hops.push(hop);
        }
        batch
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
