//! Where the requests of a signal go, and over what: the part of the standard environment that OpenTelemetry's exporters leave to
//! their caller. One for spans and metrics.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::env;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, WithExportConfig, WithHttpConfig, WithTonicConfig,
};

use super::ExportError;

/// Where to send, beyond what the environment says.
#[derive(Clone, Debug, Default)]
pub struct OtlpOptions {
    /// `--otlp`: beats the environment.
    pub url: Option<String>,
}

/// What the environment calls a signal's own settings, each before the general one.
#[derive(Debug)]
pub(super) struct Signal {
    endpoint: &'static str,
    protocol: &'static str,
    certificate: &'static str,
    client_certificate: &'static str,
    client_key: &'static str,
    /// Its path behind a base URL, over HTTP.
    path: &'static str,
}

pub(super) const TRACES: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    certificate: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    client_certificate: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    client_key: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    path: "v1/traces",
};

pub(super) const METRICS: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    certificate: "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    client_certificate: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    client_key: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    path: "v1/metrics",
};

/// How to reach who takes a signal.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Only what beats the environment, which the exporters read themselves.
    url: Option<String>,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Grpc { tls: Option<Box<ClientTlsConfig>> },
    Http,
}

impl Endpoint {
    /// # Errors
    /// [`ExportError::Otlp`] for what cannot work.
    pub fn of(signal: &Signal, options: &OtlpOptions) -> Result<Self, ExportError> {
        let endpoint = options
            .url
            .clone()
            .or_else(|| first_set([signal.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"]).map(|(_, value)| value));
        if let Some(endpoint) = &endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            return Err(wrong(format!("the endpoint {endpoint} does not begin with http:// or https://")));
        }
        // 4318 is OTLP's port for HTTP, where gRPC never gets an answer.
        let usual = if endpoint.as_deref().is_some_and(is_http_port) { "http/protobuf" } else { "grpc" };
        let (name, protocol) = first_set([signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"])
            .unwrap_or(("the endpoint's protocol", usual.to_owned()));
        match protocol.to_ascii_lowercase().as_str() {
            "grpc" => {
                // Certificates are loaded when TLS is configured, so plain endpoints must not ask for it.
                let plain = endpoint.is_none_or(|endpoint| endpoint.starts_with("http:"));
                let tls = if plain { None } else { Some(Box::new(tls(signal)?)) };
                Ok(Self { url: options.url.clone(), transport: Transport::Grpc { tls } })
            }
            "http/protobuf" => {
                if endpoint.is_some_and(|endpoint| endpoint.starts_with("https:")) {
                    return Err(wrong(format!(
                        "{name}=http/protobuf works without TLS only; use grpc for https:"
                    )));
                }
                let url = options.url.as_deref().map(|url| signal_url(url, signal));
                Ok(Self { url, transport: Transport::Http })
            }
            other => Err(wrong(format!("{name}={other} is neither grpc nor http/protobuf"))),
        }
    }

    /// An exporter by one of the two ways: with [`Self::grpc`] and the given TLS, or with [`Self::http`]. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`ExportError::Otlp`] for what cannot work.
    pub fn build<E>(
        &self,
        grpc: impl Fn(Option<ClientTlsConfig>) -> Result<E, ExporterBuildError>,
        http: impl FnOnce() -> Result<E, ExporterBuildError>,
    ) -> Result<E, ExportError> {
        let built = match &self.transport {
            Transport::Grpc { tls: None } => grpc(None),
            // The host's own roots; Mozilla's alone where it has none, as in an empty container.
            Transport::Grpc { tls: Some(tls) } => grpc(Some((**tls).clone().with_enabled_roots()))
                .or_else(|_| grpc(Some((**tls).clone().with_webpki_roots()))),
            Transport::Http => http(),
        };
        built.map_err(|error| wrong(error.to_string()))
    }

    pub fn grpc<B: WithExportConfig + WithTonicConfig>(&self, builder: B, tls: Option<ClientTlsConfig>) -> B {
        let builder = self.to_url(builder).with_retry_policy(retries());
        match tls {
            Some(tls) => builder.with_tls_config(tls),
            None => builder,
        }
    }

    pub fn http<B: WithExportConfig + WithHttpConfig>(&self, builder: B) -> B {
        self.to_url(builder).with_protocol(Protocol::HttpBinary).with_retry_policy(retries())
    }

    fn to_url<B: WithExportConfig>(&self, builder: B) -> B {
        match &self.url {
            Some(url) => builder.with_endpoint(url),
            None => builder,
        }
    }
}

fn wrong(what: String) -> ExportError {
    ExportError::Otlp { what }
}

/// Whether an endpoint names the port that OTLP has for HTTP.
fn is_http_port(endpoint: &str) -> bool {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    authority.split('/').next().is_some_and(|authority| authority.ends_with(":4318"))
}

/// Within `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s), which bounds all attempts together.
fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(6).with_max_delay(Duration::from_secs(5))
}

/// A base URL gets the signal's path, as the specification has it for base URLs of the environment. A URL that has a path is
/// that of traces: other signals never go there.
fn signal_url(url: &str, signal: &Signal) -> String {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if !path.is_empty() && signal.path == TRACES.path {
        return url.to_owned();
    }
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix(TRACES.path).unwrap_or(base).trim_end_matches('/');
    format!("{base}/{}", signal.path)
}

/// `OTEL_EXPORTER_OTLP_CERTIFICATE` and the client's own, which the exporter leaves to its caller.
fn tls(signal: &Signal) -> Result<ClientTlsConfig, ExportError> {
    let file = |own, general| -> Result<Option<Vec<u8>>, ExportError> {
        let Some((name, path)) = first_set([own, general]) else { return Ok(None) };
        std::fs::read(&path).map(Some).map_err(|error| wrong(format!("{name}={path}: {error}")))
    };
    let mut config = ClientTlsConfig::new();
    if let Some(authority) = file(signal.certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE")? {
        config = config.ca_certificate(Certificate::from_pem(authority));
    }
    let certificate = file(signal.client_certificate, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")?;
    let key = file(signal.client_key, "OTEL_EXPORTER_OTLP_CLIENT_KEY")?;
    Ok(match (certificate, key) {
        (Some(certificate), Some(key)) => config.identity(Identity::from_pem(certificate, key)),
        _ => config,
    })
}

/// Empty counts as not set.
pub(super) fn first_set<const N: usize>(names: [&'static str; N]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, env::var(name).ok().filter(|value| !value.is_empty())?)))
}

pub(super) fn number<N: FromStr>(name: &'static str) -> Result<Option<N>, ExportError> {
    let Some((_, value)) = first_set([name]) else { return Ok(None) };
    let number = value.trim().parse().ok();
    number.map(Some).ok_or_else(|| wrong(format!("{name}={value} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_get_the_path_of_the_signal() {
        for (url, traces, metrics) in [
            ("http://host:4318", "http://host:4318/v1/traces", "http://host:4318/v1/metrics"),
            ("http://host:4318/", "http://host:4318/v1/traces", "http://host:4318/v1/metrics"),
            ("http://h:4318/a/v1/traces", "http://h:4318/a/v1/traces", "http://h:4318/a/v1/metrics"),
            ("http://h:4318/spans", "http://h:4318/spans", "http://h:4318/spans/v1/metrics"),
        ] {
            assert_eq!((&*signal_url(url, &TRACES), &*signal_url(url, &METRICS)), (traces, metrics));
        }
    }

    #[test]
    fn the_port_of_otlp_over_http_is_known() {
        for endpoint in ["http://collector:4318", "http://10.0.0.1:4318/", "http://[::1]:4318/v1/traces"] {
            assert!(is_http_port(endpoint), "{endpoint}");
        }
        for endpoint in
            ["http://collector:4317", "http://collector", "http://collector/a:4318", "http://c:14318"]
        {
            assert!(!is_http_port(endpoint), "{endpoint}");
        }
    }
}
