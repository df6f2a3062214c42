//! Verbs: one file each. `main` parses, runs the verb and turns its end into an exit code.

mod completions;
mod doctor;
pub mod environment;
mod explain;
mod failure;
mod file;
mod live;
mod look;
mod man;
mod monitor;
mod named;
mod observe;
mod own_limit;
mod pipeline;
mod replay;
mod run;
mod searched;
mod signals;
mod summary_file;
mod tls;
mod values;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::Failure;

/// See Kafka messages from the kernel as distributed traces
#[derive(Debug, Parser)]
#[command(name = "ktrace", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(after_help = "KTRACE_LOG=info shows the agent's own log; NO_COLOR=1 turns colours off")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch this host and export spans
    Run(run::Args),
    /// Watch this host and print messages as they pass
    Observe(observe::Args),
    /// Read capture files instead of a live host; needs no privilege
    Replay(replay::Args),
    /// Say what ktrace can do on this host, what it cannot, and what to do about that
    Doctor(doctor::Args),
    /// Say what a reason of the summary, of metrics or of a message means, and what to do about it
    Explain(explain::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man,
}

/// The whole program: exit code 0 done, 1 failed, 2 usage, 3 this host cannot capture.
#[must_use]
pub fn main() -> ExitCode {
    environment::forget_empty();
    let end = parse(std::env::args_os().collect()).and_then(|cli| {
        if cli.verb.reads_environment() {
            environment::check(std::env::vars_os(), &Cli::command())?;
        }
        match cli.verb {
            Verb::Run(args) => run::run(args),
            Verb::Observe(args) => observe::run(args),
            Verb::Replay(args) => replay::run(args),
            Verb::Doctor(args) => doctor::run(&args),
            Verb::Explain(args) => explain::run(&args),
            Verb::Completions(args) => completions::run(&args),
            Verb::Man => man::run(),
        }
    });
    match end {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Twice where a configuration file is given: its values become the defaults of the second time, so that every option is defined
/// once, and flags and environment beat the file.
fn parse(args: Vec<OsString>) -> Result<Cli, Failure> {
    let matches = Cli::command().try_get_matches_from(&args).map_err(|error| usage(&error, &args, None))?;
    let cli = from_matches(&matches, &args)?;
    let Some(path) = cli.verb.config() else { return Ok(cli) };
    let command = file::with_defaults(Cli::command(), path)?;
    let matches = command.try_get_matches_from(&args).map_err(|error| usage(&error, &args, Some(path)))?;
    from_matches(&matches, &args)
}

fn from_matches(matches: &clap::ArgMatches, args: &[OsString]) -> Result<Cli, Failure> {
    Cli::from_arg_matches(matches).map_err(|error| usage(&error, args, None))
}

impl Verb {
    fn reads_environment(&self) -> bool {
        !matches!(self, Self::Explain(_) | Self::Completions(_) | Self::Man)
    }

    fn config(&self) -> Option<&Path> {
        match self {
            Self::Run(args) => args.pipeline.config.as_deref(),
            Self::Observe(args) => args.pipeline.config.as_deref(),
            Self::Replay(args) => args.pipeline.config.as_deref(),
            Self::Doctor(_) | Self::Explain(_) | Self::Completions(_) | Self::Man => None,
        }
    }
}

/// Help and version are printed and exit 0; anything else becomes one line and a hint. `file`: the configuration file whose values
/// were the only change since the arguments alone were well.
fn usage(error: &clap::Error, args: &[OsString], file: Option<&Path>) -> Failure {
    if !error.use_stderr() {
        return match Failure::of_printing(error.print()) {
            Ok(code) => Failure::Quiet(code),
            Err(failure) => failure,
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Failure::Quiet(ExitCode::from(2));
    }
    let text = error.render().to_string();
    let said: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let said = said.join(" ");
    let mut what = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
    if let Some(file) = file {
        what = format!("{}: {what}", file.display());
    }
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let advice = match tip.filter(|tip| tip.contains("similar")) {
        Some(tip) => tip.to_owned(),
        None => {
            let verb = args.get(1).and_then(|verb| verb.to_str()).unwrap_or_default();
            let known = Cli::command().get_subcommands().any(|known| known.get_name() == verb);
            format!("see ktrace {}--help", if known { format!("{verb} ") } else { String::new() })
        }
    };
    Failure::Usage { what, advice }
}
