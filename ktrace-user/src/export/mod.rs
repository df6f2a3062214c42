//! Where spans go: one file a sink, each behind a bounded queue of its own.
//!
//! A producer never waits for a sink in live capture: a full queue drops the span and counts it. Replay waits instead,
//! since a file does not run away.

mod endpoint;
mod environment;
mod escape;
mod failing;
mod format;
mod json;
mod metrics;
mod otlp;
mod otlp_json;
mod print;
mod queue;
mod reader;
mod sdk;
mod text;
pub mod top;
mod transport;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use endpoint::OtlpOptions;
pub use environment::{Environment, is_of_a_service};
pub use format::Format;
pub use metrics::{Counts, Exporting, Metrics};
pub use otlp::otlp;
pub use print::{Output, print};
pub use queue::WhenFull;
pub use tree::tree;

use self::queue::{Counters, Sender};
use crate::hop::Hop;
use crate::losses::Reason;
pub use escape::{json, printable};

/// A sink could not be set up or has failed for good.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error("cannot set up OTLP export: {what}")]
    Otlp { what: String },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("cannot write spans: {0}")]
    Write(std::io::Error),
    #[error("cannot show a full screen: {0}")]
    Screen(std::io::Error),
    /// The run's export ended with spans that nobody took.
    #[error("{spans} spans were not delivered: {why}")]
    Undelivered { spans: u64, why: String },
    /// Who read them has gone (`| head`). A quiet end of the run, not a failure.
    #[error("nobody reads the output any more")]
    Closed,
}

/// Hops that a queue holds at least: a quarter of a batch for OTLP.
const LEAST_QUEUED: usize = 512;

/// Beyond its own limit a sink gets this long to end.
const GRACE: Duration = Duration::from_secs(1);
/// How often a sink that is ending is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A running sink: its queue and its thread.
pub struct Sink {
    sender: Sender,
    thread: JoinHandle<Result<(), ExportError>>,
    /// Tells the thread how long it may still take; dropped for sinks that need no limit.
    limit: Option<tokio::sync::oneshot::Sender<Duration>>,
    /// Tells the thread that the run has begun.
    begin: Option<tokio::sync::oneshot::Sender<()>>,
    /// What it may hold beside its queue.
    bytes: usize,
}

/// Gives hops to all sinks, which show them as spans; one for each worker.
#[derive(Clone)]
pub struct Senders {
    senders: Vec<Sender>,
}

impl Senders {
    /// Puts a hop into the queue of every sink.
    pub fn send(&self, hop: Hop) {
        let Some((last, others)) = self.senders.split_last() else { return };
        for sender in others {
            sender.send(hop.clone());
        }
        last.send(hop);
    }
}

/// What the sinks lose, to be read from anywhere, while they run and after.
#[derive(Clone)]
pub struct SinkLosses {
    counters: Vec<Arc<Counters>>,
}

impl SinkLosses {
    /// By reason, zeros too.
    #[must_use]
    pub fn so_far(&self) -> BTreeMap<Reason, u64> {
        let mut lost = BTreeMap::new();
        for (reason, count) in self.counters.iter().flat_map(|counters| counters.lost()) {
            *lost.entry(reason).or_default() += count;
        }
        lost
    }
}

/// All sinks of a run.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
}

impl Sinks {
    pub fn add(&mut self, sink: Sink) {
        self.sinks.push(sink);
    }

    /// Adds the sink, if there is one.
    pub fn extend(&mut self, sink: Option<Sink>) {
        self.sinks.extend(sink);
    }

    /// The run begins: nothing is wrong with what the user asks for, so that sinks may say what is wrong elsewhere.
    pub fn begin(&mut self) {
        for begin in self.sinks.iter_mut().filter_map(|sink| sink.begin.take()) {
            // A thread that is gone has said why.
            let _ = begin.send(());
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sinks.len()
    }

    /// So many hops wait in all queues together at most, from now on; but some in each. Returns how many may.
    pub fn hold_at_most(&self, hops: usize) -> usize {
        let each = (hops / self.sinks.len().max(1)).max(LEAST_QUEUED);
        let bounds = self.sinks.iter().map(|sink| {
            sink.sender.counters().hold_at_most(each);
            sink.sender.counters().bound()
        });
        bounds.sum()
    }

    /// What they may hold beside their queues.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sinks.iter().map(|sink| sink.bytes).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    #[must_use]
    pub fn senders(&self) -> Senders {
        Senders { senders: self.sinks.iter().map(|sink| sink.sender.clone()).collect() }
    }

    #[must_use]
    pub fn losses(&self) -> SinkLosses {
        SinkLosses { counters: self.sinks.iter().map(|sink| Arc::clone(sink.sender.counters())).collect() }
    }

    /// Flushes all sinks, network sinks within `limit`, and tells what was lost by reason. Every [`Senders`] must be dropped
    /// before, or the sinks wait for more. Who is `patient` waits for as long as standard output takes (a pager).
    ///
    /// # Errors
    /// The first sink's that failed for good.
    pub fn finish(self, limit: Duration, patient: bool) -> (BTreeMap<Reason, u64>, Result<(), ExportError>) {
        let losses = self.losses();
        let mut end = Ok(());
        for Sink { sender, thread, limit: sent, .. } in self.sinks {
            if let Some(sent) = sent {
                // The thread may have ended already, then there is nothing to limit.
                let _ = sent.send(limit);
            }
            let counters = sender.close();
            let deadline = Instant::now() + limit + GRACE;
            while !patient && !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            if !patient && !thread.is_finished() {
                // Nobody reads what it writes (a paused pager, a full pipe). The thread ends with the process.
                tracing::warn!("what waits to be written is given up");
                counters.give_up();
                continue;
            }
            match thread.join() {
                Ok(result) => end = end.and(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (losses.so_far(), end)
    }
}

#[cfg(test)]
mod collector;
#[cfg(test)]
mod samples;
