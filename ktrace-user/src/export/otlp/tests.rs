//! The exporter against a collector within this process.

use std::net::SocketAddr;

use tonic::Code;

use super::super::Sinks;
use super::super::collector::{Collector, refusing, serve};
use super::*;
use crate::hop::{Hop, samples};

fn export(address: SocketAddr, hops: Vec<Hop>) -> std::collections::BTreeMap<&'static str, u64> {
    let options = OtlpOptions { url: Some(format!("http://{address}")) };
    let mut sinks = Sinks::default();
    sinks.add(otlp(&options, WhenFull::Wait).unwrap());
    let senders = sinks.senders();
    hops.into_iter().for_each(|hop| senders.send(hop));
    drop(senders);
    let (lost, end) = sinks.finish(Duration::from_secs(10), false);
    let failed = lost.get("export_failed").copied().unwrap_or(0);
    match end {
        Ok(()) => assert_eq!(failed, 0),
        Err(ExportError::Undelivered { spans, .. }) => assert_eq!(spans, failed),
        Err(other) => panic!("{other}"),
    }
    lost
}

#[test]
fn one_request_a_process_with_its_resource_and_exact_ids() {
    let (collector, delivered) = (Collector::default(), samples::delivered());
    let address = serve(collector.clone());
    let lost = export(address, vec![samples::sent(), delivered.clone(), samples::sent()]);
    assert!(lost.values().all(|count| *count == 0), "{lost:?}");
    let requests = collector.spans.lock().unwrap();
    let of: Vec<_> = requests.iter().map(|request| &request.resource_spans[0]).collect();
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
    assert_eq!(lost.get("export_failed"), Some(&2));
}

#[test]
fn spans_that_nobody_takes_are_counted_within_the_time_limit() {
    // Bound and never listening: the connection is refused.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = OtlpOptions { url: Some(format!("http://{unused}")) };
    let mut sinks = Sinks::default();
    sinks.add(otlp(&options, WhenFull::Drop).unwrap());
    let senders = sinks.senders();
    (0..10).for_each(|_| senders.send(samples::sent()));
    drop(senders);
    let started = std::time::Instant::now();
    let (lost, end) = sinks.finish(Duration::from_millis(300), false);
    assert!(
        matches!(end, Err(ExportError::Undelivered { spans: 10, .. }))
            && started.elapsed() < Duration::from_secs(3)
    );
    assert_eq!(lost.get("export_failed"), Some(&10));
}
