//! Two runs over the same messages, as a live one and a replay of its capture, give the same spans.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::spans::Span;

/// Times may differ by this much: the kernel program and the packet capture stamp at different
/// places.
const TOLERANCE_NS: u64 = 5_000_000;

/// What differs: how often by what, and the first cases.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    pub compared: usize,
    pub counts: BTreeMap<String, usize>,
    pub cases: Vec<String>,
}

impl Differences {
    /// The same, and not because there was nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.counts.is_empty() && self.compared > 0
    }

    fn add(&mut self, what: &str, case: impl FnOnce() -> String) {
        *self.counts.entry(what.into()).or_default() += 1;
        if self.cases.len() < 5 {
            self.cases.push(format!("{what}: {}", case()));
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} spans in both; differences: {:?}", self.compared, self.counts)?;
        self.cases.iter().try_for_each(|case| writeln!(f, "{case}"))
    }
}

/// Compares by span id all but the resource, which a capture file does not have.
#[must_use]
pub fn compare(live: &[Span], replayed: &[Span]) -> Differences {
    let mut differences = Differences::default();
    let by_id = |spans: &[Span]| -> BTreeMap<(String, String), Span> {
        spans.iter().map(|span| ((span.trace_id.clone(), span.span_id.clone()), span.clone())).collect()
    };
    let (live, mut replayed) = (by_id(live), by_id(replayed));
    for (id, one) in &live {
        let Some(other) = replayed.remove(id) else {
            differences.add("only live", || format!("{one:?}"));
            continue;
        };
        differences.compared += 1;
        let both = || format!("{one:?}\n  and {other:?}");
        for (what, same) in [
            ("parent", one.parent_span_id == other.parent_span_id),
            ("links", one.links == other.links),
            ("name", one.name == other.name),
            ("kind", one.kind == other.kind),
            ("status", one.status == other.status),
            ("start", one.start_unix_nanos.abs_diff(other.start_unix_nanos) <= TOLERANCE_NS),
            ("end", one.end_unix_nanos.abs_diff(other.end_unix_nanos) <= TOLERANCE_NS),
        ] {
            if !same {
                differences.add(what, both);
            }
        }
        for name in one
            .attributes
            .keys()
            .chain(other.attributes.keys().filter(|name| !one.attributes.contains_key(*name)))
        {
            if !agree(name, one.attributes.get(name), other.attributes.get(name)) {
                differences.add(&format!("attribute {name}"), both);
            }
        }
    }
    for span in replayed.values() {
        differences.add("only replayed", || format!("{span:?}"));
    }
    differences
}

/// Equal, but for attributes that are times themselves: those in milliseconds bear the same
/// tolerance as the span's ends.
fn agree(name: &str, one: Option<&Value>, other: Option<&Value>) -> bool {
    let ms = |value: Option<&Value>| value.and_then(Value::as_f64);
    match (ms(one), ms(other)) {
        (Some(one), Some(other)) if name.ends_with("_ms") => (one - other).abs() <= TOLERANCE_NS as f64 / 1e6,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::compare;
    use crate::spans::{Kind, Span};

    fn span(id: &str) -> Span {
        serde_json::from_value(json!({
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": id, "parent_span_id": null,
            "links": [], "name": "send orders", "kind": "producer",
            "start_unix_nanos": 1_000_000_000, "end_unix_nanos": 1_001_000_000,
            "status": "unset", "resource": {"service.name": id}, "attributes": {"messaging.kafka.offset": 7}
        }))
        .expect("a span")
    }

    #[test]
    fn resource_and_small_shifts_do_not_count() {
        let mut shifted = span("01");
        shifted.resource.clear();
        shifted.start_unix_nanos += 4_000_000;
        assert!(compare(&[span("01")], &[shifted]).is_none());
    }

    #[test]
    fn attributes_that_are_times_may_shift_but_not_be_missing() {
        let queued = |ms: f64| {
            let mut span = span("01");
            span.attributes.insert("ktrace.queue_time_ms".into(), json!(ms));
            span
        };
        assert!(compare(&[queued(9.886)], &[queued(9.885)]).is_none());
        assert!(!compare(&[queued(9.0)], &[queued(15.0)]).is_none());
        assert!(!compare(&[queued(9.0)], &[span("01")]).is_none());
    }

    #[test]
    fn nothing_compared_is_no_agreement() {
        assert!(!compare(&[], &[]).is_none());
    }

    #[test]
    fn each_difference_has_its_name() {
        let mut other = span("01");
        other.kind = Kind::Client;
        other.end_unix_nanos += 6_000_000;
        other.attributes.insert("messaging.kafka.offset".into(), json!(8));
        other.attributes.insert("ktrace.lag".into(), json!(0));
        let differences = compare(&[span("01"), span("02")], &[other, span("03")]);
        let names: Vec<&str> = differences.counts.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "attribute ktrace.lag",
                "attribute messaging.kafka.offset",
                "end",
                "kind",
                "only live",
                "only replayed"
            ]
        );
    }
}
