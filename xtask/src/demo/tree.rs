//! Spans as trees, one a message, to be understood at a glance.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use harness::spans::Span;
use serde_json::Value;

/// The spans that are a message's sending or delivery.
pub fn hops(spans: &[Span]) -> impl Iterator<Item = &Span> {
    spans.iter().filter(|span| matches!(span.operation(), "send" | "poll"))
}

/// All messages in the order of their first span; times are seconds since the very first.
pub fn render(spans: &[Span]) -> String {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in hops(spans) {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    let mut traces: Vec<Vec<&Span>> = traces.into_values().collect();
    for trace in &mut traces {
        // a fetch that waits at the broker may have begun before the message was sent
        trace.sort_by_key(|span| (span.operation() != "send", span.start_unix_nanos));
    }
    traces.sort_by_key(|trace| trace.iter().map(|span| span.start_unix_nanos).min());
    let zero = hops(spans).map(|span| span.start_unix_nanos).min().unwrap_or_default();
    let width = hops(spans).map(|span| span.service().chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for trace in traces {
        message(&mut text, &trace, zero, width);
        text.push('\n');
    }
    text
}

fn message(text: &mut String, trace: &[&Span], zero: u64, width: usize) {
    let Some(first) = trace.first() else { return };
    let _ = writeln!(text, "trace {}  {}", first.trace_id, origin(first));
    let is_inside = |span: &Span| {
        span.parent_span_id.as_ref().is_some_and(|parent| trace.iter().any(|other| other.span_id == *parent))
    };
    let outside = trace.iter().filter(|span| !is_inside(span) && span.parent_span_id.is_some());
    let mut parents: Vec<&str> = outside.filter_map(|span| span.parent_span_id.as_deref()).collect();
    parents.dedup();
    for parent in parents {
        let _ = writeln!(text, "  the application's own span {parent}");
        children(text, trace, Some(parent), "  ", zero, width);
    }
    children(text, trace, None, "", zero, width);
}

/// Spans below `parent`; those without a parent are drawn without a branch.
fn children(text: &mut String, trace: &[&Span], parent: Option<&str>, indent: &str, zero: u64, width: usize) {
    let below: Vec<&&Span> = trace.iter().filter(|span| span.parent_span_id.as_deref() == parent).collect();
    for (i, span) in below.iter().enumerate() {
        let is_last = i + 1 == below.len();
        let (branch, deeper) = match (parent, is_last) {
            (None, _) => ("  ", "  "),
            (Some(_), true) => ("└─ ", "   "),
            (Some(_), false) => ("├─ ", "│  "),
        };
        let lead = format!("{indent}{branch}");
        let room = (8 + width).saturating_sub(lead.chars().count());
        let _ = writeln!(text, "{lead}{:<room$}  {}", span.service(), hop(span, zero));
        children(text, trace, Some(&span.span_id), &format!("{indent}{deeper}"), zero, width);
    }
}

fn hop(span: &Span, zero: u64) -> String {
    let place = span.place().map_or_else(
        || span.topic().unwrap_or("?").to_owned(),
        |place| format!("{}[{}]@{}", place.topic, place.partition, place.offset),
    );
    let at = (span.start_unix_nanos.saturating_sub(zero)) as f64 / 1e9;
    let took = (span.end_unix_nanos.saturating_sub(span.start_unix_nanos)) as f64 / 1e6;
    let mut line = format!("{} {place:<16} at {at:>7.3} s  took {took:>6.1} ms", span.operation());
    for (name, what) in [("ktrace.queue_time_ms", "queue"), ("ktrace.end_to_end_ms", "e2e")] {
        if let Some(ms) = span.attributes.get(name).and_then(Value::as_f64) {
            let _ = write!(line, "  {what} {ms:>4.0} ms");
        }
    }
    if let Some(group) = span.text("messaging.consumer.group.name") {
        let _ = write!(line, "  group {group}");
    }
    line
}

fn origin(span: &Span) -> String {
    if span.is_derived() {
        return "derived (no headers)".into();
    }
    format!("from the message's {} header", span.text("ktrace.context.format").unwrap_or("trace"))
}

#[cfg(test)]
mod tests {
    use harness::spans::{self, Span};
    use serde_json::json;

    use super::render;

    fn spans(lines: &[serde_json::Value]) -> Vec<Span> {
        spans::parse(&lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")).expect("spans")
    }

    fn span(
        service: &str,
        operation: &str,
        trace: &str,
        id: &str,
        parent: Option<&str>,
        at: u64,
    ) -> serde_json::Value {
        let mut span = json!({
            "trace_id": trace, "span_id": id, "parent_span_id": parent, "links": [],
            "name": format!("{operation} orders"), "kind": "client",
            "start_unix_nanos": at * 1_000_000, "end_unix_nanos": at * 1_000_000 + 1_500_000,
            "status": "unset", "resource": {"service.name": service},
            "attributes": {"messaging.destination.name": "orders", "messaging.destination.partition.id": "2",
                "messaging.kafka.offset": 7}
        });
        if operation == "poll" {
            span["attributes"]["ktrace.queue_time_ms"] = json!(12);
            span["attributes"]["ktrace.end_to_end_ms"] = json!(3.4);
            span["attributes"]["messaging.consumer.group.name"] = json!(service);
        }
        span
    }

    #[test]
    fn a_derived_trace_has_the_polls_under_the_send() {
        let mut lines = [
            // a poll that began before the send is still shown after it
            span("billing", "poll", "t1", "b", Some("a"), 1000),
            span("orders-api", "send", "t1", "a", None, 1001),
            span("audit", "poll", "t1", "c", Some("a"), 1020),
            span("audit", "commit", "t9", "d", None, 1030),
        ];
        for line in &mut lines {
            line["attributes"]["ktrace.derived"] = json!(true);
        }
        assert_eq!(
            render(&spans(&lines)),
            "\
trace t1  derived (no headers)
  orders-api        send orders[2]@7      at   0.001 s  took    1.5 ms
  ├─ billing        poll orders[2]@7      at   0.000 s  took    1.5 ms  queue   12 ms  e2e    3 ms  group billing
  └─ audit          poll orders[2]@7      at   0.020 s  took    1.5 ms  queue   12 ms  e2e    3 ms  group audit

"
        );
    }

    #[test]
    fn an_instrumented_trace_hangs_under_the_applications_span() {
        let mut lines = [
            span("payments", "send", "t2", "a", Some("f0"), 1000),
            span("billing", "poll", "t2", "b", Some("f0"), 1005),
        ];
        for line in &mut lines {
            line["attributes"]["ktrace.context.format"] = json!("traceparent");
        }
        assert_eq!(
            render(&spans(&lines)),
            "\
trace t2  from the message's traceparent header
  the application's own span f0
  ├─ payments     send orders[2]@7      at   0.000 s  took    1.5 ms
  └─ billing      poll orders[2]@7      at   0.005 s  took    1.5 ms  queue   12 ms  e2e    3 ms  group billing

"
        );
    }
}
