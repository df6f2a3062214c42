//! The check itself can fail: one thing is made untrue at a time.

use serde_json::json;

use super::{Report, check};
use crate::spans::{Kind, Link, Span};
use crate::truth::{Line, Truth};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const DERIVED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn line(event: &str, service: &str, offset: i64, headers: serde_json::Value) -> Line {
    let group = (event == "received").then_some("g");
    serde_json::from_value(json!({
        "event": event, "client": "java", "service": service, "client_id": service, "group": group, "topic": "orders",
        "partition": 1, "offset": offset, "timestamp": 1, "key": format!("k{offset}"), "value_len": 3, "headers": headers
    }))
    .expect("a truth line")
}

fn span(operation: &str, offset: i64, trace: &str, id: &str, parent: Option<&str>) -> Span {
    let (kind, service) = match (operation, parent) {
        ("poll", _) => ("consumer", "in"),
        (_, Some(_)) => ("client", "out"),
        _ => ("producer", "out"),
    };
    let links = if operation == "poll" {
        json!([{"trace_id": trace, "span_id": "00000000000000a0"}])
    } else {
        json!([])
    };
    let mut attributes = json!({
        "messaging.destination.name": "orders", "messaging.destination.partition.id": "1",
        "messaging.kafka.offset": offset, "ktrace.derived": trace == DERIVED
    });
    if operation == "poll" {
        attributes["messaging.consumer.group.name"] = json!("g");
    }
    serde_json::from_value(json!({
        "trace_id": trace, "span_id": id, "parent_span_id": parent, "links": links, "name": format!("{operation} orders"),
        "kind": kind, "start_unix_nanos": 1, "end_unix_nanos": 2, "status": "unset",
        "resource": {"service.name": service}, "attributes": attributes
    }))
    .expect("a span")
}

/// Message 7 with a `traceparent`, message 8 without headers, each sent and received once.
fn all_true() -> (Truth, Vec<Span>) {
    let context = json!([["traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")]]);
    let mut truth = Truth::default();
    for (event, service) in [("sent", "out"), ("received", "in")] {
        truth.add(line(event, service, 7, context.clone()));
        truth.add(line(event, service, 8, json!([])));
    }
    let mut spans = vec![
        span("send", 7, TRACE, "00000000000000a0", Some("00f067aa0ba902b7")),
        span("poll", 7, TRACE, "00000000000000b0", Some("00f067aa0ba902b7")),
        span("send", 8, DERIVED, "00000000000000a1", None),
        span("poll", 8, DERIVED, "00000000000000b1", Some("00000000000000a1")),
    ];
    spans[3].links[0].span_id = "00000000000000a1".into();
    (truth, spans)
}

fn after(change: impl FnOnce(&mut Truth, &mut Vec<Span>)) -> Report {
    let (mut truth, mut spans) = all_true();
    change(&mut truth, &mut spans);
    check(&truth, &spans)
}

#[test]
fn nothing_wrong() {
    let report = after(|_, _| ());
    assert!(report.is_perfect(), "{report}");
    assert_eq!((report.sent.found, report.received.found), (2, 2));
}

#[test]
fn nothing_at_all_is_not_perfect() {
    assert!(!check(&Truth::default(), &[]).is_perfect());
}

#[test]
fn missing_spans() {
    let report = after(|_, spans| spans.truncate(1));
    assert!(report.is_true() && !report.is_perfect());
    assert_eq!((report.sent.found, report.received.found, report.missed.len()), (1, 0, 3));
}

#[test]
fn untrue_spans() {
    let changes: [fn(&mut Vec<Span>); 12] = [
        |spans| spans[0].trace_id = DERIVED.into(),
        |spans| spans[0].parent_span_id = None,
        |spans| spans[0].name = "send other".into(),
        |spans| spans[0].kind = Kind::Producer,
        |spans| spans[0].resource.clear(),
        |spans| spans[1].parent_span_id = Some("00000000000000a0".into()),
        |spans| spans[1].links.clear(),
        |spans| spans[2].parent_span_id = Some("00f067aa0ba902b7".into()),
        |spans| spans[3].trace_id = TRACE.into(),
        |spans| spans[3].parent_span_id = None,
        |spans| spans[3].kind = Kind::Client,
        |spans| spans[3].end_unix_nanos = 0,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let report = after(|_, spans| change(spans));
        assert!(!report.wrong.is_empty(), "change {number} was not seen: {report}");
    }
}

