//! Kafka's jars of one version: broker, tools and Java client.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// The version that tests use if they do not name another.
pub const KAFKA_VERSION: &str = "4.3.0";

/// The last line of releases whose brokers still speak the protocol of before Kafka 0.11 (removed
/// by KIP-896).
pub const KAFKA_OLD_VERSION: &str = "3.9.1";

/// The class path.
pub fn kafka(version: &str) -> Result<PathBuf> {
    let pom = include_str!("../../tools/kafka/pom.xml");
    let dir = cache::tool(&format!("kafka-{version}"), &[pom, version], |dir| {
        cache::step("mvn", |mvn| {
            mvn.args(["-q", "-B", "-f"])
                .arg(tools::sources().join("tools/kafka/pom.xml"))
                .arg("dependency:copy-dependencies")
                .arg(format!("-Dkafka.version={version}"))
                .arg(format!("-DoutputDirectory={}", dir.display()))
        })
    })?;
    Ok(tools::jars(&dir))
}
