//! `--pid` and `--netns`: what is not there is an error, and the end of what is watched is said.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent;
use harness::namespace::Namespace;
use harness::need;
use harness::process::{self, Process};
use harness::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(20);

fn observe(dir: &Path, arguments: &[&str]) -> Result<Process> {
    let mut command = process::command(agent::binary());
    command.args(["observe", "--ports", "1"]).args(arguments);
    Process::start("ktrace", &mut command, &dir.join("ktrace.log"))
}

#[test]
fn what_is_no_process() -> Result<()> {
    if !need::live("no process", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let mut gone = Command::new("true").spawn()?;
    let number = gone.id().to_string();
    gone.wait()?;
    // this thread is another than the process's first, which waits for it
    let thread = std::fs::read_link("/proc/thread-self")?;
    let thread = thread.file_name().and_then(|name| name.to_str()).context("no number")?;
    let own = std::process::id();
    ensure!(thread != own.to_string(), "a test runs on the main thread");
    for (arguments, code, words) in [
        (["--pid", "0"], 2, "0 is not in".to_owned()),
        (["--pid", &number], 1, format!("there is no process {number}")),
        (["--pid", thread], 1, format!("{thread} is a thread of process {own}")),
        (["--netns", &number], 1, format!("network namespace {number}")),
        (["--netns", "no-such"], 1, "network namespace no-such".to_owned()),
        (["--cgroup", "/no/such"], 1, "--cgroup: /no/such".to_owned()),
        (["--cgroup", "/tmp"], 1, "/tmp is not in a cgroup v2 tree".to_owned()),
    ] {
        let mut ktrace = observe(scratch.path(), &arguments)?;
        let status = ktrace.wait(PATIENCE)?;
        let said = ktrace.said();
        ensure!(status.code() == Some(code) && said.contains(&words), "{arguments:?}: {status}: {said}");
        ensure!(said.lines().count() == 2, "{said}");
    }
    Ok(())
}

#[test]
fn a_process_that_ends() -> Result<()> {
    if !need::live("process that ends", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let summary = scratch.join("summary.json");
    let mut watched = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let number = watched.id().to_string();
    let arguments = ["--pid", &number, "--summary", summary.to_str().context("a path")?];
    let mut ktrace = observe(scratch.path(), &arguments)?;
    ktrace.wait_for_line("watching", PATIENCE)?;
    drop(watched.stdin.take());
    watched.wait()?;
    let status = ktrace.wait(PATIENCE)?;
    let said = ktrace.said();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains(&format!("process {number}, named by --pid, has ended")), "{said}");
    ensure!(std::fs::read_to_string(&summary)?.contains("\"spans\":0"));
    Ok(())
}

/// The namespace may live on, so ktrace does.
#[test]
fn a_namespace_whose_process_ends() -> Result<()> {
    if !need::live("namespace that ends", &["ip"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    for by_path in [false, true] {
        let namespace = Namespace::new(scratch.path(), "named")?;
        let path = namespace.path().display().to_string();
        let number = path.split('/').nth(2).context("a number")?.to_owned();
        let name = if by_path { &path } else { &number };
        let mut ktrace = observe(scratch.path(), &["--netns", name])?;
        ktrace.wait_for_line("watching", PATIENCE)?;
        drop(namespace);
        ktrace.wait_for_line(if by_path { "was removed or made again" } else { "has ended" }, PATIENCE)?;
        ensure!(ktrace.is_running()?, "{}", ktrace.said());
        let status = ktrace.terminate(PATIENCE)?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}
