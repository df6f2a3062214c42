//! `ktrace doctor`: what this host allows, and what to do about what it does not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use ktrace_kafka::Speaks;
use serde_json::json;

use super::look::{Heard, look};
use super::tls::Tls;
use super::{Failure, searched};
use crate::capture::PortSet;
use crate::capture::probe::{self, Check, KafkaSocket, Report};
use crate::export::{self, printable};
use crate::privilege;
use crate::worker::TlsOptions;

/// How long the doctor listens: group members send a heartbeat every 3 s, and what is busy much more often.
const LOOK: Duration = Duration::from_millis(3500);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kafka ports looked for among the sockets of this host
    #[arg(long, value_name = "LIST", env = "KTRACE_PORTS", default_value = "auto")]
    ports: PortSet,
    /// The cgroup v2 directory that ktrace is to be attached to [default: the root]
    #[arg(long, value_name = "PATH", env = "KTRACE_CGROUP")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
    /// How the findings are printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Output,
}

/// How a verb that reports once prints.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Output {
    /// For eyes
    Text,
    /// One JSON object
    Json,
}

/// Exit code 0 where capture is possible, else 3.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    privilege::harden();
    let cgroup = args.cgroup.as_deref();
    let tls = args.tls.options(&args.ports)?;
    let mut report = probe::run(&args.ports, cgroup, &tls);
    let can = report.can_capture();
    let heard = if can { look(&args.ports, cgroup, &tls, LOOK).unwrap_or_default() } else { Vec::new() };
    add(&mut report, heard);
    let searched = searched::of(&report.sockets, &tls);
    let written = match args.output {
        Output::Text => {
            let mut out = anstream::stdout().lock();
            write!(out, "{}{}", text(&report), searched::text(&searched)).and_then(|()| out.flush())
        }
        Output::Json => {
            let mut out = std::io::stdout().lock();
            let mut json = as_json(&report);
            json["tls"] = searched::as_json(&searched);
            let json = export::json(&json).unwrap_or_default();
            writeln!(out, "{json}").and_then(|()| out.flush())
        }
    };
    // A reader that is gone has seen what it wanted.
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(Failure::failed(
            format_args!("cannot write the findings: {error}"),
            "check that there is space where standard output goes",
        ));
    }
    Ok(if report.can_capture() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// Adds what was heard to the connections that are known by their ports.
fn add(report: &mut Report, heard: Vec<Heard>) {
    for Heard { ends, owner, speaks, .. } in heard {
        match report.sockets.iter_mut().find(|socket| socket.ends == ends) {
            Some(known) => {
                known.speaks = Some(speaks);
                known.owner = owner.or(known.owner.take());
            }
            None if speaks == Speaks::Unknown => {}
            None => report.sockets.push(KafkaSocket { ends, owner, speaks: Some(speaks) }),
        }
    }
}

/// What a connection was found to be.
fn spoken(speaks: Option<Speaks>) -> &'static str {
    match speaks {
        Some(Speaks::Kafka) => "Kafka",
        Some(Speaks::Tls) => "TLS",
        Some(Speaks::Other | Speaks::Unknown) => "not told yet",
        None => "silent",
    }
}

/// What the doctor would say of this host, as further lines of an error: of what there is no capture without; `otherwise` where
/// it finds nothing wrong with that.
pub fn advice(ports: &PortSet, cgroup: Option<&Path>, otherwise: &str) -> String {
    let report = probe::run(ports, cgroup, &TlsOptions::default());
    let advice: Vec<_> = report
        .items
        .iter()
        .filter(|item| !item.ok && item.needed)
        // What has none follows from something else that is missing.
        .filter_map(|item| Some(format!("{}: {}: {}", item.name, item.detail, item.advice.as_deref()?)))
        .collect();
    if advice.is_empty() { otherwise.to_owned() } else { advice.join("\n        ") }
}

