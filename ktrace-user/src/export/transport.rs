//! One OTLP request: over gRPC or HTTP, with TLS or without, and what became of it.
//!
//! OpenTelemetry's own exporters do not pass on what a collector says when it refuses: when to try
//! again, how many spans it has rejected, why a connection failed. A queue that loses nothing
//! without need has to know. So the requests are OpenTelemetry's messages, sent by tonic's and
//! hyper's clients over the same kind of connection.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>

use std::error::Error;
use std::io::Write;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower_service::Service;

use super::endpoint::{Compression, Endpoint, Protocol};
use super::printable;

/// The longest answer that is read. A collector's are small.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Characters of a collector's message that are shown.
const MAX_WORDS: usize = 200;
/// The longest pause that a collector may ask for. It may have been restarted meanwhile.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(600);

/// A request that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The cause, in a line.
    pub why: String,
    pub next: Next,
    /// There was an answer, from the collector or a proxy before it.
    pub answered: bool,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again; if the collector has said so, not before this time is over.
    Again(Option<Duration>),
    /// It is too large: try its parts.
    Smaller,
    /// It will never be accepted.
    GiveUp,
}

impl Refusal {
    /// There was no answer.
    pub fn unanswered(why: String) -> Self {
        Self { why, next: Next::Again(None), answered: false }
    }

    fn answered(why: String, next: Next) -> Self {
        Self { why, next, answered: true }
    }
}

/// Sends requests of type `Q`, which are answered by `A`.
pub(super) struct Transport<Q, A> {
    endpoint: Endpoint,
    http: Client<HttpsConnector<HttpConnector>, Body>,
    connector: HttpsConnector<HttpConnector>,
    of: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Transport<Q, A>
where
    Q: Message + Serialize + Clone + 'static,
    A: Message + Default + DeserializeOwned + 'static,
{
    pub fn new(endpoint: Endpoint) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A request is one write most often; what follows it must not wait for its acknowledgement.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(endpoint.timeout));
        let builder = HttpsConnectorBuilder::new().with_tls_config(endpoint.tls.clone()).https_or_http();
        let grpc = endpoint.protocol == Protocol::Grpc;
        let connector = match grpc {
            true => builder.enable_http2().wrap_connector(tcp),
            false => builder.enable_http1().wrap_connector(tcp),
        };
        let http = Client::builder(TokioExecutor::new()).http2_only(grpc).build(connector.clone());
        Self { endpoint, http, connector, of: PhantomData }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the collector listens: a connection, with TLS where it is wanted, and nothing more.
    pub async fn probe(&self) -> Result<(), Refusal> {
        let mut connector = self.connector.clone();
        self.in_time(async move {
            std::future::poll_fn(|context| connector.poll_ready(context)).await.map_err(unreachable)?;
            connector.call(self.endpoint.url.clone()).await.map(drop).map_err(unreachable)
        })
        .await
    }

    pub async fn send(&self, request: &Q) -> Result<A, Refusal> {
        match self.endpoint.protocol {
            Protocol::Grpc => self.in_time(self.grpc(request.clone())).await,
            Protocol::Protobuf | Protocol::Json => self.in_time(self.http(request)).await,
        }
    }

    async fn in_time<T>(&self, doing: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let limit = self.endpoint.timeout;
        timeout(limit, doing)
            .await
            .unwrap_or_else(|_| Err(Refusal::unanswered(format!("no answer within {limit:?}"))))
    }

    async fn grpc(&self, request: Q) -> Result<A, Refusal> {
        let mut grpc = Grpc::with_origin(self.http.clone(), self.endpoint.url.clone());
        let compression = self.endpoint.compression.map(|compression| match compression {
            Compression::Gzip => CompressionEncoding::Gzip,
            Compression::Zstd => CompressionEncoding::Zstd,
        });
        if let Some(compression) = compression {
            grpc = grpc.send_compressed(compression).accept_compressed(compression);
        }
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = MetadataMap::from_headers(self.endpoint.headers.clone());
        grpc.ready().await.map_err(unreachable)?;
        let path = http::uri::PathAndQuery::from_static(self.endpoint.method);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let answer = grpc.unary(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| of_status(&status))
    }

