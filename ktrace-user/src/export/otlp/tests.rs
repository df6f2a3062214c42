//! The exporter against a collector within this process.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::Sinks;
use super::super::collector::{Collector, refusing, refusing_with, serve, serve_at};
use super::*;
use crate::hop::{Hop, samples};

fn export(address: SocketAddr, hops: Vec<Hop>) -> std::collections::BTreeMap<crate::losses::Reason, u64> {
    let options = OtlpOptions { url: Some(format!("http://{address}")), ..OtlpOptions::default() };
    let mut sinks = Sinks::default();
    sinks.add(otlp(&options, WhenFull::Wait).unwrap().unwrap());
    let senders = sinks.senders();
    hops.into_iter().for_each(|hop| senders.send(hop));
    drop(senders);
    let (lost, end) = sinks.finish(Duration::from_secs(10), false);
    let failed = lost["export_failed"] + lost["export_refused"];
    match end {
        Ok(()) => assert_eq!(failed, 0),
        Err(ExportError::Undelivered { spans, .. }) => assert_eq!(spans, failed),
        Err(other) => panic!("{other}"),
    }
    lost
}

#[test]
fn one_request_with_a_resource_for_each_process_and_exact_ids() {
    let (collector, delivered) = (Collector::default(), samples::delivered());
    let address = serve(collector.clone());
    let lost = export(address, vec![samples::sent(), delivered.clone(), samples::sent()]);
    assert!(lost.values().all(|count| *count == 0), "{lost:?}");
    let requests = collector.spans.lock().unwrap();
    assert_eq!(requests.len(), 1);
    let of = &requests[0].resource_spans;
    let counts: Vec<_> = of.iter().map(|of| of.scope_spans[0].spans.len()).collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!(of[0].schema_url, "https://opentelemetry.io/schemas/1.44.0");
    let scope = of[0].scope_spans[0].scope.as_ref().unwrap();
    assert_eq!((&*scope.name, &*scope.version), ("ktrace", env!("CARGO_PKG_VERSION")));
    let span = &of[1].scope_spans[0].spans[0];
    let context = delivered.passage.context.unwrap();
    assert_eq!(span.trace_id, context.trace_id.to_bytes());
    assert_eq!(
        (span.parent_span_id.as_slice(), span.flags),
        (&context.span_id.unwrap().to_bytes()[..], 0x301)
    );
    assert_eq!(span.end_time_unix_nano, delivered.passage.end_ns);
    assert_eq!(span.trace_state, "vendor=a,other=b");
}

#[test]
fn refusals_that_may_pass_are_tried_again() {
    let collector = refusing(&[Code::Unavailable, Code::Unavailable]);
    let lost = export(serve(collector.clone()), vec![samples::sent()]);
    assert_eq!(lost.get("export_failed"), Some(&0));
    assert_eq!(collector.spans.lock().unwrap().len(), 1);
}

#[test]
fn refusals_for_good_are_counted() {
    let lost = export(serve(refusing(&[Code::PermissionDenied])), vec![samples::sent(), samples::sent()]);
    assert_eq!((lost["export_refused"], lost["export_failed"]), (2, 0));
}

/// Bad options are one line, with none of the collector beside it.
#[test]
fn a_run_that_never_begins_asks_nothing_of_the_collector() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = Some(format!("http://{}", listener.local_addr().unwrap()));
    let mut sinks = Sinks::default();
    sinks.add(otlp(&OtlpOptions { url, ..OtlpOptions::default() }, WhenFull::Drop).unwrap().unwrap());
    sinks.finish(Duration::from_secs(10), false).1.unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn spans_that_nobody_takes_are_counted_within_the_time_limit() {
    // Bound and never listening: the connection is refused.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = OtlpOptions { url: Some(format!("http://{unused}")), ..OtlpOptions::default() };
    let mut sinks = Sinks::default();
    sinks.add(otlp(&options, WhenFull::Drop).unwrap().unwrap());
    let senders = sinks.senders();
    (0..10).for_each(|_| senders.send(samples::sent()));
    drop(senders);
    let started = Instant::now();
    let (lost, end) = sinks.finish(Duration::from_millis(300), false);
    assert!(
        matches!(end, Err(ExportError::Undelivered { spans: 10, .. }))
            && started.elapsed() < Duration::from_secs(3)
    );
    assert_eq!(lost.get("export_failed"), Some(&10));
}

