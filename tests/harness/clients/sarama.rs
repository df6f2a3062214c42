//! Go clients (sarama).

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::{Client, logging};
use super::library::Library;
use super::work::{Consume, Produce};
use crate::{process, tools};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = sarama(what.library, "produce")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = sarama(what.library, "consume")?;
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

fn sarama(library: Library, verb: &str) -> Result<Command> {
    let mut command = process::command(tools::sarama()?);
    command.arg(verb);
    if library == Library::SaramaInstrumented {
        command.args(["-instrumented", "true"]);
    }
    Ok(command)
}
