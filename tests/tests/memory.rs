//! The agent in little memory, while clients do what takes much of it: it is never killed, its peak
//! stays below the kernel's limit, and what gives way is counted. The whole matrix with
//! `KTRACE_FULL`, its hardest corner without; of that, what `KTRACE_TEST_ONLY` names, as in
//! `KTRACE_TEST_ONLY="64 MiB, 8 rings"`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent;
use harness::hostile::{self, Load};
use harness::memory_cgroup::{self, MemoryCgroup};
use harness::need;
use harness::ports;
use harness::process::{self, Process};
use harness::scratch::Scratch;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// What ends the test if the agent does not say or do it.
const PATIENCE: Duration = Duration::from_secs(30);

fn can_run(test: &str) -> bool {
    let met = need::live(test, &[]);
    if met && memory_cgroup::tree().is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run: no cgroup limits memory");
        eprintln!("skipped: {test}: no cgroup limits memory");
        return false;
    }
    met
}

/// Loads, and what has to give way for each.
fn loads() -> Vec<(Load, &'static [&'static str])> {
    let unfinished = (Load::Unfinished(40 << 20), &["memory_limit", "ring_full"][..]);
    if !need::is_full() {
        return vec![unfinished];
    }
    vec![
        unfinished,
        (Load::Bombs(Duration::from_secs(5)), &["decompression_bomb"]),
        // all of them fit where there is enough
        (Load::Connections(60_000), &[]),
        (Load::Saturation(Duration::from_secs(5)), &["ring_full", "export_queue_full"]),
    ]
}

/// A process of [`Load::Connections`].
#[test]
#[ignore = "a part of another test"]
fn holds_connections() -> Result<()> {
    hostile::hold()
}

fn is_wanted(what: &str) -> bool {
    std::env::var("KTRACE_TEST_ONLY").ok().is_none_or(|only| what.contains(&only))
}