    async fn http(&self, request: &Q) -> Result<A, Refusal> {
        let json = self.endpoint.protocol == Protocol::Json;
        let (body, kind) = match json {
            true => (serde_json::to_vec(request).map_err(|error| lost(&error))?, "application/json"),
            false => (request.encode_to_vec(), "application/x-protobuf"),
        };
        let (body, encoding) = match self.endpoint.compression {
            None => (body, None),
            Some(Compression::Gzip) => (gzip(&body).map_err(|error| lost(&error))?, Some("gzip")),
            Some(Compression::Zstd) => {
                (zstd::bulk::compress(&body, 0).map_err(|error| lost(&error))?, Some("zstd"))
            }
        };
        let mut request = Request::post(self.endpoint.url.clone()).header(header::CONTENT_TYPE, kind);
        if let Some(encoding) = encoding {
            request = request.header(header::CONTENT_ENCODING, encoding);
        }
        let mut request = request.body(Body::new(Full::from(body))).map_err(|error| lost(&error))?;
        request.headers_mut().extend(self.endpoint.headers.clone());
        let answer = self.http.request(request).await.map_err(unreachable)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| Refusal::unanswered(causes(&*error)))?.to_bytes();
        if !head.status.is_success() {
            return Err(of_http(head.status, &head.headers, &body, SystemTime::now()));
        }
        // An answer that cannot be read was a success all the same.
        Ok(match json {
            true => serde_json::from_slice(&body).unwrap_or_default(),
            false => A::decode(body).unwrap_or_default(),
        })
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// A request that cannot be encoded now never can.
fn lost(error: &dyn Error) -> Refusal {
    Refusal { why: causes(error), next: Next::GiveUp, answered: false }
}

fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Refusal {
    Refusal::unanswered(causes(&*error.into()))
}

/// An error with what lies behind it. Causes that the one before quotes are not repeated.
fn causes(error: &dyn Error) -> String {
    let (mut words, mut next) = (String::new(), Some(error));
    while let Some(error) = next {
        let text = error.to_string();
        if !words.contains(&text) {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(&text);
        }
        next = error.source();
    }
    // hyper's own text only says at which step it failed; the source has the cause.
    let behind = words.strip_prefix("client error (").and_then(|rest| rest.split_once("): "));
    said(behind.map_or(&*words, |(_, rest)| rest))
}

/// A message from the network, as it may be shown.
fn said(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    let mut shown: String = printable(line).chars().take(MAX_WORDS).collect();
    if shown.chars().count() == MAX_WORDS {
        shown.push('…');
    }
    shown
}

/// By the specification's table, with one exception: `RESOURCE_EXHAUSTED` is retried also where no
/// `RetryInfo` says that it will pass. Requests are kept below what servers accept, so what is
/// exhausted is a quota or memory, which is free again some time; and the queue's bound is the end
/// of it.
///
/// <https://opentelemetry.io/docs/specs/otlp/#failures>
fn of_status(status: &Status) -> Refusal {
    // A status with a source was made here, not by the collector: there was no answer.
    if let Some(source) = status.source() {
        return Refusal::unanswered(causes(source));
    }
    let why = match said(status.message()) {
        message if message.is_empty() => name(status.code()).to_owned(),
        message => format!("{}: {message}", name(status.code())),
    };
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let wait = wait.filter(|wait| !wait.is_zero()).map(|wait| wait.min(MAX_WAIT));
    match status.code() {
        // Of a message beyond what they accept grpc-go says the first, and tonic the second.
        Code::ResourceExhausted if status.message().contains("larger than max") => {
            Refusal::answered(why, Next::Smaller)
        }
        Code::OutOfRange if status.message().contains("length too large") => {
            Refusal::answered(why, Next::Smaller)
        }
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Refusal::answered(why, Next::Again(wait)),
        _ => Refusal::answered(why, Next::GiveUp),
    }
}

/// As gRPC writes them.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures-1>: the body of a refusal is a `google.rpc.Status`, or whatever stands
/// between here and the collector has to say.
fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Refusal {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let message = match kind.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => {
            tonic_types::Status::decode(body).map(|status| status.message).unwrap_or_default()
        }
        "application/json" => {
            let status = serde_json::from_slice::<serde_json::Value>(body).ok();
            let message = status.and_then(|status| Some(status.get("message")?.as_str()?.to_owned()));
            message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
        }
        "text/html" => String::new(),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let why = match said(&message) {
        message if message.is_empty() => format!("HTTP {status}"),
        message => format!("HTTP {status}: {message}"),
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Refusal::answered(why, Next::Again(retry_after(headers, now))),
        413 => Refusal::answered(why, Next::Smaller),
        300..=399 => Refusal::answered(format!("{why}, a redirection, which is not followed"), Next::GiveUp),
        _ => Refusal::answered(why, Next::GiveUp),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?,
    };
    Some(wait.min(MAX_WAIT)).filter(|wait| !wait.is_zero())
}

/// How long to wait before a request is sent again: twice as long each time up to a bound, less a
/// random share, so that the agents of many hosts do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const MOST: Duration = Duration::from_secs(10);

    /// The time to wait now; what the collector has asked for is the least.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.next.mul_f64(1.0 - 0.5 * fastrand::f64());
        self.next = (self.next * 2).min(Self::MOST);
        // On top of what was asked for, as others were asked for the same.
        asked.map_or(wait, |asked| asked + wait.min(asked / 4))
    }
}

#[cfg(test)]
mod tests;
