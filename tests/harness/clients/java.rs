//! Java clients, with and without the OpenTelemetry Java agent.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Client, Consume, Library, Log, Produce, log_file, truth_file};
use crate::process::{self, Process};
use crate::tools;

pub(super) fn produce(what: &Produce<'_>, dir: &Path) -> Result<Client> {
    let truth = truth_file(dir, what.service);
    let mut command = java(what.library, what.service, "TruthProducer")?;
    command.args(what.options(&truth)).args(["--client", what.library.name()]);
    let process = Process::start(what.service, &mut command, &log_file(dir, what.service))?;
    Ok(Client { process, log: Log::Lines(truth) })
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path) -> Result<Client> {
    let truth = truth_file(dir, what.service);
    let mut command = java(what.library, what.service, "TruthConsumer")?;
    command.args(what.options(&truth)).args(["--client", what.library.name()]);
    let process = Process::start(what.service, &mut command, &log_file(dir, what.service))?;
    Ok(Client { process, log: Log::Lines(truth) })
}

fn java(library: Library, service: &str, main: &str) -> Result<Command> {
    let mut classes = tools::java_clients()?.into_os_string();
    classes.push(":");
    classes.push(tools::kafka(tools::KAFKA_VERSION)?);
    let mut command = process::command("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]);
    // the broker's log is at info, clients tell only what is wrong
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    if library == Library::JavaAgent {
        let mut agent = std::ffi::OsString::from("-javaagent:");
        agent.push(tools::java_agent()?);
        command.arg(agent);
        for signal in ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"] {
            command.env(signal, "none");
        }
    }
    command.env("OTEL_SERVICE_NAME", service).arg("-cp").arg(classes).arg(main);
    Ok(command)
}
