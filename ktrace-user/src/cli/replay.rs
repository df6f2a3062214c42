//! `ktrace replay`: the pipeline on capture files. Needs no privilege.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ktrace_tls::keylog::KeyLog;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::live::{FLUSH, worker};
use super::pipeline::{Pipeline, Printed, SummaryArgs};
use super::{Failure, signals};
use crate::capture::PortSet;
use crate::capture::file::{CaptureFile, Connections, FileCounters, FileError};
use crate::export::{ExportError, Sinks, WhenFull, otlp};
use crate::keys::log_file::{self, KeyLogError, SharedKeyLog, losses};
use crate::losses::Reason;
use crate::privilege;
use crate::summary::Summary;
use crate::worker::WorkerOptions;

/// How long sinks may take to deliver what they hold at the end of the last file. Longer than for
/// the agent: no supervisor waits to kill a replay.
const DELIVERY: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture files (pcap or pcapng, plain or gzipped), read in this order as one capture; - is
    /// standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read TLS connections with the secrets of this key log, as programs write it where
    /// SSLKEYLOGFILE names it. Secrets within pcapng files are used without it
    #[arg(long, value_name = "FILE", env = "KTRACE_TLS_KEYLOG")]
    tls_keylog: Option<PathBuf>,
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    summary: SummaryArgs,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let selection = args.pipeline.selection()?;
    args.pipeline.harden();
    let stop = signals::stop()?;
    let mut sinks = Sinks::default();
    sinks.add(args.printed.sink(WhenFull::Wait, &stop, None)?);
    if args.pipeline.otlp.is_some() {
        sinks.extend(otlp(&args.pipeline.export(), WhenFull::Wait)?);
    }
    let summary_file = args.summary.open()?;
    // Files come from others, and may be made to do harm. Some are readable to root alone.
    privilege::confine(&[privilege::DAC_READ_SEARCH], &[]);
    let key_log = SharedKeyLog::default();
    if let Some(path) = &args.tls_keylog {
        read_key_log(path, &key_log, &stop)?;
    }
    args.files.iter().for_each(|path| look_for_secrets(path, &key_log, &stop));
    let mut summary = Summary::default();
    // One worker for all: a connection goes on from one file of a rotated capture into the next.
    let shared = args.pipeline.shared();
    let options = WorkerOptions { key_log: Some(Arc::clone(&key_log)), ..args.pipeline.worker() };
    let mut worker = worker(&selection, options, &shared, &sinks)?;
    sinks.begin();
    let mut connections = Connections::new(args.pipeline.ports.clone());
    let mut end = Ok(());
    for path in &args.files {
        end = replay(path, &mut connections, &key_log, &stop, &mut summary, |event| worker.event(event));
        if stop.load(Ordering::Relaxed) {
            // The user asked for the end: that the input ends early is no error.
            end = Ok(());
            break;
        }
        if end.is_err() {
            break;
        }
    }
    let mut held = FileCounters::default();
    connections.finish(&mut held, |event| worker.event(event));
    summary.duplicate_packets += held.duplicates;
    summary.add(&worker.finish());
    summary.add_shared(&shared);
    summary.add_lost([(Reason::TraceForgotten, selection.forgotten())]);
    summary.add_lost(losses(&key_log));
    let stopped = stop.load(Ordering::Relaxed);
    let (lost, printed) = sinks.finish(if stopped { FLUSH } else { DELIVERY }, !stopped);
    summary.add_lost(lost);
    summary_file.write(&summary)?;
    if let Err(ExportError::Closed) = printed {
        // The reader has gone, so the summary would not be read either.
        return Ok(ExitCode::SUCCESS);
    }
    if end.is_ok() || summary.segments > 0 {
        eprintln!("{summary}");
    }
    end?;
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// Runs one file. What was read before an error has reached `each`.
fn replay(
    path: &Path,
    connections: &mut Connections,
    key_log: &SharedKeyLog,
    stop: &Arc<AtomicBool>,
    summary: &mut Summary,
    each: impl FnMut(crate::seen::Event<'_>),
) -> Result<(), FileError> {
    let name = path.display().to_string();
    let progress = ProgressBar::hidden();
    let failed = |source| FileError::Open { name: name.clone(), source };
    let mut file = if path == Path::new("-") {
        let name = "standard input".to_owned();
        let input = Input::standard(stop).map_err(|source| FileError::Open { name: name.clone(), source })?;
        CaptureFile::new(name, Box::new(input) as Box<dyn Read + Send>)?
    } else if std::fs::metadata(path).map_err(failed)?.file_type().is_fifo() {
        CaptureFile::new(name.clone(), Box::new(Input::named(path, stop).map_err(failed)?))?
    } else {
        let file = File::open(path).map_err(failed)?;
        show(&progress, &file);
        CaptureFile::new(name.clone(), Box::new(progress.wrap_read(file)))?
    };
    if !is_looked_through(path) {
        file = file.with_key_log(Arc::clone(key_log));
    }
    let end = file.run(connections, stop, each);
    progress.finish_and_clear();
    let counters = file.counters();
    summary.add_lost(counters.lost());
    summary.duplicate_packets += counters.duplicates;
    for (link, count) in file.link_types() {
        *summary.link_types.entry(link.clone()).or_default() += count;
    }
    end
}

/// All of a key log, before the first packet: a file, or what another program writes to a pipe.
fn read_key_log(path: &Path, key_log: &SharedKeyLog, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let open = || -> io::Result<Box<dyn Read>> {
        if std::fs::metadata(path)?.file_type().is_fifo() {
            return Ok(Box::new(Input::named(path, stop)?));
        }
        Ok(Box::new(File::open(path)?))
    };
    open().and_then(|input| log_file::read(input, key_log)).map_err(|source| {
        let error = KeyLogError::Read { path: path.to_owned(), source };
        Failure::Usage { what: error.to_string(), advice: error.advice().to_owned() }
    })?;
    if key_log.read(KeyLog::is_empty) && !stop.load(Ordering::Relaxed) {
        eprintln!("ktrace: the key log {} has no secrets of TLS connections", path.display());
    }
    Ok(())
}

/// Whether a capture file is looked through for secrets before its packets are read, as they may
/// stand behind these. That takes as long as it takes to read the file, so it is done up to a size.
fn is_looked_through(path: &Path) -> bool {
    const MOST_BYTES: u64 = 64 << 20;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES)
}

