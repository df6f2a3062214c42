//! `ktrace observe`: watch this host and print messages as they pass. Needs no backend.

use std::process::ExitCode;

use super::pipeline::{Live, Pipeline, Printed, Told};
use super::{Failure, live, signals};
use crate::export::{Sinks, WhenFull, otlp};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    told: Told,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    args.pipeline.filter()?;
    let stop = signals::stop()?;
    let mut sinks = Sinks::default();
    sinks.add(args.printed.sink(WhenFull::Drop, &stop)?);
    if args.pipeline.otlp.is_some() {
        sinks.add(otlp(&args.pipeline.export(), WhenFull::Drop)?);
    }
    live::watch(args.live, &args.pipeline, &args.told, sinks, &stop)?;
    Ok(ExitCode::SUCCESS)
}
