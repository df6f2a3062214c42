//! A running client, and where its truth is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::kcat_log;
use crate::process::Process;
use crate::truth::Truth;

/// A running client.
#[derive(Debug)]
pub struct Client {
    process: Process,
    log: Log,
}

/// Where a client's truth is.
#[derive(Debug)]
pub(super) enum Log {
    /// It writes truth lines itself.
    Lines(PathBuf),
    /// kcat's output, to be turned into truth lines.
    Kcat(kcat_log::Output),
}

impl Client {
    pub(super) const fn new(process: Process, log: Log) -> Self {
        Self { process, log }
    }

    /// Waits for its end, which has to be a good one, and adds what it knows to `truth`.
    pub fn finish(mut self, within: Duration, truth: &mut Truth) -> Result<()> {
        self.process.finish(within)?;
        self.read(truth)
    }

    /// Waits for its end, also if that is a bad one, as when its library has given up messages, and
    /// adds what it knows to `truth`.
    pub fn wait(mut self, within: Duration, truth: &mut Truth) -> Result<()> {
        self.process.wait(within)?;
        self.read(truth)
    }

    /// Ends it now and adds what it knows to `truth`.
    pub fn stop(mut self, truth: &mut Truth) -> Result<()> {
        self.process.terminate(Duration::from_secs(20))?;
        self.read(truth)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it says that it is assigned partitions: services between topics do.
    pub fn wait_until_assigned(&mut self) -> Result<()> {
        self.process.wait_for_line("assigned", Duration::from_secs(60))
    }

    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    fn read(&self, truth: &mut Truth) -> Result<()> {
        match &self.log {
            Log::Lines(file) => truth.read(file),
            Log::Kcat(output) => output.read(truth),
        }
    }
}

/// Starts a program that writes truth lines itself.
pub(super) fn logging(
    command: &mut Command,
    service: &str,
    dir: &Path,
    options: impl FnOnce(&Path) -> Vec<String>,
    extra: &[&str],
) -> Result<Client> {
    let truth = dir.join(format!("{service}.truth"));
    command.args(options(&truth)).args(extra).env("OTEL_SERVICE_NAME", service);
    let process = Process::start(service, command, &log_file(dir, service))?;
    Ok(Client { process, log: Log::Lines(truth) })
}

pub(super) fn log_file(dir: &Path, service: &str) -> PathBuf {
    dir.join(format!("{service}.log"))
}
