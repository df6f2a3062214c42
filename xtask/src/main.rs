//! Developer verbs, called by `./dev`, which has installed what they need.

mod apt;
mod arch;
mod bench;
mod bench_replay;
mod check;
mod compatibility;
mod demo;
mod goldens;
mod release_build;
mod setup;
mod vm;

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
    /// Build the agent as it is released, also for another processor, and print its path
    Build(release_build::Options),
    /// Check what the compiler does not: imports, links, words
    #[command(subcommand)]
    Check(check::Check),
    /// Show what ktrace does: a broker, clients in three languages, and the traces that join them
    Demo {
        /// Leave the broker running afterwards
        #[arg(long)]
        keep: bool,
    },
    /// Measure what a traced host pays
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Replay a capture of real traffic beside tshark
    BenchReplay,
    /// Record what real clients and brokers say, and what the clients know about it, for
    /// ktrace-kafka's golden test
    RecordGoldens {
        /// Such as `4.3.0/java`; all if none is given
        names: Vec<String>,
    },
    /// Run every client with every codec in every mode on each broker, and write into
    /// docs/compatibility.md what was seen
    Compatibility,
    /// Boot Debian's kernels in emulation, and test on each that every byte is captured
    Vm(vm::Options),
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Setup { purpose } => setup::setup(purpose),
        Verb::Build(options) => release_build::agent(&options),
        Verb::Check(what) => check::check(&what),
        Verb::Demo { keep } => demo::demo(keep),
        Verb::Bench(what) => bench::bench(&what),
        Verb::BenchReplay => bench_replay::bench(),
        Verb::RecordGoldens { names } => goldens::record(&names),
        Verb::Compatibility => compatibility::write(),
        Verb::Vm(options) => vm::vm(&options),
    }
}
