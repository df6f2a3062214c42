//! The truth-logging Java clients, compiled, and the OpenTelemetry Java agent.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{cache, tools};

/// The directory of the clients' classes.
pub fn clients() -> Result<PathBuf> {
    let recipe = [
        include_str!("../../clients/java/Cell.java"),
        include_str!("../../clients/java/HeaderStyle.java"),
        include_str!("../../clients/java/Options.java"),
        include_str!("../../clients/java/ProduceLatency.java"),
        include_str!("../../clients/java/Security.java"),
        include_str!("../../clients/java/Truth.java"),
        include_str!("../../clients/java/TruthConsumer.java"),
        include_str!("../../clients/java/TruthProducer.java"),
        include_str!("../../clients/java/TruthShareConsumer.java"),
        tools::KAFKA_VERSION,
    ];
    let kafka = tools::kafka(tools::KAFKA_VERSION)?;
    cache::tool("java-clients", &recipe, |dir| {
        let mut sources = Vec::new();
        for entry in std::fs::read_dir(tools::sources().join("clients/java"))? {
            sources.push(entry?.path());
        }
        cache::step("javac", |javac| javac.arg("-d").arg(dir).arg("-cp").arg(kafka).args(sources))
    })
}

/// The agent's jar.
pub fn agent() -> Result<PathBuf> {
    let pom = include_str!("../../tools/javaagent/pom.xml");
    let dir = cache::tool("opentelemetry-javaagent", &[pom], |dir| {
        cache::step("mvn", |mvn| {
            mvn.args(["-q", "-B", "-f"])
                .arg(tools::sources().join("tools/javaagent/pom.xml"))
                .arg("dependency:copy-dependencies")
                .arg(format!("-DoutputDirectory={}", dir.display()))
        })
    })?;
    std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "jar"))
        .context("the Java agent has no jar")
}
