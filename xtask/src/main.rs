//! Developer verbs, called by `./dev`, which has installed what they need.

mod demo;
mod setup;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "ktrace's developer verbs")]
enum Verb {
    /// Download and build, once, what a verb of `./dev` runs
    Setup {
        #[arg(long = "for", value_enum)]
        purpose: setup::Purpose,
    },
    /// Show what ktrace does: a broker, clients in three languages, and the traces that join them
    Demo {
        /// Leave the broker running afterwards
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Setup { purpose } => setup::setup(purpose),
        Verb::Demo { keep } => demo::demo(keep),
    }
}
