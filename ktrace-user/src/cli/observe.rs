//! `ktrace observe`: watch this host and print messages as they pass. Needs no backend.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ArgAction;
use clap::builder::BoolishValueParser;

use super::pipeline::{Live, Pipeline, Printed, Told};
use super::{Failure, live, signals};
use crate::export::top::top;
use crate::export::{Metrics, Output, Sinks, WhenFull, otlp};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    screen: FullScreen,
    #[command(flatten)]
    told: Told,
}

/// What only a terminal shows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct FullScreen {
    /// Show topics, groups and services with rates, latencies and lag on a full screen, instead of messages; q quits
    #[arg(long, env = "KTRACE_TOP", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_default_value = true)]
    top: bool,
}

impl FullScreen {
    fn check(&self, printed: &Printed) -> Result<(), Failure> {
        let usage = |what: &str, advice: &str| {
            Err(Failure::Usage { what: what.to_owned(), advice: advice.to_owned() })
        };
        if printed.tree || printed.output != Output::Text {
            return usage("--top shows tables, and no messages", "leave out --top, or --tree and --output");
        }
        if !std::io::stdout().is_terminal() {
            return usage("--top needs a terminal, and standard output is none", "see ktrace observe --help");
        }
        Ok(())
    }
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    args.pipeline.selection()?;
    if args.screen.top {
        args.screen.check(&args.printed)?;
    }
    args.pipeline.harden();
    let stop = signals::stop()?;
    let memory = args.live.memory();
    let mut sinks = Sinks::default();
    let (mut metrics, mut screen) = (None, None);
    if args.screen.top {
        let (sink, begin) = top(Arc::clone(&stop))?;
        sinks.add(sink);
        screen = Some(begin);
    } else {
        sinks.add(args.printed.sink(WhenFull::Drop, &stop, memory.as_ref().map(|memory| memory.bytes))?);
    }
    if args.pipeline.otlp.is_some() {
        let export = args.pipeline.export();
        sinks.extend(otlp(&export, WhenFull::Drop)?);
        metrics = Metrics::new(&export)?;
    }
    live::watch((args.live, memory.as_ref()), &args.pipeline, &args.told, sinks, metrics, &stop, |tells| {
        if let Some(screen) = screen {
            screen.begin(tells);
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
