//! The agent as it is measured.

use std::path::Path;

use anyhow::Result;
use harness::agent::{self, Agent};
use harness::collector::Collector;
use harness::process;

/// How the agent is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Use {
    /// `ktrace run --sample 0.01`, to a real collector on the same cores
    Sampled,
    /// `ktrace observe -o json > file`, every span
    Everything,
}

impl Use {
    pub const ALL: [Self; 2] = [Self::Sampled, Self::Everything];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sampled => "run, 1 %",
            Self::Everything => "observe, all",
        }
    }

    pub fn start(self, dir: &Path, port: u16, collector: &Collector) -> Result<Agent> {
        let mut command = process::command(agent::binary());
        let url = collector.grpc_url();
        let (command, extra): (_, &[&str]) = match self {
            Self::Sampled => (command.arg("run"), &["--sample", "0.01", "--otlp", &url]),
            Self::Everything => (command.args(["observe", "-o", "json"]), &[]),
        };
        Agent::start(dir, "agent", command, port, extra)
    }
}
