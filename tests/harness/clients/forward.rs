//! Services between topics.

use std::path::Path;

use anyhow::{Result, bail};

use super::client::{Client, logging};
use super::library::Library;
use super::{kafkajs, python};

/// What a service does: it reads from the beginning, as a member of a group, and sends each message
/// on to `NAME-into` of the `NAME-…` that it read. The Python service does what the message's value
/// asks (`tests/clients/python/forward.py`).
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    /// confluent-kafka or kafkajs.
    pub library: Library,
    pub bootstrap: &'a str,
    pub topics: &'a [&'a str],
    pub into: &'a str,
    /// Also the client id and the group.
    pub service: &'a str,
    /// It ends when it has got this number.
    pub expect: usize,
}

impl Forward<'_> {
    /// Starts it; its files are in `dir` under its service's name. With further arguments of its
    /// program (`tests/clients`).
    pub fn start_with(&self, dir: &Path, extra: &[&str]) -> Result<Client> {
        let mut command = match self.library {
            Library::Python | Library::PythonInstrumented => python::python(self.library, "forward")?,
            Library::Kafkajs | Library::KafkajsInstrumented => kafkajs::kafkajs(self.library, "forward")?,
            other => bail!("{} has no service between topics", other.name()),
        };
        logging(&mut command, self.service, dir, |truth| self.options(truth), extra)
    }

    fn options(&self, truth: &Path) -> Vec<String> {
        [
            ("bootstrap", self.bootstrap),
            ("topic", &self.topics.join(",")),
            ("into", self.into),
            ("service", self.service),
            ("client-id", self.service),
            ("group", self.service),
            ("truth", &truth.to_string_lossy()),
            ("expect", &self.expect.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect()
    }
}
