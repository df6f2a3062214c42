//! The truth-logging clients, all with the same options.

mod forward;
mod java;
mod kafkajs;
mod kcat;
pub mod python;
mod rdkafka;
mod rustls;
mod sarama;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::truth::Truth;

pub use forward::Forward;

/// Which client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    Java,
    /// Java with the OpenTelemetry Java agent, which puts a `traceparent` into every message.
    JavaAgent,
    /// Java of [`crate::tools::KAFKA_OLD_VERSION`].
    JavaOld,
    /// confluent-kafka.
    Python,
    /// The same with OpenTelemetry's instrumentation, which puts a `traceparent` into every message; so with the others.
    PythonInstrumented,
    KafkaPython,
    KafkaPythonInstrumented,
    Sarama,
    /// With otelsarama.
    SaramaInstrumented,
    Kafkajs,
    KafkajsInstrumented,
    Kcat,
    /// The Rust crate.
    Rdkafka,
    /// The one for asyncio.
    Aiokafka,
    /// Produce and Fetch requests over rustls with ring. It has no group and does not compress.
    Rustls,
    /// The same with aws-lc-rs.
    RustlsAwsLc,
}

impl Library {
    /// Short, and different for each.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::JavaAgent => "java-agent",
            Self::JavaOld => "java-old",
            Self::Python => "python",
            Self::PythonInstrumented => "python-otel",
            Self::KafkaPython => "kafka-python",
            Self::KafkaPythonInstrumented => "kafka-python-otel",
            Self::Sarama => "sarama",
            Self::SaramaInstrumented => "sarama-otel",
            Self::Kafkajs => "kafkajs",
            Self::KafkajsInstrumented => "kafkajs-otel",
            Self::Kcat => "kcat",
            Self::Rdkafka => "rdkafka",
            Self::Aiokafka => "aiokafka",
            Self::Rustls => "rustls",
            Self::RustlsAwsLc => "rustls-aws-lc",
        }
    }

    /// Whether its instrumentation puts a `traceparent` into every message.
    #[must_use]
    pub const fn is_instrumented(self) -> bool {
        matches!(
            self,
            Self::JavaAgent
                | Self::PythonInstrumented
                | Self::KafkaPythonInstrumented
                | Self::SaramaInstrumented
                | Self::KafkajsInstrumented
        )
    }
}

/// What a producer does.
#[derive(Clone, Debug)]
pub struct Produce<'a> {
    pub library: Library,
    pub bootstrap: &'a str,
    pub topic: &'a str,
    /// Also the client id and the first part of the keys, so different for each producer of a test.
    pub service: &'a str,
    pub count: u32,
    pub codec: &'a str,
    /// `none`, `traceparent`, `b3`, `b3-multi`, `trace_id`, `traceId`, `trace-id`; `edges` for what is unusual in headers.
    /// Go, Node and Rust know only the first two and `edges`, kcat does not know that one.
    pub header_style: &'a str,
    pub payload: u32,
    /// `all`, `1` or `0`.
    pub acks: &'a str,
    pub interval_ms: u32,
}

impl<'a> Produce<'a> {
    /// One message, uncompressed, without headers.
    #[must_use]
    pub fn new(library: Library, bootstrap: &'a str, topic: &'a str, service: &'a str) -> Self {
        Self {
            library,
            bootstrap,
            topic,
            service,
            count: 1,
            codec: "none",
            header_style: "none",
            payload: 100,
            acks: "all",
            interval_ms: 0,
        }
    }

    /// Starts it; its files are in `dir` under its service's name.
    pub fn start(&self, dir: &Path) -> Result<Client> {
        self.start_with(dir, &[])
    }

