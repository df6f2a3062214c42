//! `./dev bench NAME`: what a traced host pays. Each measurement prints a table in Markdown to
//! standard output, and how far it is to standard error.
//!
//! All run on two cores, whatever the host has, the agent and what it watches together; and in
//! memory, as a disk would make everything wait and so hide what the agent takes.

mod bystanders;
mod clients;
mod connections;
mod host;
mod idle;
mod latency;
mod load;
mod losses;
mod overhead;
mod soak;
mod statistics;
mod usage;

use std::path::Path;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent;
use harness::scratch::Scratch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// Throughput of producers and consumers without and with the agent; the agent's CPU and the
    /// kernel's for it
    Overhead(overhead::Options),
    /// Produce latency at half load, without and with the agent
    Latency(latency::Options),
    /// The agent's CPU where nothing happens, with and without open connections, and its memory
    /// with 10 000 of them
    Idle(idle::Options),
    /// Round trips of sockets that are not Kafka's, without and with the agent
    Bystanders(bystanders::Options),
    /// The agent's memory and losses over an hour of load
    Soak(soak::Options),
}

pub fn bench(what: &Bench) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "needs root");
    ensure!(agent::binary().exists(), "no agent at {}: build it", agent::binary().display());
    two_cores()?;
    many_files()?;
    let scratch = Scratch::in_memory()?;
    remove_when_interrupted(scratch.path())?;
    match what {
        Bench::Overhead(options) => overhead::run(options, scratch.path()),
        Bench::Latency(options) => latency::run(options, scratch.path()),
        Bench::Idle(options) => idle::run(options, scratch.path()),
        Bench::Bystanders(options) => bystanders::run(options, scratch.path()),
        Bench::Soak(options) => soak::run(options, scratch.path()),
    }
}

/// This process and all that it starts.
fn two_cores() -> Result<()> {
    let mine = sched_getaffinity(None)?;
    let mut two = CpuSet::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| mine.is_set(*cpu)).take(2) {
        two.set(cpu);
    }
    Ok(sched_setaffinity(None, &two)?)
}

/// As many as this process may have, for it and all that it starts: the idle bench opens 10 000
/// connections.
fn many_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")
}

/// On SIGINT and SIGTERM the children end with this process; only their directory has to be
/// removed.
fn remove_when_interrupted(dir: &Path) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let dir = dir.to_owned();
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // the children may still be writing, and end only with this process: what they add is little
            let _ = std::fs::remove_dir_all(&dir);
            sleep(Duration::from_millis(100));
            let _ = std::fs::remove_dir_all(&dir);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
