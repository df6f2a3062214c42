//! Rust clients (rdkafka).

use std::path::Path;

use anyhow::Result;

use super::client::{Client, logging};
use super::work::{Consume, Produce};
use crate::{process, tools};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = process::command(tools::rdkafka()?);
    logging(command.arg("produce"), what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = process::command(tools::rdkafka()?);
    logging(command.arg("consume"), what.service, dir, |truth| what.options(truth), extra)
}
