//! Each row of the table: that it is honoured, or named, and that the documentation says so.

use std::collections::BTreeMap;

use super::super::endpoint::{Endpoint, METRICS, OtlpOptions, TRACES};
use super::super::{metrics, otlp};
use super::*;

fn environment(set: &[(&str, &str)]) -> Environment {
    set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// All that the environment decides.
fn effect(set: &[(&str, &str)]) -> String {
    let environment = environment(set);
    let options = OtlpOptions { url: None, environment: environment.clone() };
    let endpoint = |signal| match Endpoint::of(signal, &options) {
        Ok(endpoint) => {
            let Endpoint { protocol, headers, compression, timeout, .. } = &endpoint;
            format!("{endpoint} {protocol:?} {headers:?} {compression:?} {timeout:?}")
        }
        Err(error) => error.to_string(),
    };
    let exports = ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"].map(|name| environment.exports(name));
    let [traces, metrics] = [&TRACES, &METRICS].map(endpoint);
    format!(
        "{traces} {metrics} {exports:?} {} {}",
        otlp::settings(&environment),
        metrics::settings(&environment)
    )
}

/// A value that is not the default.
fn unusual(name: &str, kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "7",
        Kind::Boolean => "true",
        Kind::Pairs => "team=payments",
        Kind::OneOf(values) => values.last().unwrap(),
        _ if name.ends_with("_HEADERS") => "api-key=1",
        _ if name.ends_with("_ENDPOINT") => "http://elsewhere:4317",
        // As a file: without a certificate or a key in it.
        _ => "/dev/null",
    }
}

#[test]
fn each_variable_is_honoured_or_named() {
    for Variable { name, kind, .. } in VARIABLES {
        let value = unusual(name, *kind);
        let remarks = environment(&[(name, value)]).remarks();
        if let Kind::Ignored { why, .. } = kind {
            assert_eq!(remarks, [format!("{name} is not honoured: {why}")]);
            continue;
        }
        // Only an endpoint without a scheme needs to know.
        let base: &[_] = match name.ends_with("_INSECURE") {
            true => &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")],
            false => &[],
        };
        assert_ne!(
            effect(base),
            effect(&[base, &[(name, value)]].concat()),
            "{name}={value} changes nothing"
        );
        assert!(remarks.iter().all(|remark| !remark.contains("not")) || value == "none", "{remarks:?}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_ignored() {
    for Variable { name, kind, .. } in VARIABLES {
        if matches!(kind, Kind::Text | Kind::Ignored { .. }) {
            continue;
        }
        let set = [(*name, "abc\u{202e}")];
        let remarks = environment(&set).remarks();
        assert_eq!(remarks, [format!("{name}=abc\u{fffd} is ignored: it is not {}", kind.wanted())]);
        assert_eq!(effect(&[]), effect(&set), "{name}");
        assert_eq!(environment(&[(name, " ")]).remarks(), [""; 0], "empty is not set");
    }
}

#[test]
fn what_is_turned_off_is_said_and_what_is_unknown_is_named() {
    let remarks = environment(&[
        ("OTEL_SDK_DISABLED", "True"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_GO_X_EXEMPLAR", "true"),
        ("OTEL_NEW", "1"),
        ("OTEL_COLLECTOR_PORT_4317_TCP_ADDR", "10.0.0.1"),
        ("OTEL_COLLECTOR_SERVICE_PORT_OTLP", "4317"),
        ("PATH", "/bin"),
    ])
    .remarks();
    let expected = [
        "OTEL_SDK_DISABLED=true: neither spans nor metrics are exported",
        "OTEL_TRACES_EXPORTER=none: no spans are exported",
        "not known, and not honoured: OTEL_GO_X_EXEMPLAR, OTEL_NEW",
    ];
    assert_eq!(remarks, expected);
}

#[test]
fn the_documentation_has_the_same_table() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
    let rows: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `OTEL_")?.split_once("` | "))
        .map(|(name, rest)| (format!("OTEL_{name}"), rest.split(" | ").next().unwrap()))
        .collect();
    let expected: BTreeMap<_, _> = VARIABLES
        .iter()
        .map(|variable| {
            let honoured = if matches!(variable.kind, Kind::Ignored { .. }) { "no" } else { "yes" };
            (variable.name.to_owned(), honoured)
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn pairs_have_percent_escapes() {
    let read = pairs("X", "a=1, b = %C3%A9%2c,c=100%,d=%zz,,e=").unwrap();
    let read: Vec<_> = read.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(read, [("a", "1"), ("b", "é,"), ("c", "100%"), ("d", "%zz"), ("e", "")]);
    assert!(pairs("X", "a").is_err() && pairs("X", "=1").is_err());
}
