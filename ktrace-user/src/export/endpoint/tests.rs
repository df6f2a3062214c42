//! What the environment and `--otlp` make of an endpoint.

use super::*;

fn endpoint(signal: &Signal, otlp: Option<&str>, set: &[(&str, &str)]) -> Result<Endpoint, String> {
    let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = OtlpOptions { url: otlp.map(str::to_owned), environment };
    Endpoint::of(signal, &options).map_err(|error| error.to_string())
}

#[test]
fn base_urls_get_the_path_of_the_signal() {
    for (url, traces, metrics) in [
        ("http://host:4318", "http://host:4318/v1/traces", "http://host:4318/v1/metrics"),
        ("http://host:4318/", "http://host:4318/v1/traces", "http://host:4318/v1/metrics"),
        ("http://h:4318/a/v1/traces", "http://h:4318/a/v1/traces", "http://h:4318/a/v1/metrics"),
        ("http://h:4318/spans", "http://h:4318/spans", "http://h:4318/spans/v1/metrics"),
    ] {
        let shown = |signal| endpoint(signal, Some(url), &[]).unwrap().to_string();
        assert_eq!((&*shown(&TRACES), &*shown(&METRICS)), (traces, metrics));
    }
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    for (name, url, traces) in [
        (GENERAL, "http://h:4318/otlp", "http://h:4318/otlp/v1/traces"),
        (OWN, "http://h:4318/otlp", "http://h:4318/otlp"),
        (OWN, "http://h:4318", "http://h:4318"),
        (GENERAL, "http://user:secret@h:4317", "http://h:4317"),
        (GENERAL, " ", "http://localhost:4317"),
    ] {
        assert_eq!(endpoint(&TRACES, None, &[(name, url)]).unwrap().to_string(), traces);
    }
}

#[test]
fn the_protocol_is_named_or_follows_from_the_port() {
    let protocol = |url: &str, named: &[(&str, &str)]| endpoint(&TRACES, Some(url), named).unwrap().protocol;
    for url in ["http://collector:4318", "http://10.0.0.1:4318/", "https://[::1]:4318/v1/traces"] {
        assert_eq!(protocol(url, &[]), Protocol::Protobuf, "{url}");
    }
    for url in ["http://collector:4317", "http://collector", "http://collector/a:4318", "http://c:14318"] {
        assert_eq!(protocol(url, &[]), Protocol::Grpc, "{url}");
        assert_eq!(protocol(url, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/JSON")]), Protocol::Json, "{url}");
        // What is not known is ignored, and named at the start.
        assert_eq!(protocol(url, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "kafka")]), Protocol::Grpc, "{url}");
    }
}

#[test]
fn settings_of_a_signal_come_before_the_general_ones() {
    let set = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = 1"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "y=2"),
    ];
    let (traces, metrics) = (endpoint(&TRACES, None, &set).unwrap(), endpoint(&METRICS, None, &set).unwrap());
    assert_eq!((traces.timeout.as_millis(), metrics.timeout.as_millis()), (3000, 500));
    assert_eq!((traces.compression, metrics.compression), (Some(Compression::Gzip), None));
    assert!(traces.headers["api-key"] == "a b" && traces.headers["x"] == "1");
    assert!(metrics.headers["y"] == "2" && !metrics.headers.contains_key("x"));
}

#[test]
fn what_cannot_work_is_named() {
    let missing = "/nowhere/ca.pem";
    let empty = "/dev/null";
    for (set, named) in [
        ([("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")], "does not begin with http:// or https://"),
        ([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://")], "OTEL_EXPORTER_OTLP_ENDPOINT=http://"),
        ([("OTEL_EXPORTER_OTLP_HEADERS", "authorization")], "OTEL_EXPORTER_OTLP_HEADERS is not a list of"),
        ([("OTEL_EXPORTER_OTLP_HEADERS", "a b=c")], "a b is no header"),
        ([("OTEL_EXPORTER_OTLP_HEADERS", "a=%0Asecret")], "a is no header"),
        ([("OTEL_EXPORTER_OTLP_CERTIFICATE", missing)], "/nowhere/ca.pem: No such file"),
        ([("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", empty)], "/dev/null: no certificate in it"),
        ([("OTEL_EXPORTER_OTLP_CLIENT_KEY", empty)], "needs its certificate"),
        ([("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", empty)], "needs its key"),
    ] {
        let error = endpoint(&TRACES, None, &set).err().unwrap_or_default();
        assert!(error.contains(named) && !error.contains("secret"), "{set:?}: {error}");
    }
}

#[test]
fn an_endpoint_without_a_scheme_must_say_whether_it_is_secure() {
    let shown = |insecure| {
        let set = [("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", insecure)];
        endpoint(&TRACES, None, &set).map(|endpoint| endpoint.to_string())
    };
    assert_eq!(shown("true").as_deref(), Ok("http://c:4317"));
    assert_eq!(shown("false").as_deref(), Ok("https://c:4317"));
    assert!(shown("perhaps").is_err());
}