#[test]
fn what_a_collector_rejects_of_a_request_is_counted() {
    let collector = Collector { rejects: 2, ..Collector::default() };
    let lost = export(serve(collector.clone()), vec![samples::sent(), samples::sent(), samples::sent()]);
    assert_eq!((lost["export_refused"], collector.spans.lock().unwrap().len()), (2, 1), "and not sent again");
}

#[test]
fn it_comes_again_when_it_is_asked_to() {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(700)));
    let refusal = Status::with_error_details(Code::ResourceExhausted, "full", details);
    let collector = refusing_with(vec![refusal]);
    let mut sinks = Sinks::default();
    sinks.add(sink(serve(collector.clone()), &[("OTEL_BSP_SCHEDULE_DELAY", "0")], WhenFull::Drop));
    let senders = sinks.senders();
    senders.send(samples::sent());
    until(|| collector.refused.load(Ordering::Relaxed) == 1);
    let refused = Instant::now();
    until(|| collector.spans.lock().unwrap().len() == 1);
    // Only what is too early is wrong.
    assert!(refused.elapsed() > Duration::from_millis(600), "{:?}", refused.elapsed());
    drop(senders);
    assert!(sinks.finish(Duration::from_secs(10), false).1.is_ok());
}

#[test]
fn the_end_is_not_held_up_by_what_a_collector_asks_for() {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(300)));
    let refusal = Status::with_error_details(Code::Unavailable, "later", details);
    let collector = refusing_with(vec![refusal]);
    let mut sinks = Sinks::default();
    sinks.add(sink(serve(collector.clone()), &[("OTEL_BSP_SCHEDULE_DELAY", "0")], WhenFull::Drop));
    let senders = sinks.senders();
    senders.send(samples::sent());
    until(|| collector.refused.load(Ordering::Relaxed) == 1);
    drop(senders);
    let (lost, end) = sinks.finish(Duration::from_secs(60), false);
    assert!(end.is_ok() && lost.values().all(|count| *count == 0), "{lost:?}");
    assert_eq!(collector.spans.lock().unwrap().len(), 1);
}

/// What is refused waits for as long as there is room, then the oldest gives way; nothing is
/// unaccounted for.
#[test]
fn a_collector_that_is_down_costs_only_what_does_not_fit() {
    const SENT: u64 = 300;
    let collector = Collector::default();
    *collector.down.lock().unwrap() = Some(Status::unavailable("down"));
    let set = [
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ];
    let mut sinks = Sinks::default();
    sinks.add(sink(serve(collector.clone()), &set, WhenFull::Drop));
    let (senders, losses) = (sinks.senders(), sinks.losses());
    for offset in 0..SENT {
        let mut hop = samples::sent();
        hop.passage.offset = Some(offset.try_into().unwrap());
        senders.send(hop);
        if offset == 90 {
            assert_eq!(losses.so_far()["export_queue_full"], 0);
            until(|| collector.refused.load(Ordering::Relaxed) >= 3);
        }
    }
    until(|| collector.refused.load(Ordering::Relaxed) >= 5);
    *collector.down.lock().unwrap() = None;
    drop(senders);
    let (lost, end) = sinks.finish(Duration::from_secs(30), false);
    assert!(end.is_ok(), "{end:?}");
    let delivered = offsets(&collector);
    assert_eq!(lost["export_queue_full"] + delivered.len() as u64, SENT, "{lost:?}");
    assert!((90..=100).contains(&delivered.len()), "{}", delivered.len());
    assert!(delivered.contains(&299), "the newest are there");
}

