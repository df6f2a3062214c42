//! Java clients, with and without the OpenTelemetry Java agent.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::{Client, logging};
use super::library::Library;
use super::work::{Consume, Produce};
use crate::{process, tools};

pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = java(what.library, "TruthProducer", extra)?;
    command.args(["--client", what.library.name()]);
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let mut command = java(what.library, "TruthConsumer", extra)?;
    command.args(["--client", what.library.name()]);
    logging(&mut command, what.service, dir, |truth| what.options(truth), extra)
}

/// The OpenTelemetry Java agent's own spans go where `--otlp URL` among the arguments says, and
/// else nowhere. `--java PROGRAM` there is another Java than the host's, `--jvm "OPTION …"` how it
/// is tuned.
fn java(library: Library, main: &str, extra: &[&str]) -> Result<Command> {
    let mut classes = tools::java_clients()?.into_os_string();
    classes.push(":");
    let old = library == Library::JavaOld;
    classes.push(tools::kafka(if old { tools::KAFKA_OLD_VERSION } else { tools::KAFKA_VERSION })?);
    let mut command = process::command(value(extra, "--java").unwrap_or("java"));
    match value(extra, "--jvm") {
        Some(options) => command.args(options.split(' ')),
        None => command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]),
    };
    // the broker's log is at info, clients log only what is wrong
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    if library == Library::JavaAgent {
        let mut agent = std::ffi::OsString::from("-javaagent:");
        agent.push(tools::java_agent()?);
        command.arg(agent);
        for signal in ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"] {
            command.env(signal, "none");
        }
        if let Some(url) = value(extra, "--otlp") {
            command.env("OTEL_TRACES_EXPORTER", "otlp").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        }
    }
    command.arg("-cp").arg(classes).arg(main);
    Ok(command)
}

/// What follows a name among the arguments.
fn value<'a>(arguments: &[&'a str], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|one| *one == name)?;
    arguments.get(at + 1).copied()
}
