//! Several brokers that are one cluster, each of them a controller too; every partition has a
//! replica on each, up to three.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::broker::{Broker, Settings};
use crate::{cache, clients, ports};

#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    dir: PathBuf,
    settings: Settings,
    broker: Option<Broker>,
}

/// How many.
const NODES: usize = 3;

impl Cluster {
    /// Starts the nodes, each with a directory of its own below `dir`, and returns when all of them
    /// serve.
    pub fn start(dir: &Path) -> Result<Self> {
        let ports = ports::free::<{ 2 * NODES }>()?;
        let (brokers, controllers) = ports.split_at(NODES);
        let nodes = (1..).zip(brokers).map(|(node_id, &port)| Node {
            dir: dir.join(format!("node-{node_id}")),
            settings: Settings {
                port,
                node_id,
                heap_mib: 256,
                quorum: controllers.to_vec(),
                ..Settings::default()
            },
            broker: None,
        });
        let mut cluster = Self { nodes: nodes.collect() };
        for node in &mut cluster.nodes {
            node.broker = Some(Broker::launch(&node.dir, &node.settings)?);
        }
        for broker in cluster.nodes.iter_mut().filter_map(|node| node.broker.as_mut()) {
            broker.wait_until_it_serves()?;
        }
        Ok(cluster)
    }

    /// `host:port` of all, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let brokers: Vec<_> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.settings.port)).collect();
        brokers.join(",")
    }

    /// All ports, those of the controllers too, as the agent takes them.
    #[must_use]
    pub fn ports(&self) -> String {
        let controllers = self.nodes.first().map(|node| node.settings.quorum.iter());
        let ports =
            self.nodes.iter().map(|node| &node.settings.port).chain(controllers.into_iter().flatten());
        ports.map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    /// Deletes topics of these names, and creates them.
    pub fn create_topics(&self, partitions: u32, names: &[&str]) -> Result<()> {
        self.nodes
            .iter()
            .find_map(|node| node.broker.as_ref())
            .context("no broker runs")?
            .create_topics(partitions, names)
    }

    /// Moves the leaders of all partitions of a topic: another `turn`, another broker.
    pub fn move_leaders(&self, topic: &str, turn: usize) -> Result<()> {
        let script = clients::python::script("leaders")?;
        cache::step(script.get_program(), |step| {
            step.args(script.get_args()).args([&self.bootstrap(), topic, &turn.to_string()])
        })
    }

    /// A broker ends as it should, and gives its partitions to others.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.take(index)?.stop()
    }

    /// A broker is killed.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.take(index).map(drop)
    }

    /// One that has ended begins anew, with what it had written.
    pub fn start_again(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        node.broker = Some(Broker::start(&node.dir, &node.settings)?);
        Ok(())
    }

    fn take(&mut self, index: usize) -> Result<Broker> {
        self.nodes.get_mut(index).and_then(|node| node.broker.take()).context("no such broker runs")
    }
}
