//! Three hosts: producers on one, a consumer on another, and the broker between them on a third.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::broker::{Broker, Settings};
use crate::clients::{Consume, Library, Produce};
use crate::namespace::{End, Namespace, wire};
use crate::need::Need;
use crate::truth::Truth;

pub const NEEDS: [Need; 4] =
    [Need::Program("java"), Need::Program("go"), Need::Program("ip"), Need::Program("unshare")];

const BROKER: &str = "10.79.9.9";
const TOPIC: &str = "orders";

/// Library, style of the headers and codec of each producer.
const PRODUCERS: [(Library, &str, &str); 4] = [
    (Library::JavaAgent, "none", "gzip"),
    (Library::Python, "none", "lz4"),
    (Library::Python, "b3", "zstd"),
    (Library::Sarama, "traceparent", "snappy"),
];

#[derive(Debug)]
pub struct Hosts {
    pub producers: Namespace,
    pub consumers: Namespace,
    pub broker: Broker,
    _brokers: Namespace,
}

impl Hosts {
    pub fn new(dir: &Path) -> Result<Self> {
        let namespace = |name| Namespace::new(dir, name);
        let (producers, brokers, consumers) =
            (namespace("producers")?, namespace("brokers")?, namespace("consumers")?);
        for (host, link, net) in [(&producers, "one", "10.79.1"), (&consumers, "two", "10.79.2")] {
            let (own, other) = (format!("{net}.2/24"), format!("{net}.1/24"));
            wire(
                End { namespace: host, link: "eth0", address: &own },
                End { namespace: &brokers, link, address: &other },
            )?;
            host.ip(&format!("route add default via {net}.1"))?;
        }
        brokers.ip(&format!("addr add {BROKER}/32 dev lo"))?;
        let broker = brokers.within(|| {
            let broker = Broker::start(dir, &Settings { host: BROKER, ..Settings::default() })?;
            broker.create_topics(3, &[TOPIC])?;
            Ok(broker)
        })?;
        Ok(Self { producers, consumers, broker, _brokers: brokers })
    }

    /// `count` messages of each producer, one after the other, while the consumer reads.
    pub fn talk(&self, dir: &Path, count: u32) -> Result<Truth> {
        let bootstrap = self.broker.bootstrap();
        let expect = count as usize * PRODUCERS.len();
        let consumer = Consume {
            library: Library::Java,
            bootstrap: &bootstrap,
            topics: &[TOPIC],
            service: "in",
            group: "in",
            expect,
        };
        let consumer = self.consumers.within(|| consumer.start(dir))?;
        let mut truth = Truth::default();
        self.producers.within(|| {
            for (number, (library, header_style, codec)) in PRODUCERS.into_iter().enumerate() {
                let service = format!("out-{number}");
                let new = Produce::new(library, &bootstrap, TOPIC, &service);
                Produce { count, codec, header_style, ..new }.run(dir, &mut truth)?;
            }
            Ok(())
        })?;
        consumer.finish(Duration::from_secs(120), &mut truth)?;
        truth.resolve();
        Ok(truth)
    }
}
