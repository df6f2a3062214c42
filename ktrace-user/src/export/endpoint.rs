//! Where the requests of a signal go, and how: OpenTelemetry's standard environment of OTLP
//! exporters, for spans and metrics alike.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::environment::{Environment, pairs};
use super::{ExportError, printable};

/// Where to send.
#[derive(Clone, Debug, Default)]
pub struct OtlpOptions {
    /// `--otlp`: beats the environment.
    pub url: Option<String>,
    pub environment: Environment,
}

/// What the environment calls a signal's own settings, each before the general one.
#[derive(Debug)]
pub(super) struct Signal {
    endpoint: &'static str,
    protocol: &'static str,
    insecure: &'static str,
    certificate: &'static str,
    client_certificate: &'static str,
    client_key: &'static str,
    headers: &'static str,
    compression: &'static str,
    timeout: &'static str,
    /// Its path behind a base URL, over HTTP.
    path: &'static str,
    /// Its method, over gRPC.
    pub method: &'static str,
}

pub(super) const TRACES: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    insecure: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    certificate: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    client_certificate: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    client_key: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    path: "v1/traces",
    method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
};

pub(super) const METRICS: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    insecure: "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
    certificate: "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    client_certificate: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    client_key: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    path: "v1/metrics",
    method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

/// How long a collector has to answer, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Protobuf,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// How to reach the collector of a signal.
pub(super) struct Endpoint {
    /// Of the request itself over HTTP, of the server over gRPC.
    pub url: Uri,
    pub protocol: Protocol,
    pub headers: HeaderMap,
    pub compression: Option<Compression>,
    /// For one request.
    pub timeout: Duration,
    pub tls: ClientConfig,
    /// The signal's method, over gRPC.
    pub method: &'static str,
}

