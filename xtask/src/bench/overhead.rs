//! Producers, consumers, broker, agent and collector on the same two cores, which they fill: each
//! client without the agent and with either use of it, in turn, many times. What counts is the
//! ratio within a turn.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::collector::Collector;

use super::host::{self, BpfTimes, Jiffies};
use super::load::{Client, Load};
use super::losses::Losses;
use super::statistics::Sample;
use super::usage::Use;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// One case and two turns: proves that it works
    #[arg(long)]
    quick: bool,
    /// Turns of each client without and with each use of the agent
    #[arg(long)]
    pairs: Option<usize>,
    /// Bytes of a record
    #[arg(long, value_delimiter = ',')]
    record: Option<Vec<u32>>,
    #[arg(long, value_delimiter = ',')]
    codec: Option<Vec<String>>,
    #[arg(long, value_enum, value_delimiter = ',')]
    client: Option<Vec<Client>>,
    #[arg(long = "use", value_enum, value_delimiter = ',')]
    uses: Option<Vec<Use>>,
    /// How long a client is busy in a turn
    #[arg(long, value_name = "SECONDS")]
    busy: Option<f64>,
}

/// What the agent still does when the client has ended: the ring is looked at every 2 to 100 ms.
const SETTLE: Duration = Duration::from_millis(300);

