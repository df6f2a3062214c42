//! A collector within this process, for the tests of what goes out by OTLP.

use std::net::SocketAddr;
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
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::runtime::Builder;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

/// Keeps what it gets, after having refused as often as it is told to.
#[derive(Clone, Default)]
pub(super) struct Collector {
    pub spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    pub metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    refusals: Arc<Mutex<Vec<Code>>>,
}

/// Refuses with these, the last first.
pub(super) fn refusing(refusals: &[Code]) -> Collector {
    Collector { refusals: Arc::new(Mutex::new(refusals.to_vec())), ..Collector::default() }
}

impl Collector {
    fn take<R>(&self, request: Request<R>, into: &Mutex<Vec<R>>) -> Result<(), Status> {
        if let Some(code) = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Err(Status::new(code, "as the test wants it"));
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
        self.take(request, &self.spans).map(|()| Response::new(Default::default()))
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
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let spans = TraceServiceServer::new(collector.clone());
            let metrics = MetricsServiceServer::new(collector);
            Server::builder()
                .add_service(spans.accept_compressed(Gzip).accept_compressed(Zstd))
                .add_service(metrics.accept_compressed(Gzip).accept_compressed(Zstd))
                .serve_with_incoming(listener)
                .await
                .unwrap();
        });
    });
    address.recv().unwrap()
}
