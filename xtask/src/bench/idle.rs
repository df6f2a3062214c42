//! The agent where little happens: its share of a core without connections and with 10 000 that are
//! silent; then its memory while 500 of them are in use.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::agent::Agent;
use harness::collector::Collector;

use super::connections::{self, Busy};
use super::host;
use super::load::broker;
use super::losses::Losses;
use super::usage::Use;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Seconds instead of minutes: proves that it works
    #[arg(long)]
    quick: bool,
    /// Ten minutes of use instead of one
    #[arg(long)]
    full: bool,
    #[arg(long, default_value = "10000")]
    connections: usize,
    #[arg(long, default_value = "500")]
    busy: usize,
}

/// Exchanges a second of each connection that is in use.
const PER_SECOND: u32 = 4;

pub fn run(options: &Options, dir: &Path) -> Result<()> {
    let (idle, minute, minutes) = match (options.quick, options.full) {
        (true, _) => (Duration::from_secs(10), Duration::from_secs(5), 3),
        (_, true) => (Duration::from_secs(60), Duration::from_secs(60), 10),
        _ => (Duration::from_secs(60), Duration::from_secs(20), 3),
    };
    let broker = broker(dir)?;
    broker.create_topics(1, &["busy"])?;
    let collector = Collector::start(dir, None)?;
    let agent = Use::Sampled.start(dir, broker.port, &collector)?;
    // it looks for sockets of before
    sleep(Duration::from_secs(2));

    println!("| what | agent's CPU, % of a core | RSS, MB | its own (anonymous), MB |");
    println!("| --- | --- | --- | --- |");
    row("no connection", &agent, idle)?;
    let mut streams = connections::open(broker.port, options.connections)?;
    // all that it says about them is over
    sleep(Duration::from_secs(3));
    row(&format!("{} silent connections", streams.len()), &agent, idle)?;
    let used = streams.split_off(streams.len().saturating_sub(options.busy));
    let since = Instant::now();
    let busy = Busy::start(used, "busy", PER_SECOND);
    for number in 1..=minutes {
        row(&format!("{} of them in use, after {:?}", options.busy, minute * number), &agent, minute)?;
    }
    let rate = busy.exchanges() as f64 / since.elapsed().as_secs_f64();
    busy.stop()?;
    let summary = agent.stop_unread()?;
    let mut lost = Losses::default();
    lost.add(&summary);
    println!("\n{rate:.0} exchanges a second; lost: {}", lost);
    Ok(())
}

fn row(what: &str, agent: &Agent, time: Duration) -> Result<()> {
    let (since, before) = (Instant::now(), host::cpu_time(agent.pid())?);
    sleep(time);
    let used = host::cpu_time(agent.pid())?.saturating_sub(before);
    let share = 100.0 * used.as_secs_f64() / since.elapsed().as_secs_f64();
    let memory = host::memory(agent.pid())?;
    println!("| {what} | {share:.3} | {:.1} | {:.1} |", memory.all, memory.anonymous);
    Ok(())
}
