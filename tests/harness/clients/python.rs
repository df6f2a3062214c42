//! Python clients: confluent-kafka, with a script for either side, kafka-python and aiokafka, with
//! one for both.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::{Client, logging};
use super::library::Library;
use super::work::{Consume, Produce};
use crate::{process, tools};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = python(what.library, "produce")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = python(what.library, "consume")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

/// A script of `tests/clients/python`, with what it needs.
pub fn script(name: &str) -> Result<Command> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let mut command: Command = process::command(tools::python()?);
    // no bytecode beside the sources
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(scripts.join(name).with_extension("py"));
    Ok(command)
}

pub(super) fn python(library: Library, verb: &str) -> Result<Command> {
    let of_both = match library {
        Library::KafkaPython | Library::KafkaPythonInstrumented => Some("kafka_python"),
        Library::Aiokafka => Some("aiokafka_client"),
        _ => None,
    };
    let mut command = script(of_both.unwrap_or(verb))?;
    command.args(of_both.map(|_| verb));
    if library.is_instrumented() {
        command.args(["--instrumented", "true"]);
    }
    Ok(command)
}
