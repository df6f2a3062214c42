//! The bounded queue between producers of spans and a sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::Span;

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
    bound: usize,
    accepted: AtomicU64,
    delivered: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    /// Spans that the sink could not deliver.
    pub fn fail(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that the sink could not deliver, so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
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

    /// Counts by the reasons that the summary names.
    pub fn lost(&self) -> [(&'static str, u64); 2] {
        [("export_queue_full", self.queue_full.load(Ordering::Relaxed)), ("export_failed", self.failed())]
    }
}

/// A producer's end of the queue.
#[derive(Clone)]
pub(super) struct Sender {
    queue: mpsc::Sender<Span>,
    when_full: WhenFull,
    counters: Arc<Counters>,
}

/// A queue of at most `bound` spans.
pub(super) fn queue(
    name: &'static str,
    bound: usize,
    when_full: WhenFull,
) -> (Sender, mpsc::Receiver<Span>, Arc<Counters>) {
    let bound = bound.max(1);
    let (queue, spans) = mpsc::channel(bound);
    let zero = AtomicU64::default;
    let counters =
        Counters { name, bound, accepted: zero(), delivered: zero(), queue_full: zero(), failed: zero() };
    let counters = Arc::new(counters);
    (Sender { queue, when_full, counters: Arc::clone(&counters) }, spans, counters)
}

impl Sender {
    /// A sink that has ended takes nothing more; that is no loss, since it tells itself why it ended.
    pub fn send(&self, span: Span) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        match self.when_full {
            WhenFull::Wait => {
                let _ = self.queue.blocking_send(span);
            }
            WhenFull::Drop => {
                if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(span) {
                    self.counters.accepted.fetch_sub(1, Ordering::Relaxed);
                    let before = self.counters.queue_full.fetch_add(1, Ordering::Relaxed);
                    if before == 0 {
                        let Counters { name, bound, .. } = *self.counters;
                        tracing::warn!(queue = name, bound, "queue is full, spans are being dropped");
                    }
                }
            }
        }
    }

    /// This producer is done.
    pub fn close(self) -> Arc<Counters> {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (sender, mut spans, counters) = queue("test", 2, WhenFull::Drop);
        for _ in 0..5 {
            sender.send(samples::send());
        }
        assert_eq!(counters.lost(), [("export_queue_full", 3), ("export_failed", 0)]);
        drop(sender);
        assert_eq!(std::iter::from_fn(|| spans.blocking_recv()).count(), 2);
    }

    #[test]
    fn waiting_loses_nothing() {
        let (sender, mut spans, counters) = queue("test", 2, WhenFull::Wait);
        let producer = std::thread::spawn(move || (0..100).for_each(|_| sender.send(samples::send())));
        assert_eq!(std::iter::from_fn(|| spans.blocking_recv()).count(), 100);
        producer.join().unwrap();
        assert_eq!(counters.lost(), [("export_queue_full", 0), ("export_failed", 0)]);
    }
}