impl Endpoint {
    /// # Errors
    /// [`ExportError::Otlp`] for what cannot work.
    pub fn of(signal: &Signal, options: &OtlpOptions) -> Result<Self, ExportError> {
        let environment = &options.environment;
        let set = environment.first([signal.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let given = options.url.as_deref().map(|url| ("--otlp", url)).or(set);
        // 4318 is OTLP's port for HTTP, where gRPC never gets an answer.
        let usual = if given.is_some_and(|(_, url)| is_http_port(url)) { "http/protobuf" } else { "grpc" };
        let named = environment.first([signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        let protocol = match named.map_or(usual, |(_, protocol)| protocol).to_ascii_lowercase().as_str() {
            "http/protobuf" => Protocol::Protobuf,
            "http/json" => Protocol::Json,
            _ => Protocol::Grpc,
        };
        let (name, url) = match given {
            Some((name, url)) => (name, with_scheme(name, url, protocol, signal, environment)?),
            None if protocol == Protocol::Grpc => ("--otlp", "http://localhost:4317".to_owned()),
            None => ("--otlp", "http://localhost:4318".to_owned()),
        };
        let url = match protocol {
            Protocol::Grpc => url,
            _ if options.url.is_some() => signal_url(&url, signal),
            // The signal's own variable has the whole URL, the general one a base.
            _ if name == signal.endpoint => url,
            _ => format!("{}/{}", url.trim_end_matches('/'), signal.path),
        };
        let parsed: Uri =
            url.parse().map_err(|error| wrong(format!("{name}={}: {error}", printable(&url))))?;
        if parsed.host().is_none_or(str::is_empty) {
            return Err(wrong(format!("{name}={} names no host", printable(&url))));
        }
        let compression = environment.first([signal.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"]);
        let timeout =
            [signal.timeout, "OTEL_EXPORTER_OTLP_TIMEOUT"].map(|name| environment.milliseconds(name));
        Ok(Self {
            url: parsed,
            protocol,
            headers: headers(signal, environment)?,
            compression: match compression.map(|(_, value)| value.to_ascii_lowercase()).as_deref() {
                Some("gzip") => Some(Compression::Gzip),
                Some("zstd") => Some(Compression::Zstd),
                _ => None,
            },
            timeout: timeout.into_iter().flatten().find(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT),
            tls: tls(signal, environment)?,
            method: signal.method,
        })
    }
}

/// As it is printed: without user and password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.url.scheme().map_or("http", Scheme::as_str);
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = self.url.path();
        write!(f, "{scheme}://{host}{}", if path == "/" { "" } else { path })
    }
}

fn wrong(what: String) -> ExportError {
    ExportError::Otlp { what }
}

/// Over gRPC an endpoint may be without a scheme, where `…_INSECURE` says which it has.
fn with_scheme(
    name: &str,
    url: &str,
    protocol: Protocol,
    signal: &Signal,
    environment: &Environment,
) -> Result<String, ExportError> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let insecure = environment.first([signal.insecure, "OTEL_EXPORTER_OTLP_INSECURE"]);
    match (scheme.as_deref(), insecure) {
        (Some("http" | "https"), _) => Ok(url.to_owned()),
        (None, Some((_, insecure))) if protocol == Protocol::Grpc => {
            let scheme = if insecure.eq_ignore_ascii_case("true") { "http" } else { "https" };
            Ok(format!("{scheme}://{url}"))
        }
        _ => {
            let url = printable(url);
            Err(wrong(format!("the endpoint {url} does not begin with http:// or https:// ({name})")))
        }
    }
}

/// Whether an endpoint names the port that OTLP has for HTTP.
fn is_http_port(endpoint: &str) -> bool {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    authority.split('/').next().is_some_and(|authority| authority.ends_with(":4318"))
}

/// The URL of `--otlp`: a base URL gets the signal's path. A URL that has a path is the one of
/// traces, so other signals get theirs instead.
fn signal_url(url: &str, signal: &Signal) -> String {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if !path.is_empty() && signal.path == TRACES.path {
        return url.to_owned();
    }
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix(TRACES.path).unwrap_or(base).trim_end_matches('/');
    format!("{base}/{}", signal.path)
}

fn headers(signal: &Signal, environment: &Environment) -> Result<HeaderMap, ExportError> {
    let mut headers = HeaderMap::new();
    let own = concat!("ktrace/", env!("CARGO_PKG_VERSION"));
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(own));
    let Some((name, list)) = environment.first([signal.headers, "OTEL_EXPORTER_OTLP_HEADERS"]) else {
        return Ok(headers);
    };
    for (key, value) in pairs(name, list)? {
        let parsed = HeaderName::try_from(&key).ok().zip(HeaderValue::try_from(value).ok());
        // The value is often a secret, so it is not shown.
        let Some((key, value)) = parsed else {
            return Err(wrong(format!("{name}: {} is no header, or its value is none", printable(&key))));
        };
        headers.insert(key, value);
    }
    Ok(headers)
}

/// The host's own roots, Mozilla's where it has none (an empty container); with them, authorities
/// and the client's certificate of the environment.
fn tls(signal: &Signal, environment: &Environment) -> Result<ClientConfig, ExportError> {
    let file = |own, general| -> Result<Option<(String, Vec<u8>)>, ExportError> {
        let Some((name, path)) = environment.first([own, general]) else { return Ok(None) };
        let named = format!("{name}={}", printable(path));
        match std::fs::read(path) {
            Ok(pem) => Ok(Some((named, pem))),
            Err(error) => Err(wrong(format!("{named}: {error}"))),
        }
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some((named, pem)) = file(signal.certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE")? {
        for certificate in certificates(&named, &pem)? {
            roots.add(certificate).map_err(|error| wrong(format!("{named}: {error}")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| wrong(error.to_string()))?.with_root_certificates(roots);
    let certificate = file(signal.client_certificate, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")?;
    let key = file(signal.client_key, "OTEL_EXPORTER_OTLP_CLIENT_KEY")?;
    match (certificate, key) {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some((named, certificate)), Some((named_key, key))) => {
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| wrong(format!("{named_key}: no private key in it (PEM)")))?;
            let chain = certificates(&named, &certificate)?;
            config.with_client_auth_cert(chain, key).map_err(|error| wrong(format!("{named}: {error}")))
        }
        (Some((named, _)), None) => {
            Err(wrong(format!("{named} needs its key, OTEL_EXPORTER_OTLP_CLIENT_KEY")))
        }
        (None, Some((named, _))) => {
            Err(wrong(format!("{named} needs its certificate, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")))
        }
    }
}

fn certificates(named: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ExportError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(wrong(format!("{named}: no certificate in it (PEM)"))),
    }
}

#[cfg(test)]
mod tests;