pub fn run(options: &Options, dir: &Path) -> Result<()> {
    let quick = options.quick;
    let records = options.record.clone().unwrap_or(if quick { vec![1024] } else { vec![100, 1024, 65_536] });
    let or_none = || if quick { vec!["none".to_owned()] } else { vec!["none".to_owned(), "lz4".to_owned()] };
    let codecs = options.codec.clone().unwrap_or_else(or_none);
    let clients = options.client.clone().unwrap_or(Client::ALL.to_vec());
    let uses = options.uses.clone().unwrap_or(Use::ALL.to_vec());
    let pairs = options.pairs.unwrap_or(if quick { 2 } else { 10 });
    let busy = Duration::from_secs_f64(options.busy.unwrap_or(if quick { 1.5 } else { 4.0 }));
    let collector_dir = dir.join("collector");
    std::fs::create_dir_all(&collector_dir)?;
    let collector = Collector::start(&collector_dir, None)?;

    println!(
        "| records | codec | client | untraced MB/s | idle | agent | throughput, ratio of {pairs} pairs | agent CPU-s/GB | kernel CPU-s/GB (ns a packet) | most RSS, MB | lost |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for &record in &records {
        for codec in &codecs {
            eprintln!("{record} B, {codec}: a broker, and each client once");
            let dir = dir.join(format!("{record}-{codec}"));
            std::fs::create_dir_all(&dir)?;
            let load = Load::new(&dir, record, codec, busy)?;
            for &client in &clients {
                let case = Case { dir: &dir, load: &load, client, collector: &collector };
                case.measure(&uses, pairs, |columns| {
                    let mb = columns.untraced.median() * f64::from(record) / 1e6;
                    println!(
                        "| {record} B | {codec} | {} | {mb:.0} | {:.0} % | {columns}",
                        client.name(),
                        100.0 * columns.idle.median()
                    );
                })?;
            }
            drop(load);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// One client on one load.
struct Case<'a> {
    dir: &'a Path,
    load: &'a Load,
    client: Client,
    collector: &'a Collector,
}

/// What one use of the agent cost.
#[derive(Default)]
struct Costs {
    ratios: Sample,
    cpu_per_gb: Sample,
    memory_mb: f64,
    lost: Losses,
}

/// A line of the table, but for its first columns.
struct Columns<'a> {
    untraced: &'a Sample,
    idle: &'a Sample,
    use_: Use,
    costs: &'a Costs,
    kernel: Kernel,
}

/// What the kernel's part cost.
struct Kernel {
    cpu_per_gb: f64,
    per_run: Duration,
}

impl Case<'_> {
    fn measure(&self, uses: &[Use], pairs: usize, mut told: impl FnMut(&Columns<'_>)) -> Result<()> {
        let (mut untraced, mut idle) = (Sample::default(), Sample::default());
        let mut costs: Vec<Costs> = uses.iter().map(|_| Costs::default()).collect();
        for turn in 0..pairs {
            // none, then the uses; each turn begins with the next one
            let mut rates = vec![0.0; uses.len() + 1];
            for step in 0..rates.len() {
                let which = (turn + step) % rates.len();
                rates[which] = match which.checked_sub(1) {
                    None => {
                        let since = Jiffies::now()?;
                        let rate = self.load.run(self.client)?;
                        idle.push(since.idle_since()?);
                        rate
                    }
                    Some(index) => self.traced(uses[index], &mut costs[index])?,
                };
            }
            untraced.push(rates[0]);
            let mut said = format!("{} {}/{pairs}: {:.0} records/s", self.client.name(), turn + 1, rates[0]);
            for ((use_, costs), rate) in uses.iter().zip(&mut costs).zip(&rates[1..]) {
                costs.ratios.push(rate / rates[0]);
                said += &format!("; {} {:.3}", use_.name(), rate / rates[0]);
            }
            eprintln!("  {said}");
        }
        for (&use_, costs) in uses.iter().zip(&costs) {
            let kernel = self.kernel(use_)?;
            told(&Columns { untraced: &untraced, idle: &idle, use_, costs, kernel });
        }
        Ok(())
    }

    /// A run of the client beside the agent; records a second.
    fn traced(&self, use_: Use, costs: &mut Costs) -> Result<f64> {
        let agent = use_.start(self.dir, self.load.port(), self.collector)?;
        let before = host::cpu_time(agent.pid())?;
        let rate = self.load.run(self.client)?;
        sleep(SETTLE);
        let cpu = host::cpu_time(agent.pid())?.saturating_sub(before);
        costs.memory_mb = costs.memory_mb.max(host::memory(agent.pid())?.most);
        let gb = self.stop(agent, &mut costs.lost)?;
        costs.cpu_per_gb.push(cpu.as_secs_f64() / gb);
        Ok(rate)
    }

    /// A run that measures the agent's BPF programs, and nothing else.
    fn kernel(&self, use_: Use) -> Result<Kernel> {
        let times = BpfTimes::start()?;
        let agent = use_.start(self.dir, self.load.port(), self.collector)?;
        self.load.run(self.client)?;
        sleep(SETTLE);
        let (time, runs) = times.used()?;
        let gb = self.stop(agent, &mut Losses::default())?;
        let per_run = Duration::from_nanos(time.as_nanos() as u64 / runs);
        Ok(Kernel { cpu_per_gb: time.as_secs_f64() / gb, per_run })
    }

    /// Ends the agent, which has to have seen every record; the GB that it saw.
    fn stop(&self, agent: Agent, lost: &mut Losses) -> Result<f64> {
        let summary = agent.stop_unread()?;
        lost.add(&summary);
        let (seen, sent) = (summary["records"].as_u64().unwrap_or_default(), self.load.count(self.client));
        lost.count("records unseen", sent.saturating_sub(seen));
        let bytes = summary["bytes"].as_f64().context("no bytes in the summary")?;
        ensure!(bytes > 0.0, "the agent has seen nothing: {summary}");
        Ok(bytes / 1e9)
    }
}

impl std::fmt::Display for Columns<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Costs { ratios, cpu_per_gb, memory_mb, lost } = self.costs;
        write!(
            f,
            "{} | {ratios} | {:.2} | {:.2} ({}) | {memory_mb:.0} | {lost} |",
            self.use_.name(),
            cpu_per_gb.median(),
            self.kernel.cpu_per_gb,
            self.kernel.per_run.as_nanos(),
        )
    }
}