fn look_for_secrets(path: &Path, key_log: &SharedKeyLog, stop: &AtomicBool) {
    if !is_looked_through(path) {
        return;
    }
    // Errors are reported when the file's packets are read.
    if let Some(mut file) =
        CaptureFile::open(path).ok().and_then(|file| file.only_secrets(Arc::clone(key_log)))
    {
        let _ = file.run(&mut Connections::new(PortSet::default()), stop, |_| {});
    }
}

/// Shows a progress bar on standard error, if that is a terminal, messages are printed elsewhere,
/// and the file is long.
fn show(progress: &ProgressBar, file: &File) {
    const LONG: u64 = 16 << 20;
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    if len < LONG || !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return;
    }
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}") {
        progress.set_style(style);
    }
    progress.set_length(len);
    progress.set_draw_target(indicatif::ProgressDrawTarget::stderr());
}

/// Standard input or a named pipe. It may be of a live capture that is silent for a long time, so
/// reading ends when the run is to stop.
struct Input {
    pipe: File,
    stop: Arc<AtomicBool>,
}

impl Input {
    fn standard(stop: &Arc<AtomicBool>) -> io::Result<Self> {
        // Not `Stdin` itself: its buffer may hold bytes that `poll` does not know of.
        let pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { pipe, stop: Arc::clone(stop) })
    }

    /// Opens without waiting for a writer: `poll` waits, and ends with the run.
    fn named(path: &Path, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { pipe, stop: Arc::clone(stop) })
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        while !self.stop.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&LOOK_AGAIN)) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => match self.pipe.read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                },
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}
