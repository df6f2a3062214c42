//! A broker with the topics that the clients write and read, and how much each client has to do to
//! be busy for a while.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use harness::broker::{AS_SHIPPED, Broker, Settings};
use harness::ports;

use super::clients::{Batch, java_consumer, java_producer, kcat_producer, write_lines};

/// Which client, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    JavaProducer,
    JavaConsumer,
    Kcat,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::JavaProducer, Self::JavaConsumer, Self::Kcat];

    pub const fn name(self) -> &'static str {
        match self {
            Self::JavaProducer => "Java producer",
            Self::JavaConsumer => "Java consumer",
            Self::Kcat => "kcat producer",
        }
    }
}

/// Old records go, so that all stays in memory: all of a topic but this much.
const KEPT: u64 = 13 << 29;

/// What is to be read stays: as much as a consumer reads in some seconds.
const READ_AT_MOST: u64 = 6_000_000_000;

/// And so does the file that kcat reads.
const LINES_AT_MOST: u64 = 1_500_000_000;

/// Runs of the Java producer before anything is measured, at most.
const WARM_UPS: usize = 6;

const WRITTEN: &str = "written";
const READ: &str = "read";

/// A broker for measurements: Java tuned as Kafka's scripts do, data that does not pile up.
pub fn broker(dir: &Path) -> Result<Broker> {
    let [port] = ports::free()?;
    let properties = format!(
        "log.retention.bytes={KEPT}
log.segment.bytes={}
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=0
connections.max.idle.ms=36000000
",
        KEPT / 16
    );
    Broker::start(
        dir,
        &Settings { port, heap_mib: 1024, jvm: &AS_SHIPPED, properties, ..Settings::default() },
    )
}

/// One size of records and one codec.
pub struct Load {
    dir: PathBuf,
    broker: Broker,
    codec: String,
    record: u32,
    lines: PathBuf,
    /// Records for the Java producer, the Java consumer and kcat.
    counts: [u64; 3],
}

impl Load {
    /// Starts the broker and lets the clients run, which shows how much keeps it busy for `busy`,
    /// and warms the broker.
    pub fn new(dir: &Path, record: u32, codec: &str, busy: Duration) -> Result<Self> {
        let broker = broker(dir)?;
        broker.create_topics(1, &[WRITTEN, READ])?;
        let lines = dir.join("lines");
        let mut load =
            Self { dir: dir.to_owned(), broker, codec: codec.to_owned(), record, lines, counts: [0; 3] };
        let size = u64::from(record);
        let enough = |rate: f64| ((rate * busy.as_secs_f64()) as u64).max(100);
        let first = (60_000_000 / size).min(400_000);

        // the broker is slow until Java has compiled it: until it is not faster any more
        load.counts = [first; 3];
        let mut fastest = 0.0;
        for _ in 0..WARM_UPS {
            let rate = load.run(Client::JavaProducer)?;
            // its first quarter does not count
            load.counts[0] = enough(rate) * 4 / 3;
            if rate < fastest * 1.03 {
                break;
            }
            fastest = rate;
        }
        write_lines(&load.lines, record, first)?;
        for _ in 0..2 {
            let rate = load.run(Client::Kcat)?;
            load.counts[2] = enough(rate).min(LINES_AT_MOST / size);
            write_lines(&load.lines, record, load.counts[2])?;
        }

        let mut there = load.fill()?;
        load.counts[1] = there;
        let wanted = enough(load.run(Client::JavaConsumer)?).min(READ_AT_MOST / size);
        while there < wanted {
            there += load.fill()?;
        }
        load.counts[1] = wanted;
        Ok(load)
    }

    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// How many records a run of this client sends or receives.
    pub fn count(&self, client: Client) -> u64 {
        self.counts[client as usize]
    }

    /// Lets the client run; records a second.
    pub fn run(&self, client: Client) -> Result<f64> {
        let (dir, bootstrap) = (&*self.dir, &*self.broker.bootstrap());
        let count = self.count(client);
        match client {
            Client::JavaProducer => java_producer(dir, bootstrap, self.batch(WRITTEN, count)),
            Client::JavaConsumer => java_consumer(dir, bootstrap, READ, count),
            Client::Kcat => kcat_producer(dir, bootstrap, &self.lines, self.batch(WRITTEN, count)),
        }
    }

    /// The file's records into the topic that is read.
    fn fill(&self) -> Result<u64> {
        let count = self.count(Client::Kcat);
        kcat_producer(&self.dir, &self.broker.bootstrap(), &self.lines, self.batch(READ, count))?;
        Ok(count)
    }

    fn batch<'a>(&'a self, topic: &'a str, count: u64) -> Batch<'a> {
        Batch { topic, codec: &self.codec, record: self.record, count }
    }
}
