//! An hour of a producer and a consumer at a steady rate: the agent's memory minute by minute, and
//! what it lost. An error where it grows or loses anything.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::collector::Collector;
use harness::process::Process;

use super::clients::java;
use super::host;
use super::load::broker;
use super::losses::Losses;
use super::usage::Use;

/// And a tenth: what is held varies with what is on its way.
const GROWTH_MB: f64 = 2.0;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(default_value = "60")]
    minutes: u32,
    /// Minutes of ten seconds, six of them: proves that it works
    #[arg(long)]
    quick: bool,
    /// Messages of 1000 bytes a second
    #[arg(long, default_value = "20000")]
    rate: u64,
    #[arg(long = "use", value_enum, default_value = "sampled")]
    use_: Use,
}

pub fn run(options: &Options, dir: &Path) -> Result<()> {
    let (minutes, minute) =
        if options.quick { (6, Duration::from_secs(10)) } else { (options.minutes, Duration::from_secs(60)) };
    // the file exporter's file grows with every sampled span, and lies in memory
    let collector = Collector::start(dir, None)?;
    let broker = broker(dir)?;
    broker.create_topics(2, &["soak"])?;
    let agent = options.use_.start(dir, broker.port, &collector)?;
    let bootstrap = broker.bootstrap();
    // more than is sent in the time, so that both go on to the end
    let count = (options.rate * u64::from(minutes + 1) * minute.as_secs() * 2).to_string();
    let mut consumer = java("org.apache.kafka.tools.ConsumerPerformance")?;
    consumer.args(["--bootstrap-server", &bootstrap, "--topic", "soak", "--num-records", &count]);
    consumer.args(["--timeout", "60000"]);
    let mut consumer = Process::start("the consumer", &mut consumer, &dir.join("consumer.log"))?;
    let mut producer = java("org.apache.kafka.tools.ProducerPerformance")?;
    producer.args(["--bootstrap-server", &bootstrap, "--topic", "soak", "--num-records", &count]);
    producer.args(["--throughput", &options.rate.to_string(), "--record-size", "1000"]);
    let mut producer = Process::start("the producer", &mut producer, &dir.join("producer.log"))?;

    println!("| minute | RSS, MB | its own (anonymous), MB | agent's CPU, % of a core |");
    println!("| --- | --- | --- | --- |");
    let mut memory = Vec::new();
    for number in 1..=minutes {
        let (since, before) = (Instant::now(), host::cpu_time(agent.pid())?);
        sleep(minute);
        let used = host::cpu_time(agent.pid())?.saturating_sub(before);
        let now = host::memory(agent.pid())?;
        memory.push(now.anonymous);
        let share = 100.0 * used.as_secs_f64() / since.elapsed().as_secs_f64();
        println!("| {number} | {:.1} | {:.1} | {share:.1} |", now.all, now.anonymous);
        ensure!(producer.is_running()? && consumer.is_running()?, "a client ended: see its log");
    }
    producer.terminate(Duration::from_secs(30))?;
    consumer.kill()?;
    let summary = agent.stop_unread()?;
    let mut lost = Losses::default();
    lost.add(&summary);
    // the first tenth fills its tables
    let settled = memory.len().div_ceil(10).min(memory.len() - 1);
    let (before, end) = (memory[settled], memory[memory.len() - 1]);
    println!(
        "\n{} records, {:.1} GB; its own memory {before:.1} MB after minute {}, {end:.1} MB at the end; lost: {lost}",
        summary["records"],
        summary["bytes"].as_f64().unwrap_or_default() / 1e9,
        settled + 1,
    );
    ensure!(lost.is_empty(), "lost: {lost}");
    ensure!(end < before * 1.1 + GROWTH_MB, "its memory has grown");
    Ok(())
}
