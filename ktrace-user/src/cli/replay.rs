//! `ktrace replay`: the pipeline on capture files. Needs no privilege.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ktrace_tls::keylog::KeyLog;

use super::live::{FLUSH, worker};
use super::pipeline::{Pipeline, Printed, Told};
use super::{Failure, signals};
use crate::capture::PortSet;
use crate::capture::file::{CaptureFile, Connections, FileCounters, FileError};
use crate::export::{ExportError, Sinks, WhenFull, otlp};
use crate::keys::log_file::{self, KeyLogError, SharedKeyLog, losses};
use crate::losses::Reason;
use crate::privilege;
use crate::summary::Summary;
use crate::worker::WorkerOptions;

/// What is held at the end of the last file has this long to reach its sinks. Nobody waits to kill a replay,
/// as with the agent.
const DELIVERY: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture files (pcap or pcapng, plain or gzipped), read in this order as one capture; - is standard
    /// input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read TLS connections with the secrets of this key log, as programs write it where SSLKEYLOGFILE names
    /// it. Secrets within pcapng files are used without it
    #[arg(long, value_name = "FILE", env = "KTRACE_TLS_KEYLOG")]
    tls_keylog: Option<PathBuf>,
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    told: Told,
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
    let told = args.told.open()?;
    // Files are another's, and may be made to do harm. They may also be readable to who is root alone.
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
        let sources = (&mut connections, &key_log);
        end = replay(path, sources, &stop, &mut summary, |event| worker.event(event));
        if stop.load(Ordering::Relaxed) {
            // That the input ends too early is what was asked for.
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
    told.write(&summary)?;
    if let Err(ExportError::Closed) = printed {
        // Who has gone wants no more words either.
        return Ok(ExitCode::SUCCESS);
    }
    if end.is_ok() || summary.segments > 0 {
        eprintln!("{summary}");
    }
    end?;
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// What was whole reaches `each` even where the end is an error.
fn replay(
    path: &Path,
    (connections, key_log): (&mut Connections, &SharedKeyLog),
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

/// Whether a capture file is looked through for secrets before its packets are read, as they may stand behind
/// these. That takes as long as it takes to read the file, so it is done up to a size.
fn is_looked_through(path: &Path) -> bool {
    const MOST_BYTES: u64 = 64 << 20;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES)
}

fn look_for_secrets(path: &Path, key_log: &SharedKeyLog, stop: &AtomicBool) {
    if !is_looked_through(path) {
        return;
    }
    // What is wrong with a file is said when its packets are read.
    if let Some(mut file) =
        CaptureFile::open(path).ok().and_then(|file| file.only_secrets(Arc::clone(key_log)))
    {
        let _ = file.run(&mut Connections::new(PortSet::default()), stop, |_| {});
    }
}

/// A bar on standard error, where that is a terminal and messages go elsewhere, once the file is a long one.
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

/// Standard input or a named pipe, which may be a live capture's that is silent for long: it ends when the
/// run is to stop.
struct Input {
    pipe: File,
    stop: Arc<AtomicBool>,
}

impl Input {
    fn standard(stop: &Arc<AtomicBool>) -> io::Result<Self> {
        // Not `Stdin` itself: its buffer may hold bytes of which `poll` knows nothing.
        let pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { pipe, stop: Arc::clone(stop) })
    }

    /// Without waiting for who writes: `poll` does that, and hears of the end.
    fn named(path: &Path, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { pipe, stop: Arc::clone(stop) })
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const LOOK_AGAIN_MS: i32 = 100;
        while !self.stop.load(Ordering::Relaxed) {
            let mut waiting = libc::pollfd { fd: self.pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `waiting` is one pollfd, alive and exclusively borrowed for the call, and its
            // descriptor is open.
            let ready = unsafe { libc::poll(&raw mut waiting, 1, LOOK_AGAIN_MS) };
            if ready > 0 {
                match self.pipe.read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    read => return read,
                }
            }
            if ready == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let error = io::Error::last_os_error();
            if ready < 0 && error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(0)
    }
}
