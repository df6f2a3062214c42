//! What `doctor` says of TLS: whose memory would be searched for keys, and what that would cost.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ktrace_kafka::Speaks;
use serde_json::json;

use crate::capture::probe::KafkaSocket;
use crate::export::printable;
use crate::seen::{Ends, Process};
use crate::worker::{Learned, Opening, TlsOptions, TlsSource, may_open};

/// Bytes that a search looks through in a second of one core's time, about: AVX2 does 1.65 GB/s, other
/// processors somewhat less.
const SEARCHED_PER_SECOND: u64 = 1_500_000_000;

/// A process with TLS connections that are Kafka's, as far as is known.
#[derive(Clone, Debug)]
pub struct Searched {
    pid: u32,
    service: String,
    connections: usize,
    /// Its resident memory that may hold keys; `None` where it could not be read.
    resident: Option<u64>,
    what: What,
}

/// What would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Its memory is read when a new connection passes its first data.
    Search,
    /// The same, were it asked for.
    SearchIfOn,
    /// Its memory is not read: keys come from a key log.
    KeyLog,
    /// The user's lists leave it out.
    LeftOut,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Search => "is searched",
            Self::SearchIfOn => "would be searched with --tls memory",
            Self::KeyLog => "is not searched: keys come from the key log",
            Self::LeftOut => "is not searched: left out by --tls-service, --tls-cgroup or --tls-ports",
        }
    }
}

/// Of the connections that a doctor knows: those that were heard to be TLS, and silent ones on Kafka's ports.
pub fn of(sockets: &[KafkaSocket], tls: &TlsOptions) -> Vec<Searched> {
    let may_be_tls = |socket: &&KafkaSocket| matches!(socket.speaks, None | Some(Speaks::Tls));
    let mut by_process: BTreeMap<u32, (Arc<Process>, Vec<Ends>)> = BTreeMap::new();
    for socket in sockets.iter().filter(may_be_tls) {
        if let Some(owner) = &socket.owner {
            let of = by_process.entry(owner.pid).or_insert_with(|| (Arc::clone(owner), Vec::new()));
            of.1.push(socket.ends);
        }
    }
    let of_process = |(pid, (owner, ends)): (u32, (Arc<Process>, Vec<Ends>))| Searched {
        pid,
        service: owner.resource.service_name().to_owned(),
        connections: ends.len(),
        resident: resident(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()),
        what: what(&owner, &ends, tls),
    };
    by_process.into_iter().map(of_process).collect()
}

fn what(owner: &Process, ends: &[Ends], tls: &TlsOptions) -> What {
    let as_if_on = TlsOptions { source: TlsSource::Memory, ..tls.clone() };
    let opens =
        |ends: &Ends| may_open(ends, Some(owner), false, &Learned::default(), &as_if_on) == Opening::Yes;
    match tls.source {
        _ if !ends.iter().any(opens) => What::LeftOut,
        TlsSource::Off => What::SearchIfOn,
        TlsSource::Memory => What::Search,
        TlsSource::KeyLog(_) => What::KeyLog,
    }
}

/// What of a process's memory is its own and resident, in `/proc/PID/status`: no file's pages, but shared
/// memory, where some virtual machines have their heap.
fn resident(status: &str) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kibibytes("RssAnon:")? + kibibytes("RssShmem:")?) << 10)
}

impl Searched {
    fn takes(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.resident? as f64 / SEARCHED_PER_SECOND as f64))
    }
}

/// Empty where there is none.
pub fn text(all: &[Searched]) -> String {
    let mut out = String::new();
    for searched in all {
        if out.is_empty() {
            out += "\nTLS connections, or silent ones that may be:\n";
        }
        let Searched { pid, service, connections, .. } = searched;
        let cost = match (searched.resident, searched.takes()) {
            (Some(bytes), Some(takes)) => {
                let mebibytes = bytes as f64 / f64::from(1 << 20);
                format!("{mebibytes:.1} MiB, {:.0} ms of CPU a search", (takes.as_secs_f64() * 1e3).max(1.0))
            }
            _ => "size not known".to_owned(),
        };
        let plural = if *connections == 1 { "" } else { "s" };
        out += &format!(
            "  {} pid {pid}  {connections} connection{plural}  {cost}  {}\n",
            printable(service),
            searched.what.name()
        );
    }
    out
}

pub fn as_json(all: &[Searched]) -> serde_json::Value {
    let each = all.iter().map(|searched| {
        json!({
            "pid": searched.pid,
            "service": searched.service,
            "connections": searched.connections,
            "resident_bytes": searched.resident,
            "search_ms": searched.takes().map(|takes| (takes.as_secs_f64() * 1e4).round() / 10.0),
            "searched": searched.what == What::Search,
            "says": searched.what.name(),
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::Patterns;
    use crate::span::{Resource, Value};

    fn socket(pid: u32, service: &'static str, port: u16, speaks: Option<Speaks>) -> KafkaSocket {
        let resource = Resource::new(vec![("service.name".into(), Value::Str(service.into()))]);
        let owner = Process { pid, resource: Arc::new(resource), ..Process::default() };
        let ends = Ends { client: ([10, 0, 0, 1], 40000).into(), broker: ([10, 0, 0, 2], port).into() };
        KafkaSocket { ends, owner: Some(Arc::new(owner)), speaks }
    }

    #[test]
    fn each_process_once_with_what_would_be_done() {
        let (own, other) = (std::process::id(), u32::MAX);
        let sockets = [
            socket(own, "billing", 9093, Some(Speaks::Tls)),
            socket(own, "billing", 9093, None),
            socket(other, "orders", 9093, Some(Speaks::Tls)),
            socket(9, "plain", 9092, Some(Speaks::Kafka)),
        ];
        let with = |source| TlsOptions { source, ..TlsOptions::default() };
        let said = |tls: &TlsOptions| -> Vec<_> {
            of(&sockets, tls).into_iter().map(|of| (of.pid, of.connections, of.what)).collect()
        };
        assert_eq!(said(&with(TlsSource::Off)), [(own, 2, What::SearchIfOn), (other, 1, What::SearchIfOn)]);
        assert_eq!(said(&with(TlsSource::KeyLog("x".into())))[0].2, What::KeyLog);
        let services = Patterns::new(&["bill*".to_owned()]).unwrap();
        let narrowed = TlsOptions { services, ..with(TlsSource::Memory) };
        assert_eq!(said(&narrowed), [(own, 2, What::Search), (other, 1, What::LeftOut)]);
        let json = as_json(&of(&sockets, &narrowed));
        assert_eq!((&json[0]["searched"], &json[1]["searched"]), (&json!(true), &json!(false)));
        assert!(json[0]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 16));
        assert!(json[1]["resident_bytes"].is_null() && json[1]["search_ms"].is_null());
    }

    #[test]
    fn golden_text() {
        let searched = Searched {
            pid: 7,
            service: "billing".to_owned(),
            connections: 2,
            resident: resident(
                "Name:\tx\nRssAnon:\t    20480 kB\nRssFile:\t 900 kB\nRssShmem:\t  10240 kB\n",
            ),
            what: What::Search,
        };
        assert_eq!(
            text(std::slice::from_ref(&searched)),
            "\nTLS connections, or silent ones that may be:\n  billing pid 7  2 connections  30.0 MiB, 21 ms of CPU a search  is searched\n"
        );
        let gone = Searched { resident: resident(""), connections: 1, what: What::SearchIfOn, ..searched };
        assert!(text(&[gone]).contains("1 connection  size not known  would be"));
        assert_eq!(text(&[]), "");
    }
}
