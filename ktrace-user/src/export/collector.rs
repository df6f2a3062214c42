//! A collector within this process, for the tests of what goes out by OTLP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::runtime::Builder;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

/// Keeps what it receives, after it has refused as often as it should.
#[derive(Clone, Default)]
pub(super) struct Collector {
    pub spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    pub metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    /// How many requests it has refused.
    pub refused: Arc<AtomicUsize>,
    /// How many spans of each request it rejects.
    pub rejects: i64,
    pub refusals: Arc<Mutex<Vec<Status>>>,
    /// Refuses all, as long as it is set.
    pub down: Arc<Mutex<Option<Status>>>,
}

/// Refuses with these, the last first.
pub(super) fn refusing(refusals: &[Code]) -> Collector {
    let refusals = refusals.iter().map(|code| Status::new(*code, "as the test wants it"));
    refusing_with(refusals.collect())
}

/// The same, with details.
pub(super) fn refusing_with(refusals: Vec<Status>) -> Collector {
    Collector { refusals: Arc::new(Mutex::new(refusals)), ..Collector::default() }
}

impl Collector {
    fn take<R>(&self, request: Request<R>, into: &Mutex<Vec<R>>) -> Result<(), Status> {
        let next = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let refusal = next.or_else(|| self.down.lock().unwrap_or_else(PoisonError::into_inner).clone());
        if let Some(status) = refusal {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(status);
        }
        into.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_inner());
        Ok(())
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request, &self.spans)?;
        let rejected =
            ExportTracePartialSuccess { rejected_spans: self.rejects, error_message: "odd".to_owned() };
        let partial_success = (self.rejects > 0).then_some(rejected);
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request, &self.metrics).map(|()| Response::new(Default::default()))
    }
}

/// Serves until the process ends.
pub(super) fn serve(collector: Collector) -> SocketAddr {
    serve_at(collector, ([127, 0, 0, 1], 0).into())
}

/// The same, at this address.
pub(super) fn serve_at(collector: Collector, address: SocketAddr) -> SocketAddr {
    serve_by(collector, address, Server::builder)
}

/// The same, with this certificate and key.
pub(super) fn serve_tls(collector: Collector, certificate: &str, key: &str) -> SocketAddr {
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let address = ([127, 0, 0, 1], 0).into();
    serve_by(collector, address, move || Server::builder().tls_config(tls).unwrap())
}

fn serve_by(
    collector: Collector,
    at: SocketAddr,
    server: impl FnOnce() -> Server + Send + 'static,
) -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpIncoming::bind(at).unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let spans = TraceServiceServer::new(collector.clone());
            let metrics = MetricsServiceServer::new(collector);
            server()
                .add_service(spans.accept_compressed(Gzip).accept_compressed(Zstd))
                .add_service(metrics.accept_compressed(Gzip).accept_compressed(Zstd))
                .serve_with_incoming(listener)
                .await
                .unwrap();
        });
    });
    address.recv().unwrap()
}
