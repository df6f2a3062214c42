//! Python clients (confluent-kafka).

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Client, Consume, Log, Produce, log_file, truth_file};
use crate::process::{self, Process};
use crate::tools;

pub(super) fn produce(what: &Produce<'_>, dir: &Path) -> Result<Client> {
    let truth = truth_file(dir, what.service);
    start("produce.py", what.service, &what.options(&truth), &truth, dir)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path) -> Result<Client> {
    let truth = truth_file(dir, what.service);
    start("consume.py", what.service, &what.options(&truth), &truth, dir)
}

fn start(script: &str, service: &str, options: &[String], truth: &Path, dir: &Path) -> Result<Client> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let mut command: Command = process::command(tools::python()?);
    // no bytecode beside the sources
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("OTEL_SERVICE_NAME", service);
    command.arg(scripts.join(script)).args(options);
    let process = Process::start(service, &mut command, &log_file(dir, service))?;
    Ok(Client { process, log: Log::Lines(truth.into()) })
}
