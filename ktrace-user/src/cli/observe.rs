//! `ktrace observe`: watch this host and print messages as they pass. Needs no backend.

use std::process::ExitCode;
use std::sync::Arc;

use super::pipeline::{Live, Pipeline, Printed, Told};
use super::{Failure, live, signals};
use crate::export::{Metrics, Sinks, WhenFull, otlp, print};

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
    sinks.add(print(args.printed.output, WhenFull::Drop, Arc::clone(&stop))?);
    let mut metrics = None;
    if args.pipeline.otlp.is_some() {
        let export = args.pipeline.export();
        sinks.add(otlp(&export, WhenFull::Drop)?);
        metrics = Metrics::new(&export)?;
    }
    live::watch(args.live, &args.pipeline, &args.told, sinks, metrics, &stop)?;
    Ok(ExitCode::SUCCESS)
}
