//! Metrics against a collector within this process, and against none.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use tonic::Code;

use super::super::collector::{Collector, refusing, serve};
use super::*;

/// Longer than a test takes: only what the test asks for is exported.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);

fn start(address: SocketAddr, counts: impl Fn() -> Counts + Send + Sync + 'static) -> Exporting {
    let options = OtlpOptions { url: Some(format!("http://{address}")), ..OtlpOptions::default() };
    let pace = Pace { interval: NEVER, timeout: NEVER };
    Metrics::at_pace(&options, pace).unwrap().start(counts)
}

fn metrics(request: &ExportMetricsServiceRequest) -> impl Iterator<Item = &Metric> {
    request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics)
}

/// Name and unit, and each point's reason and value, in order.
fn exported(request: &ExportMetricsServiceRequest) -> Vec<(String, Vec<(String, i64)>)> {
    let sums = metrics(request).map(|metric| {
        let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        let points = sum.data_points.iter().map(|point| {
            let mut attributes: Vec<_> = point.attributes.iter().map(text).collect();
            attributes.sort();
            let Some(AsInt(value)) = point.value else { panic!("{point:?}") };
            (attributes.join(","), value)
        });
        let mut points: Vec<_> = points.collect();
        points.sort();
        (format!("{} {}", metric.name, metric.unit), points)
    });
    let mut sums: Vec<_> = sums.collect();
    sums.sort();
    sums
}

fn text(pair: &opentelemetry_proto::tonic::common::v1::KeyValue) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(StringValue(value)) => format!("{}={value}", pair.key),
        other => panic!("{other:?}"),
    }
}

#[test]
fn counters_arrive_with_their_reasons_events_apart_from_bytes() {
    let (collector, spans) = (Collector::default(), Arc::new(AtomicU64::new(3)));
    let counted = Arc::clone(&spans);
    let exporting = start(serve(collector.clone()), move || Counts {
        spans: counted.load(Ordering::Relaxed),
        lost: [
            (Reason::RingFull, 4),
            (Reason::GapBytes, 9000),
            (Reason::ExportFailed, 0),
            (Reason::SkippedBytes, 12),
        ]
        .into(),
        not_kafka: [("no_request", 2), ("preface", 0)].into(),
        refused: [(("Fetch", "UNKNOWN_TOPIC_OR_PARTITION"), 6)].into(),
        throttled: [("Produce", (2, 250))].into(),
        searches: Some(Stats { searches: 1, bytes: 2, cpu_ns: 3_000_001, keys: 4, waited_ns: 5_999_999 }),
    });
    exporting.provider.force_flush().unwrap();
    spans.store(5, Ordering::Relaxed);
    exporting.finish(NEVER);
    let requests = collector.metrics.lock().unwrap();
    let expected = |spans| {
        let point = |reason: &str, value| (format!("ktrace.lost.reason={reason}"), value);
        let of_produce = || "messaging.operation.name=Produce".to_owned();
        [
            ("ktrace.lost.bytes By".to_owned(), vec![point("gap_bytes", 9000), point("skipped_bytes", 12)]),
            ("ktrace.lost.events {event}".to_owned(), vec![point("export_failed", 0), point("ring_full", 4)]),
            (
                "ktrace.not_kafka {connection}".to_owned(),
                vec![
                    ("ktrace.not_kafka.reason=no_request".to_owned(), 2),
                    ("ktrace.not_kafka.reason=preface".to_owned(), 0),
                ],
            ),
            (
                "ktrace.refused {refusal}".to_owned(),
                vec![("error.type=UNKNOWN_TOPIC_OR_PARTITION,messaging.operation.name=Fetch".to_owned(), 6)],
            ),
            ("ktrace.spans {span}".to_owned(), vec![(String::new(), spans)]),
            ("ktrace.throttle.time ms".to_owned(), vec![(of_produce(), 250)]),
            ("ktrace.throttled {response}".to_owned(), vec![(of_produce(), 2)]),
            ("ktrace.tls.key.wait ms".to_owned(), vec![(String::new(), 5)]),
            ("ktrace.tls.keys {key}".to_owned(), vec![(String::new(), 4)]),
            ("ktrace.tls.search.bytes By".to_owned(), vec![(String::new(), 2)]),
            ("ktrace.tls.search.cpu ms".to_owned(), vec![(String::new(), 3)]),
            ("ktrace.tls.searches {search}".to_owned(), vec![(String::new(), 1)]),
        ]
    };
    let got: Vec<_> = requests.iter().map(exported).collect();
    assert_eq!(got, [expected(3), expected(5)]);
    // They are known again where a backend writes them to Kafka.
    for (metric, _) in expected(3) {
        let name = metric.split(' ').next().unwrap();
        assert!(crate::hop::own::NAMES.contains(&name), "{name}");
    }
}

#[test]
fn metrics_are_the_agents_own() {
    let collector = Collector::default();
    start(serve(collector.clone()), Counts::default).finish(NEVER);
    let requests = collector.metrics.lock().unwrap();
    let of = &requests[0].resource_metrics[0];
    let attributes: Vec<_> = of.resource.as_ref().unwrap().attributes.iter().map(text).collect();
    for own in [
        "service.name=ktrace".to_owned(),
        format!("service.version={}", env!("CARGO_PKG_VERSION")),
        format!("host.name={}", host_name()),
    ] {
        assert!(attributes.contains(&own), "{own}: {attributes:?}");
    }
    let ids = attributes.iter().filter(|attribute| attribute.starts_with("service.instance.id="));
    assert_eq!((ids.count(), &*of.schema_url), (1, SCHEMA_URL));
    assert_eq!(of.scope_metrics[0].scope.as_ref().unwrap().name, "ktrace");
}

#[test]
fn a_collector_that_refuses_metrics_is_retried_and_no_failure() {
    let collector = refusing(&[Code::Unimplemented, Code::PermissionDenied]);
    let exporting = start(serve(collector.clone()), Counts::default);
    exporting.provider.force_flush().unwrap();
    exporting.provider.force_flush().unwrap();
    assert!(collector.metrics.lock().unwrap().is_empty());
    exporting.end_within(NEVER).unwrap();
    assert_eq!(collector.metrics.lock().unwrap().len(), 1);
}

#[test]
fn an_absent_collector_does_not_delay_the_end() {
    // Bound and never listening: the connection is refused, and tried again for longer than the
    // reader waits.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporting = start(unused, Counts::default);
    exporting.end_within(SOON).expect("in time for the reader");
}

#[test]
fn a_request_that_is_never_answered_ends_with_the_run() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let exporting = start(silent.local_addr().unwrap(), Counts::default);
    let provider = exporting.provider.clone();
    let flush = std::thread::spawn(move || provider.force_flush());
    let connection = silent.accept().unwrap();
    exporting.end_within(SOON).expect("in time for the reader");
    flush.join().unwrap().unwrap();
    drop(connection);
}