#[test]
fn a_request_is_no_larger_than_servers_take() {
    let collector = Collector::default();
    let mut hop = samples::sent();
    hop.passage.key = Some(crate::hop::Key::new(&[b'k'; 300]));
    let state: String = "a=".chars().chain(std::iter::repeat_n('x', 250)).collect();
    if let Some(context) = &mut hop.passage.context {
        context.state = Some(state.into());
    }
    let lost = export(serve(collector.clone()), vec![hop; 8192]);
    assert!(lost.values().all(|count| *count == 0), "{lost:?}");
    let requests = collector.spans.lock().unwrap();
    assert!(requests.iter().all(|request| request.encoded_len() <= REQUEST_BYTES));
    let spans = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|of| &of.scope_spans);
    assert_eq!(spans.map(|of| of.spans.len()).sum::<usize>(), 8192);
}

fn sink(address: SocketAddr, set: &[(&str, &str)], when_full: WhenFull) -> Sink {
    let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = OtlpOptions { url: Some(format!("http://{address}")), environment };
    otlp(&options, when_full).unwrap().unwrap()
}

fn until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn offsets(collector: &Collector) -> Vec<i64> {
    let requests = collector.spans.lock().unwrap();
    let spans = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|of| &of.scope_spans);
    let offset = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
        let found = span.attributes.iter().find(|pair| pair.key == "messaging.kafka.offset")?;
        match found.value.as_ref()?.value.as_ref()? {
            opentelemetry_proto::tonic::common::v1::any_value::Value::IntValue(offset) => Some(*offset),
            _ => None,
        }
    };
    spans.flat_map(|of| &of.spans).filter_map(offset).collect()
}

/// Paced in real time, so it is left to hands: `cargo test -p ktrace-user --lib away_for_long --
/// --ignored --nocapture`.
#[test]
#[ignore = "takes eleven minutes"]
fn a_collector_that_is_away_for_long_loses_what_has_no_room() {
    let of = |rate: u64, away: u64, listens: bool, lost_at_most: u64| {
        std::thread::spawn(move || away_for(rate, Duration::from_secs(away), listens, lost_at_most))
    };
    // That of 90 s refuses, that of ten minutes is not there.
    let runs = [
        of(200, 90, true, 0),
        of(20_000, 90, true, u64::MAX),
        of(200, 600, false, u64::MAX),
        of(20_000, 600, false, u64::MAX),
    ];
    runs.into_iter().for_each(|run| run.join().unwrap());
}

fn away_for(rate: u64, away: Duration, listens: bool, lost_at_most: u64) {
    let collector = Collector::default();
    let address = if listens {
        *collector.down.lock().unwrap() = Some(Status::unavailable("down"));
        serve(collector.clone())
    } else {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    };
    let mut sinks = Sinks::default();
    sinks.add(sink(address, &[], WhenFull::Drop));
    let (senders, begin) = (sinks.senders(), Instant::now());
    let (mut sent, mut is_away) = (0, true);
    while begin.elapsed() < away + Duration::from_secs(10) {
        if is_away && begin.elapsed() > away {
            is_away = false;
            match listens {
                true => *collector.down.lock().unwrap() = None,
                false => drop(serve_at(collector.clone(), address)),
            }
        }
        // What was missed on a busy machine is made up for.
        let due = rate * u64::try_from(begin.elapsed().as_millis()).unwrap() / 1000;
        (sent..due).for_each(|_| senders.send(samples::sent()));
        sent = sent.max(due);
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(senders);
    let (lost, end) = sinks.finish(Duration::from_secs(10), false);
    let delivered = offsets(&collector).len() as u64;
    println!("{rate} a second, away for {away:?}: {sent} sent, {delivered} delivered, {lost:?}, {end:?}");
    assert_eq!(delivered + lost.values().sum::<u64>(), sent);
    assert!(lost["export_queue_full"] <= lost_at_most && lost["export_failed"] == 0, "{lost:?}");
}
