//! What a process and the host used, from /proc.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// CPU time of a process's threads, to the nanosecond; what threads that have ended used is not in
/// it.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split(' ').next().context("no CPU time in schedstat")?;
        nanos += first.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory in MB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// With the ring buffers, each page of which is mapped twice (so that records are whole at its
    /// end) and counts twice.
    pub all: f64,
    /// The most that all has been.
    pub most: f64,
    /// The agent's own.
    pub anonymous: f64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mb = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory in status")?;
        let kib = line.trim().trim_end_matches(" kB").parse::<f64>()?;
        Ok(kib * 1024.0 / 1e6)
    };
    Ok(Memory { all: mb("VmRSS:")?, most: mb("VmHWM:")?, anonymous: mb("RssAnon:")? })
}

/// Jiffies of all cores: idle ones, and all.
#[derive(Clone, Copy, Debug)]
pub struct Jiffies {
    idle: u64,
    all: u64,
}

impl Jiffies {
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is in the first two
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { idle: fields.iter().skip(3).take(2).sum(), all: fields.iter().sum() })
    }

    /// The idle share of the time since then.
    pub fn idle_since(self) -> Result<f64> {
        let now = Self::now()?;
        Ok((now.idle - self.idle) as f64 / (now.all - self.all).max(1) as f64)
    }
}

/// The kernel measures how long BPF programs run, as long as this lives. That costs itself, so
/// nothing else is measured meanwhile.
#[derive(Debug)]
pub struct BpfTimes {
    /// Programs that were there before.
    others: BTreeSet<u64>,
    before: String,
}

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfTimes {
    /// To be called before the agent is started.
    pub fn start() -> Result<Self> {
        let before = fs::read_to_string(STATS)?;
        fs::write(STATS, "1")?;
        let others = programs()?.iter().map(|program| number(program, "id")).collect();
        Ok(Self { others, before })
    }

    /// Time and runs of all programs that came since, while they are still loaded.
    pub fn used(&self) -> Result<(Duration, u64)> {
        let (mut nanos, mut runs) = (0, 0);
        for program in programs()?.iter().filter(|program| !self.others.contains(&number(program, "id"))) {
            nanos += number(program, "run_time_ns");
            runs += number(program, "run_cnt");
        }
        ensure!(runs > 0, "no BPF program of the agent has run");
        Ok((Duration::from_nanos(nanos), runs))
    }
}

impl Drop for BpfTimes {
    fn drop(&mut self) {
        let _ = fs::write(STATS, self.before.trim());
    }
}

fn programs() -> Result<Vec<Value>> {
    let output = Command::new("bpftool").args(["-j", "prog", "show"]).output().context("bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn number(program: &Value, field: &str) -> u64 {
    program[field].as_u64().unwrap_or_default()
}
