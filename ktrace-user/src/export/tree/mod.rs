//! Traces as trees on standard output, each when it has been quiet for some seconds.

mod draw;
mod traces;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use tokio::runtime::Builder;
use tokio::time::timeout;

use self::traces::{Shown, Traces};
use super::print::{ENOUGH, QUEUE, TOGETHER, coloured, ended};
use super::queue::{Counters, Receiver, queue};
use super::reader::Gone;
use super::text::Text;
use super::{ExportError, Sink, WhenFull};
use crate::hop::{Hop, Hops, shown};
use crate::privilege;

/// How often quiet traces are looked for while nothing passes.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes that are gathered before they are written.
const CHUNK: usize = 64 << 10;

/// Starts printing trees to standard output. When its reader has gone, `stop` is set and the sink
/// ends with [`ExportError::Closed`]. It takes a quarter of the agent's memory limit at most.
///
/// # Errors
/// [`ExportError::Thread`].
pub fn tree(
    when_full: WhenFull,
    stop: Arc<AtomicBool>,
    memory_limit: Option<usize>,
) -> Result<Sink, ExportError> {
    let text = Text::new(TimeZone::system(), false);
    let mut trees = Trees::new(text, coloured());
    if let Some(limit) = memory_limit {
        trees.traces.hold_at_most(limit / 4);
    }
    let gone = Gone::watch(Arc::clone(&stop))?;
    start(trees, Box::new(io::stdout()), when_full, stop, gone)
}

fn start(
    mut trees: Trees,
    mut to: Box<dyn Write + Send>,
    when_full: WhenFull,
    stop: Arc<AtomicBool>,
    gone: Gone,
) -> Result<Sink, ExportError> {
    let (sender, mut queued, counters) = queue("tree", QUEUE, when_full);
    let runtime = Builder::new_current_thread().enable_time().build().map_err(ExportError::Thread)?;
    let bytes = trees.traces.most_bytes();
    let run = move || {
        privilege::shed();
        let mut hops = Hops::default();
        loop {
            let took =
                runtime.block_on(async { timeout(LOOK, queued.take(&mut hops, ENOUGH, TOGETHER)).await });
            let end = took == Ok(false);
            let mut added = hops.iter().try_for_each(|hop| trees.add(hop.to_hop(), &mut to, &counters));
            queued.begin(hops.len());
            // A sink that producers wait for prints capture files, whose time is another.
            if when_full == WhenFull::Drop
                && let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH)
            {
                trees.traces.advance(now.as_nanos().try_into().unwrap_or(u64::MAX));
            }
            added = added.and_then(|()| trees.draw(end, &mut to, &counters));
            if let Err(error) = added.and_then(|()| trees.write(&mut to, &counters)) {
                stop.store(true, Ordering::Relaxed);
                return failed(error, &counters, &queued);
            }
            if end {
                return gone.check();
            }
        }
    };
    let thread =
        std::thread::Builder::new().name("ktrace-tree".to_owned()).spawn(run).map_err(ExportError::Thread)?;
    Ok(Sink { sender, thread, limit: None, begin: None, bytes })
}

/// Spans that were gathered and not printed are lost, like those left in the queue.
fn failed(error: io::Error, counters: &Counters, queued: &Receiver) -> Result<(), ExportError> {
    let untaken = u64::try_from(queued.end()).unwrap_or(u64::MAX);
    let gathered = usize::try_from(counters.waiting().saturating_sub(untaken)).unwrap_or(usize::MAX);
    ended(error, counters, gathered, queued)
}

struct Trees {
    traces: Traces,
    /// For its times.
    text: Text,
    colours: bool,
    /// The bytes to write, and how many spans are in them.
    out: String,
    spans: usize,
}

impl Trees {
    fn new(text: Text, colours: bool) -> Self {
        Self { traces: Traces::default(), text, colours, out: String::new(), spans: 0 }
    }

    /// Traces that were quiet before this hop are drawn before it, so that the output does not
    /// depend on how many hops come at once.
    fn add(&mut self, hop: Hop, to: &mut dyn Write, counters: &Counters) -> io::Result<()> {
        self.traces.advance(hop.passage.end_ns);
        self.draw(false, to, counters)?;
        self.traces.add(hop);
        Ok(())
    }

    /// Draws traces that are quiet, all of them at the `end`.
    fn draw(&mut self, end: bool, to: &mut dyn Write, counters: &Counters) -> io::Result<()> {
        while let Some(Shown { id, hops, cut }) = self.traces.next(end) {
            if cut {
                counters.cut_trace();
            }
            self.spans += hops.len();
            let begin_ns = hops.iter().map(|hop| hop.passage.start_ns).min().unwrap_or_default();
            let time = self.text.time(begin_ns);
            let topics: Vec<_> = hops.iter().map(|hop| shown(&hop.topic)).collect();
            let mut spans: Vec<_> = hops.iter().zip(&topics).map(|(hop, topic)| hop.span(topic)).collect();
            draw::draw(&mut self.out, id, &mut spans, &time, self.colours);
            if self.out.len() >= CHUNK {
                self.write(to, counters)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, to: &mut dyn Write, counters: &Counters) -> io::Result<()> {
        to.write_all(self.out.as_bytes())?;
        to.flush()?;
        self.out.clear();
        counters.deliver(std::mem::take(&mut self.spans));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sinks;
    use super::*;
    use crate::hop::samples;

    /// Takes nothing.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_gathered_and_cannot_be_written_is_counted() {
        let stop = Arc::new(AtomicBool::new(false));
        let trees = Trees::new(Text::new(TimeZone::UTC, false), false);
        let mut sinks = Sinks::default();
        sinks.add(start(trees, Box::new(Full), WhenFull::Wait, Arc::clone(&stop), Gone::default()).unwrap());
        let senders = sinks.senders();
        senders.send(samples::sent());
        senders.send(samples::sent());
        drop(senders);
        let (lost, end) = sinks.finish(Duration::from_secs(1), true);
        assert!(matches!(end, Err(ExportError::Write(_))) && stop.load(Ordering::Relaxed));
        assert_eq!(lost["export_failed"], 2);
    }
}