    /// The same, with further arguments of its program (`tests/clients`).
    pub fn start_with(&self, dir: &Path, extra: &[&str]) -> Result<Client> {
        match self.library {
            Library::Java | Library::JavaAgent | Library::JavaOld => java::produce(self, dir, extra),
            Library::Python
            | Library::PythonInstrumented
            | Library::KafkaPython
            | Library::KafkaPythonInstrumented
            | Library::Aiokafka => python::produce(self, dir, extra),
            Library::Sarama | Library::SaramaInstrumented => sarama::produce(self, dir, extra),
            Library::Kafkajs | Library::KafkajsInstrumented => kafkajs::produce(self, dir, extra),
            Library::Kcat => kcat::produce(self, dir, extra),
            Library::Rdkafka => rdkafka::produce(self, dir, extra),
            Library::Rustls | Library::RustlsAwsLc => rustls::produce(self, dir, extra),
        }
    }

    /// Starts it and waits for its end.
    pub fn run(&self, dir: &Path, truth: &mut Truth) -> Result<()> {
        self.start(dir)?.finish(Duration::from_secs(120), truth)
    }

    fn options(&self, truth: &Path) -> Vec<String> {
        let idempotent = if self.acks == "all" { "true" } else { "false" };
        [
            ("bootstrap", self.bootstrap),
            ("topic", self.topic),
            ("service", self.service),
            ("client-id", self.service),
            ("truth", &truth.to_string_lossy()),
            ("count", &self.count.to_string()),
            ("codec", self.codec),
            ("acks", self.acks),
            ("idempotence", idempotent),
            ("payload", &self.payload.to_string()),
            ("header-style", self.header_style),
            ("interval-ms", &self.interval_ms.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect()
    }
}

/// What a consumer does: it reads from the beginning, as a member of a group.
#[derive(Clone, Debug)]
pub struct Consume<'a> {
    pub library: Library,
    pub bootstrap: &'a str,
    pub topics: &'a [&'a str],
    /// Also the client id.
    pub service: &'a str,
    pub group: &'a str,
    /// It ends when it has got so many.
    pub expect: usize,
}

impl Consume<'_> {
    /// Starts it; its files are in `dir` under its service's name.
    pub fn start(&self, dir: &Path) -> Result<Client> {
        self.start_with(dir, &[])
    }

    /// The same, with further arguments of its program (`tests/clients`).
    pub fn start_with(&self, dir: &Path, extra: &[&str]) -> Result<Client> {
        match self.library {
            Library::Java | Library::JavaAgent | Library::JavaOld => java::consume(self, dir, extra),
            Library::Python
            | Library::PythonInstrumented
            | Library::KafkaPython
            | Library::KafkaPythonInstrumented
            | Library::Aiokafka => python::consume(self, dir, extra),
            Library::Sarama | Library::SaramaInstrumented => sarama::consume(self, dir, extra),
            Library::Kafkajs | Library::KafkajsInstrumented => kafkajs::consume(self, dir, extra),
            Library::Kcat => kcat::consume(self, dir, extra),
            Library::Rdkafka => rdkafka::consume(self, dir, extra),
            Library::Rustls | Library::RustlsAwsLc => rustls::consume(self, dir, extra),
        }
    }

    fn options(&self, truth: &Path) -> Vec<String> {
        [
            ("bootstrap", self.bootstrap),
            ("topic", &self.topics.join(",")),
            ("service", self.service),
            ("client-id", self.service),
            ("truth", &truth.to_string_lossy()),
            ("group", self.group),
            ("expect", &self.expect.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect()
    }
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    process: Process,
    log: Log,
}

/// Where a client's truth is.
#[derive(Debug)]
enum Log {
    /// It writes truth lines itself.
    Lines(PathBuf),
    /// kcat's output, to be turned into truth lines.
    Kcat(kcat::Output),
}

impl Client {
    /// Waits for its end, which has to be a good one, and adds what it knows to `truth`.
    pub fn finish(mut self, within: Duration, truth: &mut Truth) -> Result<()> {
        self.process.finish(within)?;
        self.read(truth)
    }

    /// Waits for its end, also if that is a bad one, as when its library has given up messages, and adds what it knows to `truth`.
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
fn logging(
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

fn log_file(dir: &Path, service: &str) -> PathBuf {
    dir.join(format!("{service}.log"))
}
