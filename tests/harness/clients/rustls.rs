//! Rust clients over rustls.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::{Client, logging};
use super::library::Library;
use super::work::{Consume, Produce};
use crate::process;
use crate::tools::{self, Provider};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = rustls(what.library)?;
    logging(command.arg("produce"), what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = rustls(what.library)?;
    logging(command.arg("consume"), what.service, dir, |truth| what.options(truth), extra)
}

fn rustls(library: Library) -> Result<Command> {
    let provider = if library == Library::RustlsAwsLc { Provider::AwsLc } else { Provider::Ring };
    Ok(process::command(tools::rustls(provider)?))
}
