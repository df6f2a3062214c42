//! Every format by its examples, every reader under hostile values, and the order of preference.

use super::*;

const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const S: &str = "00f067aa0ba902b7";

fn find<'a>(extractor: &Extractor, headers: &'a [(&'a str, &'a str)]) -> Found<'a> {
    let mut slots = Slots::new();
    for (key, value) in headers {
        extractor.note(&mut slots, key.as_bytes(), value.as_bytes());
    }
    extractor.find(&slots)
}

fn is(found: Found<'_>, format: &str) -> bool {
    found.context.is_some_and(|context| {
        context.format == format
            && context.trace_id.to_string() == T
            && context.span_id.is_some_and(|id| id.to_string() == S)
    })
}

#[test]
fn every_format_is_read() {
    let all = Extractor::default();
    let parent = format!("00-{T}-{S}-01");
    assert!(is(find(&all, &[("traceparent", &parent)]), "traceparent"));
    assert!(is(find(&all, &[("TraceParent", &format!(" \"{parent}\" "))]), "traceparent"));
    assert!(is(find(&all, &[("b3", &format!("{T}-{S}-1"))]), "b3"));
    assert!(is(find(&all, &[("b3", &format!("{T}-{S}"))]), "b3"));
    assert!(is(find(&all, &[("x-b3-traceid", T), ("X-B3-SpanId", S), ("X-B3-Sampled", "1")]), "b3multi"));
    assert!(is(find(&all, &[("trace_id", T), ("span_id", S)]), "trace_id"));
    assert!(is(find(&all, &[("traceId", T), ("spanId", S)]), "traceId"));
    assert!(is(find(&all, &[("trace-id", T), ("span-id", S)]), "trace-id"));
    assert!(is(
        find(&all, &[("trace-id", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"), ("span-id", S)]),
        "trace-id"
    ));
}

#[test]
fn flags_and_state_come_along() {
    let parent = format!("00-{T}-{S}-01");
    let all = Extractor::default();
    let headers = [("tracestate", "a=1,b=2"), ("traceparent", &parent)];
    let context = find(&all, &headers).context.unwrap();
    assert_eq!((context.flags, context.state), (Some(1), Some("a=1,b=2")));
}

#[test]
fn the_preferred_format_wins_and_the_last_value_of_a_key() {
    let all = Extractor::default();
    let (old, new) = (format!("00-{}-{S}-01", "a".repeat(32)), format!("00-{T}-{S}-00"));
    assert!(is(
        find(
            &all,
            &[("b3", "0123456789abcdef-0123456789abcdef"), ("traceparent", &old), ("traceparent", &new)]
        ),
        "traceparent"
    ));
    let b3 = format!("{T}-{S}");
    let headers = [("traceparent", "nonsense"), ("b3", &b3)];
    let found = find(&all, &headers);
    assert!(found.malformed && is(found, "b3"), "a malformed one is passed over: {found:?}");
}

#[test]
fn what_is_not_a_context_is_none() {
    let all = Extractor::default();
    let zero = format!("00-{}-{S}-01", "0".repeat(32));
    for (key, value) in [
        ("traceparent", &zero[..]),
        ("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
        ("traceparent", ""),
        ("b3", "x"),
        ("trace_id", "hello"),
    ] {
        let headers = [(key, value)];
        let found = find(&all, &headers);
        assert_eq!((found.context, found.malformed), (None, true), "{key}: {value}");
    }
    assert_eq!(find(&all, &[("b3", "0")]), Found::default());
    assert_eq!(find(&all, &[("content-type", "text/plain")]), Found::default());
    assert_eq!(find(&all, &[("span_id", S)]).context, None);
}

#[test]
fn a_trace_without_a_span() {
    let all = Extractor::default();
    let headers = [("trace_id", T)];
    let context = find(&all, &headers).context.unwrap();
    assert_eq!((context.trace_id.to_string().as_str(), context.span_id), (T, None));
    let short = [("traceId", "a3ce929d0e0e4736"), ("spanId", S)];
    let context = find(&all, &short).context.unwrap();
    assert_eq!(context.trace_id.to_string(), "0000000000000000a3ce929d0e0e4736");
}

#[test]
fn later_versions_of_traceparent_may_be_longer() {
    let all = Extractor::default();
    assert!(is(find(&all, &[("traceparent", &format!("01-{T}-{S}-01-more"))]), "traceparent"));
}

#[test]
fn a_users_own_keys_in_the_users_order() {
    let own = Extractor::new(&[Wanted::Key("X-My-Trace".into()), Wanted::Format("b3".into())]).unwrap();
    let b3 = format!("{}-{S}", "b".repeat(32));
    let headers = [("b3", &b3[..]), ("x-my-trace", T)];
    let context = find(&own, &headers).context.unwrap();
    assert_eq!((context.format, context.trace_id.to_string().as_str()), ("key:X-My-Trace", T));
    assert_eq!(find(&own, &[("traceparent", T)]), Found::default(), "not looked for");
    assert!(matches!(Extractor::new(&[Wanted::Format("b4".into())]), Err(WantedError::Unknown(_))));
    assert!(matches!(Extractor::new(&[Wanted::Key(String::new())]), Err(WantedError::EmptyKey)));
}
