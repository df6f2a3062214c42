//! The agent under test: started with arguments, ready when it says so, ended by SIGTERM.

use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{self, Process, deadline};
use crate::spans::{self, Span};

/// The longest that a hop is held: for the name of its topic.
const HELD: Duration = Duration::from_secs(10);

/// `KTRACE_BIN`, else the release musl binary in the target directory.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KTRACE_BIN") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("x86_64-unknown-linux-musl/release/ktrace")
}

/// A running `ktrace run` or `ktrace observe`.
#[derive(Debug)]
pub struct Agent {
    output: PathBuf,
    summary: PathBuf,
    process: Process,
}

/// What an agent left.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub spans: Vec<Span>,
    /// The `--summary` object.
    pub summary: Value,
    pub stderr: String,
}

impl Ended {
    /// The sum of all counts under `lost`.
    #[must_use]
    pub fn lost(&self) -> u64 {
        sum(&self.summary["lost"])
    }
}

fn sum(value: &Value) -> u64 {
    match value {
        Value::Object(counts) => counts.values().map(sum).sum(),
        other => other.as_u64().unwrap_or_default(),
    }
}

impl Agent {
    /// `ktrace observe -o json` on one port, or what else `--ports` takes, with further arguments;
    /// ready when this returns.
    pub fn observe(dir: &Path, name: &str, ports: impl Display, arguments: &[&str]) -> Result<Self> {
        Self::start(dir, name, process::command(binary()).args(["observe", "-o", "json"]), ports, arguments)
    }

    /// `ktrace run`, in the same way.
    pub fn run(dir: &Path, name: &str, ports: impl Display, arguments: &[&str]) -> Result<Self> {
        Self::start(dir, name, process::command(binary()).arg("run"), ports, arguments)
    }

    /// Any command line that ends in the agent's verb; `ports` as its option takes them. `name`
    /// keeps apart the files of a test's agents.
    pub fn start(
        dir: &Path,
        name: &str,
        command: &mut Command,
        ports: impl Display,
        arguments: &[&str],
    ) -> Result<Self> {
        let output = dir.join(format!("{name}.json"));
        let summary = dir.join(format!("{name}.summary"));
        command.args(["--ports", &ports.to_string(), "--summary"]).arg(&summary).args(arguments);
        let log = dir.join(format!("{name}.stderr"));
        // what an agent of the same name has said is not taken for this one's word
        File::create(&log)?;
        let mut process = Process::start_with_output("ktrace", command, File::create(&output)?, &log)?;
        process.wait_for_line("watching", Duration::from_secs(20))?;
        Ok(Self { output, summary, process })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The spans of the lines that are whole by now.
    pub fn so_far(&self) -> Result<Vec<Span>> {
        let text = fs::read_to_string(&self.output)?;
        spans::parse(&text[..text.rfind('\n').map_or(0, |at| at + 1)])
    }

    /// Waits until its spans so far are as wanted; `what` says how, for who reads that they never
    /// were.
    pub fn wait_until(&mut self, what: &str, are_well: impl Fn(&[Span]) -> bool) -> Result<()> {
        let deadline = deadline(Duration::from_secs(60));
        while !are_well(&self.so_far()?) {
            ensure!(self.process.is_running()?, "ktrace ended: {}", self.process.said());
            ensure!(Instant::now() < deadline, "not within a minute, or several: {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Waits until it has shown this number of messages that the service has sent.
    pub fn wait_for_sends(&mut self, service: &str, count: usize) -> Result<()> {
        let is_one = |span: &&Span| span.operation() == "send" && span.service() == service;
        self.wait_until(&format!("{count} messages sent by {service}"), |spans| {
            spans.iter().filter(is_one).count() >= count
        })
    }

    /// Waits until it has shown this number of hops, sent or delivered; what was seen last may
    /// still be held for a moment. It is no error if they never come: the check that follows
    /// says which.
    pub fn wait_for_hops(&self, hops: usize) -> Result<()> {
        self.wait_for_hops_of("", hops)
    }

    /// The same of one topic.
    pub fn wait_for_hops_of(&self, topic: &str, hops: usize) -> Result<()> {
        let deadline = deadline(HELD);
        while Instant::now() < deadline && self.hops_so_far(topic)? < hops {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Without a look at all that a line has, as there may be many.
    fn hops_so_far(&self, topic: &str) -> Result<usize> {
        let text = fs::read_to_string(&self.output)?;
        let named = format!(r#""messaging.destination.name":"{topic}""#);
        let is_one = |line: &&str| {
            !line.contains(r#""messaging.operation.type":"settle""#)
                && (topic.is_empty() || line.contains(&named))
        };
        Ok(text.lines().filter(is_one).count())
    }

    /// Waits until it has said this on standard error.
    pub fn wait_for_line(&mut self, text: &str) -> Result<()> {
        self.process.wait_for_line(text, Duration::from_secs(30))
    }

    /// SIGTERM: it detaches, flushes and ends.
    pub fn stop(mut self) -> Result<Ended> {
        let (status, summary, stderr) = self.end()?;
        let spans = spans::read(&self.output)?;
        Ok(Ended { status, spans, summary, stderr })
    }

    /// The same where there are more spans than one wants to hold; its output goes.
    pub fn stop_unread(mut self) -> Result<Value> {
        let (status, summary, stderr) = self.end()?;
        ensure!(status.success(), "ktrace ended with {status} and said:\n{stderr}");
        fs::remove_file(&self.output)?;
        Ok(summary)
    }

    /// The same where its output is none of spans; returns that.
    pub fn stop_with_text(mut self) -> Result<String> {
        let (status, _, stderr) = self.end()?;
        ensure!(status.success(), "ktrace ended with {status} and said:\n{stderr}");
        Ok(fs::read_to_string(&self.output)?)
    }

    fn end(&mut self) -> Result<(ExitStatus, Value, String)> {
        let status = self.process.terminate(Duration::from_secs(30))?;
        let stderr = self.process.said();
        let summary = fs::read_to_string(&self.summary)
            .with_context(|| format!("no summary; ktrace ended with {status} and said:\n{stderr}"))?;
        Ok((status, serde_json::from_str(&summary)?, stderr))
    }

    /// SIGKILL, as the kernel does it when memory is short.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

/// `ktrace replay -o json` of a capture file.
pub fn replay(file: &Path, port: u16) -> Result<(ExitStatus, Vec<Span>, String)> {
    replay_all(&[file.to_owned()], port)
}

/// `ktrace replay -o json` of a capture that is spread over files.
pub fn replay_all(files: &[PathBuf], port: u16) -> Result<(ExitStatus, Vec<Span>, String)> {
    let output = Command::new(binary())
        .args(["replay", "-o", "json", "--ports", &port.to_string()])
        .args(files)
        .output()
        .context("cannot start ktrace")?;
    let spans = spans::parse(&String::from_utf8_lossy(&output.stdout))?;
    Ok((output.status, spans, String::from_utf8_lossy(&output.stderr).into_owned()))
}
