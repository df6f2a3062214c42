//! Printing spans to standard output, in any of the formats made for it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;

use super::format::Format;
use super::queue::{Counters, Receiver, queue};
use super::reader::Gone;
use super::{ExportError, Sink, WhenFull, json, otlp_json, text};
use crate::hop::Hops;
use crate::privilege;

/// Spans that wait to be printed: how far a terminal or a slow pipe may fall behind.
pub(super) const QUEUE: usize = 16_384;
/// Spans that are printed without waiting for more. They fit into the processor's cache.
pub(super) const ENOUGH: usize = 1024;
/// How long a span waits to be printed together with others: too short to be noticed, long compared
/// with the time it takes to wake a thread.
pub(super) const TOGETHER: Duration = Duration::from_millis(5);

/// What spans are printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// One line a message, for people
    #[default]
    Text,
    /// One span a line, for jq
    Json,
    /// OTLP JSON lines, as the Collector's file exporter writes them
    Otlp,
}

impl Output {
    /// The format's writer; only text is `coloured`.
    #[must_use]
    pub fn format(self, coloured: bool) -> Box<dyn Format> {
        match self {
            Self::Text => Box::new(text::Text::new(jiff::tz::TimeZone::system(), coloured)),
            Self::Json => Box::new(json::Json),
            Self::Otlp => Box::new(otlp_json::OtlpJson::from_environment()),
        }
    }
}

/// Starts printing to standard output. When its reader has gone (`| head`), `stop` is set and the
/// sink ends with [`ExportError::Closed`].
///
/// # Errors
/// [`ExportError::Thread`].
pub fn print(output: Output, when_full: WhenFull, stop: Arc<AtomicBool>) -> Result<Sink, ExportError> {
    let gone = Gone::watch(Arc::clone(&stop))?;
    // Standard output has a buffer of its own, which passes larger writes through.
    start(output.format(coloured()), Box::new(io::stdout()), when_full, stop, gone)
}

/// Whether standard output is to be coloured.
pub(super) fn coloured() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

fn start(
    mut format: Box<dyn Format>,
    mut to: Box<dyn Write + Send>,
    when_full: WhenFull,
    stop: Arc<AtomicBool>,
    gone: Gone,
) -> Result<Sink, ExportError> {
    let (sender, mut queued, counters) = queue("print", QUEUE, when_full);
    let runtime = Builder::new_current_thread().enable_time().build().map_err(ExportError::Thread)?;
    let run = move || {
        privilege::shed();
        let (mut hops, mut bytes) = (Hops::default(), Vec::new());
        while runtime.block_on(queued.take(&mut hops, ENOUGH, TOGETHER)) {
            let mut left = hops.len();
            let mut print = || {
                let mut spans = hops.spans();
                while left > 0 {
                    bytes.clear();
                    format.write(&mut spans, &mut bytes);
                    to.write_all(&bytes)?;
                    let printed = left.saturating_sub(spans.len());
                    left = spans.len();
                    queued.begin(printed);
                    counters.deliver(printed);
                }
                to.flush()
            };
            if let Err(error) = print() {
                stop.store(true, Ordering::Relaxed);
                return ended(error, &counters, left, &queued);
            }
        }
        gone.check()
    };
    let thread = std::thread::Builder::new()
        .name("ktrace-print".to_owned())
        .spawn(run)
        .map_err(ExportError::Thread)?;
    Ok(Sink { sender, thread, limit: None, begin: None, bytes: 0 })
}

/// A reader that went away has seen what it wanted: those spans are not lost.
pub(super) fn ended(
    error: io::Error,
    counters: &Counters,
    unwritten: usize,
    queued: &Receiver,
) -> Result<(), ExportError> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Err(ExportError::Closed);
    }
    counters.fail(unwritten + queued.end());
    Err(ExportError::Write(error))
}

#[cfg(test)]
mod tests {
    use super::super::Sinks;
    use super::*;
    use crate::hop::samples;

    /// Fails after the first write.
    struct Closing(io::ErrorKind, bool);

    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.1, true) { Err(self.0.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing, and never comes back: a paused pager.
    struct Paused;

    impl Write for Paused {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_pauses_does_not_keep_a_live_run() {
        let stop = Arc::new(AtomicBool::new(false));
        let sink =
            start(Box::new(json::Json), Box::new(Paused), WhenFull::Drop, stop, Gone::default()).unwrap();
        let mut sinks = Sinks::default();
        sinks.add(sink);
        let senders = sinks.senders();
        senders.send(samples::sent());
        drop(senders);
        let (lost, end) = sinks.finish(Duration::from_millis(10), false);
        assert!(end.is_ok() && lost["export_failed"] == 1, "{lost:?} {end:?}");
    }

    fn print_until(kind: io::ErrorKind) -> Result<(), ExportError> {
        let stop = Arc::new(AtomicBool::new(false));
        let to = Box::new(Closing(kind, false));
        let sink =
            start(Box::new(json::Json), to, WhenFull::Wait, Arc::clone(&stop), Gone::default()).unwrap();
        let mut sinks = Sinks::default();
        sinks.add(sink);
        let senders = sinks.senders();
        while !stop.load(Ordering::Relaxed) {
            senders.send(samples::sent());
        }
        senders.send(samples::sent());
        drop(senders);
        sinks.finish(Duration::from_secs(1), true).1
    }

    #[test]
    fn a_closed_pipe_stops_the_run_and_is_told_apart() {
        assert!(matches!(print_until(io::ErrorKind::BrokenPipe), Err(ExportError::Closed)));
        assert!(matches!(print_until(io::ErrorKind::StorageFull), Err(ExportError::Write(_))));
    }
}