/// With colours; the stream takes them out where there is no terminal.
fn text(report: &Report) -> String {
    let faint = Style::new().dimmed();
    let width = report.items.iter().map(|item| item.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (title, needed) in [("Needed:\n", true), ("\nOptional:\n", false)] {
        out += title;
        for item in report.items.iter().filter(|item| item.needed == needed) {
            out += &line(item, width);
        }
    }
    if !report.sockets.is_empty() {
        out += "\nKafka connections:\n";
    }
    for socket in &report.sockets {
        let owner = socket.owner.as_deref();
        let pid = owner.map(|owner| format!(" pid {}", owner.pid)).unwrap_or_default();
        let service = printable(owner.map_or("unknown process", |owner| owner.resource.service_name()));
        let spoken = spoken(socket.speaks);
        out += &format!(
            "  {} → {}  {service}{faint}{pid}{faint:#}  {spoken}\n",
            socket.ends.client, socket.ends.broker
        );
    }
    out
}

fn line(item: &Check, width: usize) -> String {
    let (good, bad, lacking) =
        (AnsiColor::Green.on_default(), AnsiColor::Red.on_default().bold(), AnsiColor::Yellow.on_default());
    let (style, mark) = match (item.ok, item.needed) {
        (true, _) => (good, '✓'),
        (false, true) => (bad, '✗'),
        (false, false) => (lacking, '–'),
    };
    let padding = " ".repeat(width.saturating_sub(item.name.chars().count()));
    let mut out = format!("{style}{mark}{style:#} {}{padding}  {}\n", item.name, item.detail);
    if let Some(advice) = &item.advice {
        out += &format!("    {advice}\n");
    }
    out
}

fn as_json(report: &Report) -> serde_json::Value {
    let items = report
        .items
        .iter()
        .map(|item| json!({"name": item.name, "ok": item.ok, "needed": item.needed, "detail": item.detail, "advice": item.advice}));
    let sockets = report.sockets.iter().map(|socket| {
        json!({
            "client": socket.ends.client,
            "broker": socket.ends.broker,
            "pid": socket.owner.as_ref().map(|owner| owner.pid),
            "service": socket.owner.as_ref().map(|owner| owner.resource.service_name()),
            "speaks": spoken(socket.speaks),
        })
    });
    json!({
        "possible": report.can_capture(),
        "items": items.collect::<Vec<_>>(),
        "sockets": sockets.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seen::{Ends, Process};
    use crate::span::{Resource, Value};

    fn report() -> Report {
        let check = |name: &str, (ok, needed), advice: Option<&str>| Check {
            name: name.to_owned(),
            ok,
            needed,
            detail: "seen".to_owned(),
            advice: advice.map(str::to_owned),
        };
        let ends = Ends { client: ([10, 0, 0, 1], 40000).into(), broker: ([10, 0, 0, 2], 9092).into() };
        let attributes = vec![("service.name".into(), Value::Str("billing".into()))];
        let owner =
            Arc::new(Process { pid: 7, resource: Arc::new(Resource::new(attributes)), ..Process::default() });
        Report {
            items: vec![
                check("kernel", (true, true), None),
                check("/proc", (false, false), Some("mount it")),
                check("capabilities", (false, true), Some("add CAP_BPF")),
            ],
            sockets: vec![
                KafkaSocket { ends, owner: Some(owner), speaks: Some(Speaks::Tls) },
                KafkaSocket { ends, owner: None, speaks: None },
            ],
        }
    }

    #[test]
    fn golden_text() {
        let plain = anstream::adapter::strip_str(&text(&report())).to_string();
        assert_eq!(
            plain,
            "Needed:\n✓ kernel        seen\n✗ capabilities  seen\n    add CAP_BPF\n\nOptional:\n– /proc         seen\n    mount it\n\nKafka connections:\n  10.0.0.1:40000 → 10.0.0.2:9092  billing pid 7  TLS\n  10.0.0.1:40000 → 10.0.0.2:9092  unknown process  silent\n"
        );
    }

    #[test]
    fn json_tells_whether_capture_is_possible() {
        let json = as_json(&report());
        assert_eq!(json["possible"], false);
        assert_eq!(json["items"][2]["advice"], "add CAP_BPF");
        assert_eq!((&json["items"][1]["needed"], &json["items"][2]["needed"]), (&json!(false), &json!(true)));
        assert_eq!(json["sockets"][0]["broker"], "10.0.0.2:9092");
    }
}
