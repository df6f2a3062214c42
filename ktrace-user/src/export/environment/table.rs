//! The variables of OpenTelemetry's specification.

/// One of them.
#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub kind: Kind,
    /// A value that turns something off, which is said at the start, and what is said then.
    pub off: Option<(&'static str, &'static str)>,
}

/// What ktrace makes of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text; read where it is used, and an error there if it cannot work.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `key=value,key=value`.
    Pairs,
    /// One of these, in upper or lower case.
    OneOf(&'static [&'static str]),
    /// Not honoured, and why; named when it is set to something else than what is harmless.
    Ignored { why: &'static str, harmless: &'static [&'static str] },
}

impl Kind {
    /// Whether the value can be read. Other values are ignored, as the specification has it.
    pub fn reads(self, value: &str) -> bool {
        match self {
            Self::Text | Self::Ignored { .. } => true,
            Self::Number => value.parse::<u64>().is_ok(),
            Self::Pairs => super::pairs("", value).is_ok(),
            Self::Boolean => ["true", "false"].iter().any(|known| value.eq_ignore_ascii_case(known)),
            Self::OneOf(known) => known.iter().any(|known| value.eq_ignore_ascii_case(known)),
        }
    }

    /// What a value should be.
    pub fn wanted(self) -> String {
        match self {
            Self::Text | Self::Ignored { .. } => "text".to_owned(),
            Self::Number => "a whole number".to_owned(),
            Self::Pairs => "a list of KEY=VALUE, separated by commas".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::OneOf([only]) => (*only).to_owned(),
            Self::OneOf(known) => format!("one of {}", known.join(", ")),
        }
    }
}

const fn honoured(name: &'static str, kind: Kind) -> Variable {
    Variable { name, kind, off: None }
}

const fn ignored(name: &'static str, why: &'static str) -> Variable {
    Variable { name, kind: Kind::Ignored { why, harmless: &[] }, off: None }
}

const fn switch(name: &'static str, kind: Kind, off: (&'static str, &'static str)) -> Variable {
    Variable { name, kind, off: Some(off) }
}

const PROTOCOL: Kind = Kind::OneOf(&["grpc", "http/protobuf", "http/json"]);
const COMPRESSION: Kind = Kind::OneOf(&["none", "gzip", "zstd"]);
const EXPORTER: Kind = Kind::OneOf(&["otlp", "none"]);

const SAMPLER: &str = "--sample and --sample-parent say which traces are kept";
const FEW: &str = "ktrace's spans have few attributes and links, none of them longer than what Kafka allows";
const LOGS: &str = "ktrace exports no logs by OTLP";
const OTHER_EXPORTER: &str = "ktrace exports by OTLP alone";
const OBSOLETE: &str = "the specification has given it up; the name with TRACES or METRICS is honoured";

/// All of them, as `docs/configuration.md` lists them.
pub static VARIABLES: &[Variable] = &[
    switch("OTEL_SDK_DISABLED", Kind::Boolean, ("true", "neither spans nor metrics are exported")),
    switch("OTEL_TRACES_EXPORTER", EXPORTER, ("none", "no spans are exported")),
    switch("OTEL_METRICS_EXPORTER", EXPORTER, ("none", "no metrics are exported")),
    Variable {
        name: "OTEL_LOGS_EXPORTER",
        kind: Kind::Ignored { why: LOGS, harmless: &["none"] },
        off: None,
    },
    honoured("OTEL_SERVICE_NAME", Kind::Text),
    honoured("OTEL_RESOURCE_ATTRIBUTES", Kind::Pairs),
    honoured("OTEL_EXPORTER_OTLP_ENDPOINT", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL),
    honoured("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", PROTOCOL),
    honoured("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", PROTOCOL),
    honoured("OTEL_EXPORTER_OTLP_INSECURE", Kind::Boolean),
    honoured("OTEL_EXPORTER_OTLP_TRACES_INSECURE", Kind::Boolean),
    honoured("OTEL_EXPORTER_OTLP_METRICS_INSECURE", Kind::Boolean),
    honoured("OTEL_EXPORTER_OTLP_HEADERS", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_METRICS_HEADERS", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TIMEOUT", Kind::Number),
    honoured("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", Kind::Number),
    honoured("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", Kind::Number),
    honoured("OTEL_EXPORTER_OTLP_COMPRESSION", COMPRESSION),
    honoured("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", COMPRESSION),
    honoured("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", COMPRESSION),
    honoured("OTEL_EXPORTER_OTLP_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_CLIENT_KEY", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", Kind::Text),
    honoured("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", Kind::Text),
    honoured(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        Kind::OneOf(&["cumulative", "delta", "lowmemory"]),
    ),
    honoured("OTEL_BSP_SCHEDULE_DELAY", Kind::Number),
    honoured("OTEL_BSP_EXPORT_TIMEOUT", Kind::Number),
    honoured("OTEL_BSP_MAX_QUEUE_SIZE", Kind::Number),
    honoured("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Kind::Number),
    honoured("OTEL_METRIC_EXPORT_INTERVAL", Kind::Number),
    honoured("OTEL_METRIC_EXPORT_TIMEOUT", Kind::Number),
    ignored("OTEL_TRACES_SAMPLER", SAMPLER),
    ignored("OTEL_TRACES_SAMPLER_ARG", SAMPLER),
    ignored("OTEL_PROPAGATORS", "--context says which trace headers are read, and ktrace writes none"),
    ignored("OTEL_ENTITIES", "ktrace exports no entities"),
    ignored("OTEL_LOG_LEVEL", "KTRACE_LOG says what is logged"),
    ignored("OTEL_CONFIG_FILE", "ktrace's own configuration file is named by --config or KTRACE_CONFIG"),
    ignored(
        "OTEL_EXPERIMENTAL_CONFIG_FILE",
        "ktrace's own configuration file is named by --config or KTRACE_CONFIG",
    ),
    ignored("OTEL_SEMCONV_STABILITY_OPT_IN", "ktrace follows one version of the conventions"),
    ignored("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", FEW),
    ignored("OTEL_ATTRIBUTE_COUNT_LIMIT", FEW),
    ignored("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", FEW),
    ignored("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", FEW),
    ignored("OTEL_SPAN_EVENT_COUNT_LIMIT", FEW),
    ignored("OTEL_SPAN_LINK_COUNT_LIMIT", FEW),
    ignored("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", FEW),
    ignored("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", FEW),
    ignored("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", LOGS),
    ignored("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", LOGS),
    ignored("OTEL_BLRP_SCHEDULE_DELAY", LOGS),
    ignored("OTEL_BLRP_EXPORT_TIMEOUT", LOGS),
    ignored("OTEL_BLRP_MAX_QUEUE_SIZE", LOGS),
    ignored("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", LOGS),
    ignored("OTEL_METRICS_EXEMPLAR_FILTER", "ktrace's metrics have no exemplars"),
    ignored("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "ktrace exports no histograms"),
    ignored("OTEL_EXPORTER_OTLP_SPAN_INSECURE", OBSOLETE),
    ignored("OTEL_EXPORTER_OTLP_METRIC_INSECURE", OBSOLETE),
    ignored("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_INSECURE", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_HEADERS", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", LOGS),
    ignored("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", LOGS),
    ignored("OTEL_EXPORTER_PROMETHEUS_HOST", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_PROMETHEUS_PORT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_ZIPKIN_ENDPOINT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_ZIPKIN_TIMEOUT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_ENDPOINT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_TIMEOUT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_PROTOCOL", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_AGENT_HOST", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_AGENT_PORT", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_USER", OTHER_EXPORTER),
    ignored("OTEL_EXPORTER_JAEGER_PASSWORD", OTHER_EXPORTER),
];
