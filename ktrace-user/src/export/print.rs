//! Printing spans to standard output, in any of the formats made for it.

use std::io::{self, BufWriter, IsTerminal, LineWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::format::Format;
use super::queue::{Counters, queue};
use super::{ExportError, Sink, WhenFull, json, otlp_json, text};

/// Spans that wait to be printed. A terminal or a slow pipe gets this much patience; at some 1 KiB a span, 16 MiB.
const QUEUE: usize = 16_384;
/// So many spans at most are taken from the queue at once, and share a line of OTLP JSON.
const BATCH: usize = 512;

/// What spans are printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// One line a message, for eyes
    #[default]
    Text,
    /// One span a line, for jq
    Json,
    /// OTLP JSON lines, as the Collector's file exporter writes them
    Otlp,
}

/// Starts printing to standard output. When nobody reads it any more (`| head`), `stop` is set and the sink ends with [`ExportError::Closed`].
///
/// # Errors
/// [`ExportError::Thread`].
pub fn print(output: Output, when_full: WhenFull, stop: Arc<AtomicBool>) -> Result<Sink, ExportError> {
    let stdout = io::stdout();
    let format: Box<dyn Format> = match output {
        Output::Text => {
            let colours = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
            Box::new(text::Text::new(jiff::tz::TimeZone::system(), colours))
        }
        Output::Json => Box::new(json::Json),
        Output::Otlp => Box::new(otlp_json::OtlpJson::from_environment()),
    };
    let to: Box<dyn Write + Send> = if stdout.is_terminal() {
        Box::new(LineWriter::new(stdout))
    } else {
        Box::new(BufWriter::with_capacity(64 << 10, stdout))
    };
    start(format, to, when_full, stop)
}

fn start(
    mut format: Box<dyn Format>,
    mut to: Box<dyn Write + Send>,
    when_full: WhenFull,
    stop: Arc<AtomicBool>,
) -> Result<Sink, ExportError> {
    let (sender, mut spans, counters) = queue("print", QUEUE, when_full);
    let run = move || {
        let mut batch = Vec::with_capacity(BATCH);
        let mut bytes = Vec::new();
        while spans.blocking_recv_many(&mut batch, BATCH) > 0 {
            format.write(&batch, &mut bytes);
            let mut written = to.write_all(&bytes);
            // Nothing more for now: what is there must not wait for more.
            if spans.is_empty() {
                written = written.and_then(|()| to.flush());
            }
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                return ended(error, &counters, batch.len());
            }
            counters.deliver(batch.len());
            batch.clear();
            bytes.clear();
        }
        to.flush().or_else(|error| ended(error, &counters, 0))
    };
    let thread = std::thread::Builder::new()
        .name("ktrace-print".to_owned())
        .spawn(run)
        .map_err(ExportError::Thread)?;
    Ok(Sink { sender, thread, limit: None })
}

/// A reader that went away has seen what it wanted: those spans are not lost.
fn ended(error: io::Error, counters: &Counters, unwritten: usize) -> Result<(), ExportError> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Err(ExportError::Closed);
    }
    counters.fail(unwritten);
    Err(ExportError::Write(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Sinks, samples};
    use super::*;

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
        let sink = start(Box::new(json::Json), Box::new(Paused), WhenFull::Drop, stop).unwrap();
        let mut sinks = Sinks::default();
        sinks.add(sink);
        let spans = sinks.spans();
        spans.send(samples::send());
        drop(spans);
        let (lost, end) = sinks.finish(Duration::from_millis(10), false);
        assert!(end.is_ok() && lost["export_failed"] == 1, "{lost:?} {end:?}");
    }

    fn print_until(kind: io::ErrorKind) -> Result<(), ExportError> {
        let stop = Arc::new(AtomicBool::new(false));
        let to = Box::new(Closing(kind, false));
        let sink = start(Box::new(json::Json), to, WhenFull::Wait, Arc::clone(&stop)).unwrap();
        let mut sinks = Sinks::default();
        sinks.add(sink);
        let spans = sinks.spans();
        while !stop.load(Ordering::Relaxed) {
            spans.send(samples::send());
        }
        spans.send(samples::send());
        drop(spans);
        sinks.finish(Duration::from_secs(1), true).1
    }

    #[test]
    fn a_closed_pipe_stops_the_run_and_is_told_apart() {
        assert!(matches!(print_until(io::ErrorKind::BrokenPipe), Err(ExportError::Closed)));
        assert!(matches!(print_until(io::ErrorKind::StorageFull), Err(ExportError::Write(_))));
    }
}
