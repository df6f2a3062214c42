//! Node clients (kafkajs).

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::{Client, logging};
use super::library::Library;
use super::work::{Consume, Produce};
use crate::{process, tools};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = kafkajs(what.library, "produce")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = kafkajs(what.library, "consume")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn kafkajs(library: Library, verb: &str) -> Result<Command> {
    let mut command = process::command("node");
    command.arg(tools::kafkajs()?).arg(verb);
    if library == Library::KafkajsInstrumented {
        command.args(["--instrumented", "true"]);
    }
    Ok(command)
}