#[test]
fn a_time_from_end_to_end_is_that_of_its_spans() {
    // Sent from 1 to 3 ms, delivered by 5 ms, and stamped at 1 ms.
    let after = |told: Option<f64>, stamp_ms: i64, delivered: u64| {
        after(|truth, spans| {
            (spans[0].start_unix_nanos, spans[0].end_unix_nanos) = (1_000_000, 3_000_000);
            (spans[1].start_unix_nanos, spans[1].end_unix_nanos) = (delivered - 500_000, delivered);
            truth.sent[0].timestamp = Some(stamp_ms);
            spans[3].attributes.insert("ktrace.end_to_end_ms".into(), json!(0.000_001));
            if let Some(told) = told {
                spans[1].attributes.insert("ktrace.end_to_end_ms".into(), json!(told));
            }
        })
    };
    let right = after(Some(4.0), 1, 5_000_000);
    assert!(right.is_perfect() && right.delays.hold().is_ok(), "{right}");
    assert!(after(Some(1.5), 1, 2_500_000).delays.early.is_full());
    for told in [3.4, 4.1, -4.0] {
        let report = after(Some(told), 1, 5_000_000);
        assert!(!report.is_true() && report.delays.hold().is_err(), "{told}: {report}");
    }
    let none = after(None, 1, 5_000_000);
    assert!(none.is_perfect() && none.delays.hold().is_err(), "{none}");
    assert!(!after(Some(4.0), 4, 5_000_000).is_true(), "not older than its stamp");
}

#[test]
fn a_link_into_another_trace_is_untrue() {
    let report = after(|_, spans| {
        spans[1].links = vec![Link {
            trace_id: DERIVED.into(),
            span_id: "00000000000000a0".into(),
            attributes: Default::default(),
        }];
    });
    assert_eq!(report.wrong.len(), 1, "{report}");
}

#[test]
fn phantoms() {
    for attribute in
        ["messaging.kafka.offset", "messaging.destination.name", "messaging.destination.partition.id"]
    {
        let report = after(|_, spans| {
            let value = if attribute == "messaging.kafka.offset" { json!(99) } else { json!("99") };
            spans[0].attributes.insert(attribute.into(), value);
        });
        assert_eq!((report.phantoms.len(), report.sent.found), (1, 1), "{attribute}: {report}");
    }
}

#[test]
fn a_span_without_a_place_is_wrong() {
    let report = after(|_, spans| drop(spans[0].attributes.remove("messaging.kafka.offset")));
    assert_eq!(report.wrong.len(), 1);
}

#[test]
fn the_same_id_twice() {
    let report = after(|_, spans| spans.push(spans[0].clone()));
    assert_eq!((report.repeated, report.wrong.len()), (1, 1), "{report}");
}

#[test]
fn two_messages_in_one_derived_trace() {
    let report = after(|truth, spans| {
        truth.add(line("sent", "out", 9, json!([])));
        spans.push(span("send", 9, DERIVED, "00000000000000a2", None));
    });
    assert_eq!(report.wrong.len(), 1, "{report}");
}

#[test]
fn a_delivery_to_another_group_does_not_count() {
    let report = after(|_, spans| {
        drop(spans[1].attributes.insert("messaging.consumer.group.name".into(), json!("h")))
    });
    assert_eq!((report.received.found, report.repeated), (1, 1), "{report}");
}

#[test]
fn without_a_group_the_client_id_decides() {
    let report = after(|_, spans| {
        spans[1].attributes.remove("messaging.consumer.group.name");
        spans[1].attributes.insert("messaging.client.id".into(), json!("in"));
    });
    assert!(report.is_perfect(), "{report}");
}

#[test]
fn a_fetch_ahead_is_unlogged() {
    let report = after(|truth, _| drop(truth.received.pop()));
    assert_eq!((report.unlogged, report.is_perfect()), (1, true), "{report}");
}

#[test]
fn kcat_messages_get_their_place_from_who_received_them() {
    let report = after(|truth, _| {
        truth.sent[0].offset = None;
        truth.resolve();
    });
    assert!(report.is_perfect(), "{report}");
}
