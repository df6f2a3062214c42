//! `ktrace replay`: the pipeline on capture files. Needs no privilege.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressStyle};

use super::live::{FLUSH, worker};
use super::pipeline::{Pipeline, Printed, Told};
use super::{Failure, signals};
use crate::capture::PortSet;
use crate::capture::file::{CaptureFile, FileError};
use crate::export::{ExportError, Sinks, WhenFull, otlp, print};
use crate::summary::Summary;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture files (pcap or pcapng, plain or gzipped), read in this order; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    told: Told,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    args.pipeline.filter()?;
    let stop = signals::stop()?;
    let mut sinks = Sinks::default();
    sinks.add(print(args.printed.output, WhenFull::Wait, Arc::clone(&stop))?);
    if args.pipeline.otlp.is_some() {
        sinks.add(otlp(&args.pipeline.export(), WhenFull::Wait)?);
    }
    let mut summary = Summary::default();
    let mut end = Ok(());
    for path in &args.files {
        // Each file has connections of its own, numbered anew, so each gets a worker of its own.
        let (mut worker, kept) = worker(&args.pipeline, &sinks)?;
        let read = replay(path, &args.pipeline.ports, &stop, &mut summary, |event| worker.event(event));
        summary.add(&worker.finish());
        summary.spans += kept.get();
        if read.is_err() {
            end = read;
            break;
        }
    }
    let (lost, printed) = sinks.finish(FLUSH);
    summary.add_lost(lost);
    args.told.tell(&summary)?;
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
    ports: &PortSet,
    stop: &AtomicBool,
    summary: &mut Summary,
    each: impl FnMut(crate::capture::Event<'_>),
) -> Result<(), FileError> {
    let name = path.display().to_string();
    let progress = ProgressBar::hidden();
    let mut file = if path == Path::new("-") {
        CaptureFile::new("standard input".to_owned(), io::stdin(), ports.clone())?
    } else {
        let file = File::open(path).map_err(|source| FileError::Open { name: name.clone(), source })?;
        show(&progress, &file);
        CaptureFile::new(name, Box::new(progress.wrap_read(file)) as Box<dyn Read + Send>, ports.clone())?
    };
    let end = file.run(stop, each);
    progress.finish_and_clear();
    summary.add_lost(file.counters().lost());
    end
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
