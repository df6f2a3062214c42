//! `ktrace completions SHELL`: the completion script of a shell, from the definition of the flags.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell whose script is printed
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ktrace", &mut script);
    Failure::of_printing(std::io::stdout().lock().write_all(&script))
}
