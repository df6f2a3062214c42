//! The truth-logging clients, all with the same options.

mod client;
mod forward;
mod java;
mod kafkajs;
mod kcat;
mod kcat_log;
mod library;
pub mod python;
mod rdkafka;
mod rustls;
mod sarama;
mod work;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::truth::Truth;

pub use client::Client;
pub use forward::Forward;
pub use library::Library;
pub use work::{Consume, Produce};

impl Produce<'_> {
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
}
