//! The tools that tests and demo run, one file each. Each function returns where the tool is and
//! makes it first if need be.

mod collector;
mod jaeger;
mod java;
mod jre;
mod kafka;
mod kafkajs;
mod python;
mod rdkafka;
mod rustls;
mod sarama;

pub use collector::collector;
pub use jaeger::jaeger;
pub use java::{agent as java_agent, clients as java_clients};
pub use jre::{Jre, jre};
pub use kafka::{KAFKA_OLD_VERSION, KAFKA_VERSION, kafka};
pub use kafkajs::kafkajs;
pub use python::python;
pub use rdkafka::rdkafka;
pub use rustls::{Provider, rustls};
pub use sarama::sarama;

use std::path::{Path, PathBuf};

/// `tests/` in the source tree.
fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The class path of all jars in a directory.
fn jars(dir: &Path) -> PathBuf {
    dir.join("*")
}
