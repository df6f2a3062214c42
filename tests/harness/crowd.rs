//! Many producers and consumers in one process, each with connections of its own, and what they saw
//! when.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::process::{self, Process};
use crate::tools;
use crate::truth::{Event, Line};

/// How many, and how busy.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    pub bootstrap: &'a str,
    pub topic: &'a str,
    pub partitions: u32,
    pub producers: u32,
    pub consumers: u32,
    /// Between two messages of a producer.
    pub interval_ms: u32,
}

/// A line of truth with its times, in microseconds since 1970: of a send before and after it, of a
/// delivery when it came.
#[derive(Clone, Debug, Deserialize)]
pub struct Timed {
    #[serde(flatten)]
    pub line: Line,
    #[serde(default)]
    pub start_us: u64,
    #[serde(default)]
    pub end_us: u64,
}

/// The service name of all of them, and the first part of their client ids.
pub const SERVICE: &str = "crowd";

#[derive(Debug)]
pub struct Crowd {
    truth: PathBuf,
    process: Process,
    clients: usize,
}

impl Crowd {
    /// Starts it, and returns when each of the consumers and producers has got or sent a message.
    pub fn start(dir: &Path, settings: &Settings<'_>) -> Result<Self> {
        let truth = dir.join("crowd.truth");
        let mut command = process::command(tools::sarama()?);
        command.args(["crowd", "--service", SERVICE, "--client-id", SERVICE, "--truth"]).arg(&truth);
        for (name, value) in [
            ("bootstrap", settings.bootstrap.to_owned()),
            ("topic", settings.topic.to_owned()),
            ("partitions", settings.partitions.to_string()),
            ("producers", settings.producers.to_string()),
            ("consumers", settings.consumers.to_string()),
            ("interval-ms", settings.interval_ms.to_string()),
        ] {
            command.args([format!("--{name}"), value]);
        }
        command.env("OTEL_SERVICE_NAME", SERVICE);
        let process = Process::start("the crowd", &mut command, &dir.join("crowd.log"))?;
        let clients = (settings.producers + settings.consumers) as usize;
        let mut crowd = Self { truth, process, clients };
        crowd.wait_until_busy()?;
        Ok(crowd)
    }

    fn wait_until_busy(&mut self) -> Result<()> {
        let deadline = process::deadline(Duration::from_secs(60));
        loop {
            ensure!(self.process.is_running()?, "the crowd ended: {}", self.process.said());
            let busy =
                timed(&self.truth)?.into_iter().map(|timed| timed.line.client_id).collect::<HashSet<_>>();
            if busy.len() == self.clients {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {} of {} are busy", busy.len(), self.clients);
            sleep(Duration::from_millis(200));
        }
    }

    /// SIGTERM: producers end, then, when all is delivered, consumers. What they know.
    pub fn stop(mut self) -> Result<Vec<Timed>> {
        let status = self.process.terminate(Duration::from_secs(30))?;
        ensure!(status.success(), "the crowd failed ({status}): {}", self.process.said());
        timed(&self.truth)
    }
}

/// The whole lines of a truth file; of clients that log no times, a send's is the message's own.
pub fn timed(truth: &Path) -> Result<Vec<Timed>> {
    let text = fs::read_to_string(truth).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    text[..whole]
        .lines()
        .map(|line| {
            let mut timed: Timed =
                serde_json::from_str(line).with_context(|| format!("not a truth line: {line}"))?;
            if timed.start_us == 0 && timed.line.event == Event::Sent {
                timed.start_us =
                    timed.line.timestamp.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0) * 1000;
            }
            Ok(timed)
        })
        .collect()
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
