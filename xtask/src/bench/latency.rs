//! How long a producer at half of what it could send waits for its acknowledgements, without and
//! with the agent.
//!
//! One producer runs all the while, so that both see the same compiled code, the same heap and the
//! same connection.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::collector::Collector;
use harness::process::Process;

use super::clients::{Batch, java, java_producer};
use super::load::broker;
use super::losses::Losses;
use super::statistics::Sample;
use super::usage::Use;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Three short pairs: proves that it works
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    pairs: Option<usize>,
    /// Bytes of a record
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    record: Vec<u32>,
    #[arg(long, default_value = "none")]
    codec: String,
    #[arg(long = "use", value_enum, value_delimiter = ',')]
    uses: Option<Vec<Use>>,
}

pub fn run(options: &Options, dir: &Path) -> Result<()> {
    let pairs = options.pairs.unwrap_or(if options.quick { 3 } else { 10 });
    let phase = Duration::from_secs(if options.quick { 2 } else { 5 });
    let uses = options.uses.clone().unwrap_or(Use::ALL.to_vec());
    let collector = Collector::start(dir, None)?;
    let broker = broker(dir)?;
    broker.create_topics(1, &["full", "half"])?;

    println!(
        "| records | codec | messages/s | untraced p50, p99 in ms | agent | p50, ratio of {pairs} pairs | p99, ratio of {pairs} pairs | lost |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for &record in &options.record {
        let full = |count| {
            let what = Batch { topic: "full", codec: &options.codec, record, count };
            java_producer(dir, &broker.bootstrap(), what)
        };
        // once for the broker's sake
        full((60_000_000 / u64::from(record)).min(400_000))?;
        let rate = (full((120_000_000 / u64::from(record)).min(800_000))? / 2.0) as u64;
        eprintln!("{record} B: {rate} messages a second");
        let mut command = java("ProduceLatency")?;
        command.args(["--bootstrap", &broker.bootstrap(), "--topic", "half", "--codec", &options.codec]);
        command.args(["--payload", &record.to_string(), "--rate", &rate.to_string()]);
        command.args(["--phase-ms", &phase.as_millis().to_string()]);
        let log = dir.join("latency.log");
        let _ = std::fs::remove_file(&log);
        let mut producer = Producer { process: Process::start("ProduceLatency", &mut command, &log)?, phase };
        // Java compiles
        for _ in 0..3 {
            producer.next()?;
        }
        for &use_ in &uses {
            let mut off = [Sample::default(), Sample::default()];
            let mut ratios = off.clone();
            let mut lost = Losses::default();
            for pair in 0..pairs {
                let mut times = [[0.0; 2]; 2];
                for step in 0..2 {
                    let traced = (pair + step) % 2;
                    let agent = match traced {
                        0 => None,
                        _ => Some(use_.start(dir, broker.port, &collector)?),
                    };
                    // the phase that the agent came or went in does not count
                    producer.next()?;
                    times[traced] = producer.next()?;
                    if let Some(agent) = agent {
                        lost.add(&agent.stop_unread()?);
                    }
                }
                let [untraced, traced] = times;
                for quantile in 0..2 {
                    off[quantile].push(untraced[quantile]);
                    ratios[quantile].push(traced[quantile] / untraced[quantile]);
                }
                eprintln!(
                    "  {} {}/{pairs}: p50, p99 in µs {untraced:?}, traced {traced:?}",
                    use_.name(),
                    pair + 1
                );
            }
            println!(
                "| {record} B | {} | {rate} | {:.2}, {:.2} | {} | {} | {} | {lost} |",
                options.codec,
                off[0].median() / 1e3,
                off[1].median() / 1e3,
                use_.name(),
                ratios[0],
                ratios[1],
            );
        }
    }
    Ok(())
}

struct Producer {
    process: Process,
    phase: Duration,
}

impl Producer {
    /// Waits for the end of the phase that is on; its p50 and p99 in µs.
    fn next(&mut self) -> Result<[f64; 2]> {
        let phases = self.process.said().lines().filter(|line| line.starts_with("phase ")).count();
        let head = format!("phase {phases}: ");
        self.process.wait_for_line(&head, self.phase * 3)?;
        let said = self.process.said();
        let times = said.lines().find_map(|line| quantiles(line.strip_prefix(&head)?));
        times.with_context(|| format!("ProduceLatency said:\n{said}"))
    }
}

/// Of `50000 sent, 812 p50, 1630 p99, 9811 max`.
fn quantiles(line: &str) -> Option<[f64; 2]> {
    let mut fields = line.split(", ").skip(1).map(|field| field.split(' ').next()?.parse().ok());
    Some([fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::quantiles;

    #[test]
    fn a_phase() {
        assert_eq!(quantiles("50000 sent, 812 p50, 1630 p99, 9811 max"), Some([812.0, 1630.0]));
        assert_eq!(quantiles("50000 sent"), None);
    }
}
