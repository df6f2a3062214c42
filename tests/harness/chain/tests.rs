//! The check of claims can fail: one thing is made untrue at a time.

use serde_json::json;

use super::{Case, Causes, Claims, Share, Ways};
use crate::check::Recall;
use crate::spans::Span;
use crate::truth::{Line, Place, Truth};

fn line(service: &str, topic: &str, offset: i64, because: &[(&str, i64)]) -> Line {
    let because: Vec<_> = because
        .iter()
        .map(|(topic, offset)| json!({"topic": topic, "partition": 0, "offset": offset}))
        .collect();
    serde_json::from_value(json!({
        "event": "sent", "client": "python", "service": service,
        "topic": topic, "partition": 0, "offset": offset, "because": because
    }))
    .expect("a truth line")
}

/// Ids are made of operation, topic and offset, so that they are easily linked to.
fn span(operation: &str, service: &str, topic: &str, offset: i64, links: &[(&str, &str, bool)]) -> Span {
    let id = |operation: &str, topic: &str| format!("{operation} {topic} {offset}");
    let links: Vec<_> = links
        .iter()
        .map(|(operation, topic, is_inferred)| {
            let attributes = if *is_inferred { json!({"ktrace.inferred": "key"}) } else { json!({}) };
            let trace_id = format!("{topic} {offset}");
            json!({"trace_id": trace_id, "span_id": id(operation, topic), "attributes": attributes})
        })
        .collect();
    serde_json::from_value(json!({
        "trace_id": format!("{topic} {offset}"), "span_id": id(operation, topic),
        "parent_span_id": null, "links": links, "name": format!("{operation} {topic}"), "kind": "client",
        "start_unix_nanos": 1, "end_unix_nanos": 2,
        "status": "unset", "resource": {"service.name": service},
        "attributes": {"messaging.destination.name": topic, "messaging.destination.partition.id": "0",
            "messaging.kafka.offset": offset}
    }))
    .expect("a span")
}

/// Two messages that go from `unique-a` to `unique-b`; the second send is linked.
fn all_true() -> (Truth, Vec<Span>) {
    let mut truth = Truth::default();
    let mut spans = Vec::new();
    for offset in [7, 8] {
        truth.add(line("intake", "unique-a", offset, &[]));
        truth.add(line("pricing", "unique-b", offset, &[("unique-a", offset)]));
        spans.push(span("send", "intake", "unique-a", offset, &[]));
        spans.push(span("poll", "pricing", "unique-a", offset, &[("send", "unique-a", false)]));
        let inferred = [("poll", "unique-a", true)];
        spans.push(span("send", "pricing", "unique-b", offset, if offset == 8 { &inferred } else { &[] }));
        spans.push(span("poll", "packing", "unique-b", offset, &[("send", "unique-b", false)]));
    }
    (truth, spans)
}

fn after(change: impl FnOnce(&mut Truth, &mut Vec<Span>)) -> Claims {
    let (mut truth, mut spans) = all_true();
    change(&mut truth, &mut spans);
    Claims::check(&truth, &spans)
}

#[test]
fn what_is_claimed_is_counted() {
    let claims = after(|_, _| ());
    assert!(claims.are_true() && claims.count() == 1, "{claims}");
    let share = Share { all: Recall { found: 1, expected: 2 }, ..Share::default() };
    assert_eq!(claims.share(Case::Unique, "pricing"), share);
}

#[test]
fn wrong_links() {
    let changes: [fn(&mut Truth, &mut Vec<Span>); 8] = [
        |truth, _| truth.sent[3].because.clear(),
        |truth, _| truth.sent[3].because[0].offset = 7,
        |_, spans| spans[6].links[0].span_id = "none".into(),
        |_, spans| spans[6].links[0].span_id = "send unique-a 8".into(),
        |_, spans| spans[6].resource.clear(),
        |_, spans| spans[6].links = [&spans[6].links[..], &spans[6].links[..]].concat(),
        |_, spans| spans[7].links = spans[6].links.clone(),
        |truth, _| drop(truth.sent.pop()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let claims = after(change);
        assert!(!claims.are_true() && claims.count() >= 1, "change {number} was not seen: {claims}");
    }
}

#[test]
fn where_headers_name_the_trace_a_link_within_it_is_needless() {
    let headers = || serde_json::from_value(json!([["traceparent", "00-1-2-01"]])).expect("headers");
    let claims = after(|truth, _| truth.sent[3].headers = headers());
    assert!(claims.are_true() && claims.count() == 1, "{claims}");
    let claims = after(|truth, spans| {
        truth.sent[3].headers = headers();
        spans[6].trace_id = spans[5].trace_id.clone();
    });
    assert!(!claims.are_true(), "{claims}");
}

#[test]
fn a_link_to_one_of_two_causes_is_right() {
    let claims = after(|truth, _| {
        let other = Place { offset: 7, ..truth.sent[3].because[0].clone() };
        truth.sent[3].because.insert(0, other);
    });
    assert!(claims.are_true() && claims.count() == 1, "{claims}");
}

#[test]
fn the_way_back_goes_as_far_as_links_do() {
    let (truth, spans) = all_true();
    let ways = Ways::new(&spans);
    let back = |at: usize| ways.back(&spans[at]).iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
    assert_eq!(back(7), ["send unique-b", "poll unique-a", "send unique-a"]);
    assert_eq!(back(3), ["send unique-b"]);
    let place = |topic: &str, offset| Place { topic: topic.into(), partition: 0, offset };
    assert_eq!(Causes::new(&truth).origins(&place("unique-b", 8)), [place("unique-a", 8)]);
    assert_eq!(Causes::new(&truth).origins(&place("unique-a", 8)), [place("unique-a", 8)]);
}

#[test]
fn what_came_before_anything_was_sent_is_not_settled() {
    let mut truth = Truth::default();
    let mut spans = Vec::new();
    for offset in 0..40 {
        truth.add(line("pricing", "unique-b", offset, &[("unique-a", offset)]));
        let (mut read, mut sent) = (
            span("poll", "pricing", "unique-a", offset, &[]),
            span("send", "pricing", "unique-b", offset, &[]),
        );
        // All of the first ten are there when the first of them is answered.
        read.end_unix_nanos = if offset < 10 { 10 } else { 100 * offset.unsigned_abs() };
        sent.start_unix_nanos = 100 * offset.unsigned_abs() + 50;
        spans.extend([read, sent]);
    }
    let settled = Claims::check(&truth, &spans).share(Case::Unique, "pricing").settled;
    assert_eq!(settled.expected, 40 - 10 - super::WARM_UP);
}
