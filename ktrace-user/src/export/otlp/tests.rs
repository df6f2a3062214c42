//! The exporter against a collector within this process.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};

use super::super::Sinks;
use super::*;
use crate::hop::{Hop, samples};

/// Keeps what it gets, after having refused as often as it is told to.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    refusals: Arc<Mutex<Vec<Code>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if let Some(code) = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Err(Status::new(code, "as the test wants it"));
        }
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Serves until the process ends.
fn serve(collector: Collector) -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener =
                tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let service = TraceServiceServer::new(collector)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(listener)
                .await
                .unwrap();
        });
    });
    address.recv().unwrap()
}

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
    let requests = collector.requests.lock().unwrap();
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
    let refusals = Arc::new(Mutex::new(vec![Code::Unavailable, Code::Unavailable]));
    let collector = Collector { refusals, ..Collector::default() };
    let lost = export(serve(collector.clone()), vec![samples::sent()]);
    assert_eq!(lost.get("export_failed"), Some(&0));
    assert_eq!(collector.requests.lock().unwrap().len(), 1);
}

#[test]
fn refusals_for_good_are_counted() {
    let collector =
        Collector { refusals: Arc::new(Mutex::new(vec![Code::PermissionDenied])), ..Collector::default() };
    let lost = export(serve(collector), vec![samples::sent(), samples::sent()]);
    assert_eq!(lost.get("export_failed"), Some(&2));
}

#[test]
fn base_urls_get_the_path_of_traces() {
    assert_eq!(signal_url("http://host:4318"), "http://host:4318/v1/traces");
    assert_eq!(signal_url("http://host:4318/"), "http://host:4318/v1/traces");
    assert_eq!(signal_url("http://host:4318/tenant/v1/traces"), "http://host:4318/tenant/v1/traces");
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

#[test]
fn the_port_of_otlp_over_http_is_known() {
    for endpoint in ["http://collector:4318", "http://10.0.0.1:4318/", "http://[::1]:4318/v1/traces"] {
        assert!(is_http_port(endpoint), "{endpoint}");
    }
    for endpoint in ["http://collector:4317", "http://collector", "http://collector/a:4318", "http://c:14318"]
    {
        assert!(!is_http_port(endpoint), "{endpoint}");
    }
}
