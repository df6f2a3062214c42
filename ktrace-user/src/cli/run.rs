//! `ktrace run`: watch this host and export spans. What the DaemonSet runs.

use std::process::ExitCode;

use super::pipeline::{Live, Pipeline, Told};
use super::{Failure, live, signals};
use crate::export::{Metrics, Sinks, WhenFull, otlp};

/// Spans go to --otlp, or where OpenTelemetry's standard environment says (OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL, _HEADERS,
/// _TIMEOUT, _COMPRESSION, _CERTIFICATE, OTEL_BSP_*, OTEL_RESOURCE_ATTRIBUTES), or to http://localhost:4317. Metrics of ktrace
/// itself go there too, once a minute (OTEL_METRIC_EXPORT_INTERVAL), unless OTEL_METRICS_EXPORTER=none.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    told: Told,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    args.pipeline.selection()?;
    args.pipeline.harden();
    let stop = signals::stop()?;
    let memory = args.live.memory();
    let export = args.pipeline.export();
    let mut sinks = Sinks::default();
    let metrics = Metrics::new(&export)?;
    sinks.extend(otlp(&export, WhenFull::Drop)?);
    let live = (args.live, memory.as_ref());
    live::watch(live, &args.pipeline, &args.told, sinks, metrics, &stop, |_| {})?;
    Ok(ExitCode::SUCCESS)
}
