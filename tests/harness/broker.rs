//! A real Kafka broker in KRaft mode, on loopback unless the settings say otherwise: alone, or one
//! node of several.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{self, Process};
use crate::tls::Listeners;
use crate::{cache, ports, tools};

/// How the broker is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    pub version: &'static str,
    /// The address it listens on.
    pub host: &'static str,
    /// The clients' port.
    pub port: u16,
    /// `host:port` that is advertised to clients, where that is another one.
    pub advertised: Option<String>,
    pub heap_mib: u32,
    /// How its Java is tuned.
    pub jvm: &'static [&'static str],
    /// Further arguments of its Java.
    pub jvm_options: Vec<String>,
    /// The Java that it runs on; the host's own where there is none.
    pub java: Option<PathBuf>,
    /// Listeners beside the plaintext one.
    pub tls: Option<Listeners>,
    /// Further lines for the broker's properties.
    pub properties: String,
    pub node_id: u32,
    /// The controllers' port of each node of its cluster, in the order of their ids, which begin
    /// with 1. Empty where it is alone.
    pub quorum: Vec<u16>,
    /// Whether it goes on when whoever started it has ended.
    pub outlives: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: tools::KAFKA_VERSION,
            host: "127.0.0.1",
            port: 9092,
            advertised: None,
            heap_mib: 512,
            jvm: &QUICK_START,
            jvm_options: Vec::new(),
            java: None,
            tls: None,
            properties: String::new(),
            node_id: 1,
            quorum: Vec::new(),
            outlives: false,
        }
    }
}

impl Settings {
    fn advertised(&self) -> String {
        self.advertised.clone().unwrap_or_else(|| format!("{}:{}", self.host, self.port))
    }
}

#[derive(Debug)]
pub struct Broker {
    pub port: u16,
    bootstrap: String,
    process: Process,
}

impl Broker {
    /// Starts a broker whose data and log are in `dir/broker`, and returns when it serves.
    pub fn start(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut broker = Self::launch(dir, settings)?;
        broker.wait_until_it_serves()?;
        if settings.outlives {
            broker.process.leave_running();
        }
        Ok(broker)
    }

    /// Starts a broker, which may need others of its cluster before it serves.
    pub fn launch(dir: &Path, settings: &Settings) -> Result<Self> {
        let home = dir.join("broker");
        fs::create_dir_all(&home)?;
        let quorum = if settings.quorum.is_empty() {
            let [controller] = ports::free()?;
            &[controller][..]
        } else {
            &settings.quorum
        };
        let config = home.join("server.properties");
        fs::write(&config, properties(&home, settings, quorum)?)?;
        let kafka = tools::kafka(settings.version)?;
        cache::step("java", |java| {
            java.args(QUICK_START).arg("-cp").arg(&kafka).arg("kafka.tools.StorageTool");
            java.args(["format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"]).arg(&config);
            java.args(settings.tls.iter().flat_map(Listeners::users))
        })?;
        let program = settings.java.as_deref().unwrap_or(Path::new("java"));
        let mut java = if settings.outlives {
            let mut java = Command::new(program);
            java.process_group(0);
            java
        } else {
            process::command(program)
        };
        let process = Process::start(
            "the broker",
            java.args(settings.jvm)
                .args(&settings.jvm_options)
                .arg(format!("-Xmx{}m", settings.heap_mib))
                .arg("-cp")
                .arg(&kafka)
                .arg("kafka.Kafka")
                .arg(&config)
                .current_dir(&home),
            &home.join("log"),
        )?;
        Ok(Self { port: settings.port, bootstrap: settings.advertised(), process })
    }

    pub fn wait_until_it_serves(&mut self) -> Result<()> {
        self.process.wait_for_line("Kafka Server started", Duration::from_secs(60))
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Creates topics and waits for their leaders. A topic's settings follow its name:
    /// `NAME:SETTING=VALUE`.
    pub fn create_topics(&self, partitions: u32, names: &[&str]) -> Result<()> {
        cache::step(tools::python()?, |python| {
            python.arg(source()).arg(self.bootstrap()).arg(partitions.to_string()).args(names)
        })
    }

    /// Asks it to end, upon which it gives its partitions to others, where there are any.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(60))?;
        Ok(())
    }

    /// Killed, and started anew with what it had written.
    pub fn killed_and_started(mut self, dir: &Path, settings: &Settings) -> Result<Self> {
        self.process.kill()?;
        drop(self);
        Self::start(dir, settings)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Quick to start, which matters more here than speed in the long run.
pub const QUICK_START: [&str; 3] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// As Kafka's own scripts start it (`KAFKA_JVM_PERFORMANCE_OPTS` in `bin/kafka-run-class.sh`): for
/// measurements.
pub const AS_SHIPPED: [&str; 5] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// Any will do; each broker is a cluster of its own.
const CLUSTER_ID: &str = "a3RyYWNlLXRlc3RzLTAwMQ";

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/topics.py")
}

fn properties(home: &Path, settings: &Settings, quorum: &[u16]) -> Result<String> {
    let (host, port, advertised, data) =
        (settings.host, settings.port, settings.advertised(), home.join("data"));
    let node = settings.node_id;
    let controller = quorum.get(node as usize - 1).context("a node that is not of its cluster")?;
    let voters: Vec<String> =
        (1..).zip(quorum).map(|(node, port)| format!("{node}@127.0.0.1:{port}")).collect();
    let (voters, replicas) = (voters.join(","), quorum.len().min(3));
    let tls = settings.tls.as_ref().map(Listeners::addresses).unwrap_or_default();
    let of_tls = settings.tls.as_ref().map(Listeners::properties).unwrap_or_default();
    Ok(format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}{tls}
advertised.listeners=PLAINTEXT://{advertised}{tls}
controller.listener.names=CONTROLLER
log.dirs={}
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
{of_tls}{}
",
        data.display(),
        settings.properties
    ))
}