/// Runs all that is wanted, also behind one that fails.
fn each(cells: impl IntoIterator<Item = (String, impl FnOnce(&str) -> Result<()>)>) -> Result<()> {
    let mut failed = Vec::new();
    for (what, run) in cells.into_iter().filter(|(what, _)| is_wanted(what)) {
        if let Err(error) = run(&what) {
            eprintln!("{what}: {error:#}");
            failed.push(what);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

#[test]
fn a_cgroups_limit_is_kept() -> Result<()> {
    if !can_run("memory") {
        return Ok(());
    }
    let whole = [(64, 1), (64, 2), (64, 8), (128, 1), (128, 2), (128, 8), (512, 1), (512, 2), (512, 8)];
    let corners = if need::is_full() { &whole[..] } else { &[(128, 8)] };
    let cells = corners.iter().flat_map(|of| loads().into_iter().map(move |load| (*of, load)));
    each(cells.map(|((mebibytes, rings), (load, reasons))| {
        let run = move |what: &str| {
            let cgroup = MemoryCgroup::new("memory", mebibytes * MIB)?;
            let run = Run::of(cgroup.command(&agent::binary()), &[], rings, load);
            ensure!(cgroup.killed()? == 0, "killed");
            let run = run?;
            if let Some(peak) = cgroup.peak() {
                eprintln!("{what}: {} % at most; {}", peak * 100 / (mebibytes * MIB), run.given_way);
                ensure!(peak * 100 <= mebibytes * MIB * 95, "{peak} bytes at most");
            }
            run.check(reasons)
        };
        (format!("{mebibytes} MiB, {rings} rings, {load:?}"), run)
    }))
}

#[test]
fn the_users_limit_is_kept() -> Result<()> {
    if !can_run("memory limit") {
        return Ok(());
    }
    let whole = [(100, 1), (100, 8), (200, 2), (200, 8), (400, 8)];
    let corners = if need::is_full() { &whole[..] } else { &[(100, 2)] };
    let cells = corners.iter().flat_map(|of| loads().into_iter().map(move |load| (*of, load)));
    each(cells.map(|((mebibytes, rings), (load, reasons))| {
        let run = move |what: &str| {
            let command = process::command(agent::binary());
            let run = Run::of(command, &["--memory-limit", &format!("{mebibytes}M")], rings, load)?;
            eprintln!("{what}: {} MiB resident at most; {}", run.resident / MIB, run.given_way);
            ensure!(run.resident * 100 <= mebibytes * MIB * 105, "{} bytes resident", run.resident);
            run.check(reasons)
        };
        (format!("--memory-limit {mebibytes}M, {rings} rings, {load:?}"), run)
    }))
}

/// With one line that says what would be enough.
#[test]
fn too_little_is_refused() -> Result<()> {
    if !can_run("too little memory") {
        return Ok(());
    }
    let cgroup = MemoryCgroup::new("little", 32 * MIB)?;
    let output = cgroup.command(&agent::binary()).args(["observe", "--rings", "8"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && cgroup.killed()? == 0, "{}: {said}", output.status);
    ensure!(said.contains("limits memory to 32 MiB:") && said.contains("MiB are needed"), "{said}");
    // what is said to be needed is enough
    let needed = said.split(": ").last().and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let needed = needed.with_context(|| said.to_string())?;
    let enough = MemoryCgroup::new("enough", needed * MIB)?;
    let scratch = Scratch::new()?;
    let mut command = enough.command(&agent::binary());
    command.args(["observe", "--ports", "1", "--rings", "8"]);
    let mut agent = Process::start("ktrace", &mut command, &scratch.path().join("log"))?;
    agent.wait_for_line("watching", PATIENCE)?;
    ensure!(agent.terminate(PATIENCE)?.success());
    // more than the kernel lets it have is the user's choice, and said
    let wide = cgroup
        .command(&agent::binary())
        .args(["observe", "--memory-limit", "40M", "--rings", "8"])
        .output()?;
    let said = String::from_utf8_lossy(&wide.stderr);
    ensure!(said.contains("--memory-limit is 40 MiB, but") && said.contains("says 32 MiB"), "{said}");
    Ok(())
}

/// What is known of an agent that has ended.
struct Run {
    summary: Value,
    said: String,
    /// The largest resident set that was seen.
    resident: u64,
    /// Counts of what was lost or refused.
    given_way: String,
}

impl Run {
    fn of(mut command: Command, arguments: &[&str], rings: u32, load: Load) -> Result<Self> {
        let scratch = Scratch::new()?;
        let [port] = ports::free()?;
        let (summary, log) = (scratch.path().join("summary"), scratch.path().join("stderr"));
        command.args(["observe", "-o", "json", "--ports", &port.to_string(), "--rings", &rings.to_string()]);
        command.args(arguments).arg("--summary").arg(&summary);
        // what it prints would be charged to it as the file's cache
        let mut agent = Process::start_with_output("ktrace", &mut command, Stdio::null(), &log)?;
        agent.wait_for_line("watching", PATIENCE)?;
        let watch = Watch::start(agent.pid());
        load.run(port)?;
        ensure!(agent.is_running()?, "{load:?}: the agent has ended:\n{}", agent.said());
        let resident = watch.stop();
        let status = agent.terminate(PATIENCE)?;
        let said = agent.said();
        ensure!(status.success(), "{load:?}: {status}:\n{said}");
        let summary = read(&summary)?;
        let given_way = format!("lost {}, refused {}", summary["lost"], summary["malformed"]);
        Ok(Self { summary, said, resident, given_way })
    }

    fn check(&self, reasons: &[&str]) -> Result<()> {
        let count = |reason: &&str| {
            ["lost", "malformed"].iter().any(|kind| self.summary[kind][*reason].as_u64().unwrap_or(0) > 0)
        };
        ensure!(reasons.is_empty() || reasons.iter().any(count), "nothing gave way: {}", self.given_way);
        ensure!(reasons.is_empty() || self.said.contains("losing data:"), "nothing was said:\n{}", self.said);
        Ok(())
    }
}

fn read(summary: &Path) -> Result<Value> {
    let text = fs::read_to_string(summary).context("no summary")?;
    Ok(serde_json::from_str(&text)?)
}

/// Looks at a process's resident set until it is stopped.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let watch = Self { stop: Arc::default(), most: Arc::default() };
        let (stop, most) = (Arc::clone(&watch.stop), Arc::clone(&watch.most));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
                let kibibytes =
                    resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
                most.fetch_max(kibibytes.unwrap_or(0) * 1024, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        watch
    }

    fn stop(&self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.most.load(Ordering::Relaxed)
    }
}
