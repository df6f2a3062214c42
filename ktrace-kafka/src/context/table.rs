//! The table of formats: what a new one is added to.

use super::read::ReadFn;
use super::{
    b3, binary, cloud, datadog, instana, jaeger, newrelic, ottrace, pair, pinpoint, sentry, skywalking, w3c,
    xray,
};

/// One format: a line of the table.
pub struct Format {
    /// OpenTelemetry's name of the propagator (`OTEL_PROPAGATORS`) where it has one, else the
    /// vendor's or the header's.
    pub name: &'static str,
    /// Its header keys, in the order in which `read` asks for their values.
    pub keys: &'static [&'static str],
    pub read: ReadFn,
}

const fn format(name: &'static str, keys: &'static [&'static str], read: ReadFn) -> Format {
    Format { name, keys, read }
}

/// All formats, in the order in which they are preferred: W3C, then what tracers write for any
/// receiver, then vendors' own, then what need not be of this hop or has no specification.
pub static TABLE: &[Format] = &[
    format("traceparent", &["traceparent", "tracestate"], w3c::read),
    format("elasticapmtraceparent", &["elasticapmtraceparent"], binary::read),
    format("elastic-apm-traceparent", &["elastic-apm-traceparent"], w3c::read),
    format("b3", &["b3"], b3::read_single),
    format("b3multi", &["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled", "X-B3-Flags"], b3::read_multi),
    format(
        "datadog",
        &["x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-tags", "x-datadog-sampling-priority"],
        datadog::read,
    ),
    format("jaeger", &["uber-trace-id"], jaeger::read),
    format("xray", &["X-Amzn-Trace-Id"], xray::read),
    format("sw8", &["sw8"], skywalking::read),
    format("x-cloud-trace-context", &["x-cloud-trace-context"], cloud::read),
    format("sentry-trace", &["sentry-trace"], sentry::read),
    format("instana", &["X_INSTANA_T", "X_INSTANA_S", "X_INSTANA_L_S"], instana::read),
    format("newrelic", &["newrelic"], newrelic::read),
    // A CloudEvent keeps the context of the trace in which it began, which need not be this hop's.
    format("ce_traceparent", &["ce_traceparent", "ce_tracestate"], w3c::read),
    format("MT-Activity-Id", &["MT-Activity-Id"], w3c::read_activity),
    // Azure's messaging libraries: what was sent to Event Hubs by AMQP and is read as Kafka has it.
    format("Diagnostic-Id", &["Diagnostic-Id"], w3c::read_activity),
    // Wolverine (.NET).
    format("parent-id", &["parent-id"], w3c::read_perhaps),
    format("ottrace", &["ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled"], ottrace::read),
    format("grpc-trace-bin", &["grpc-trace-bin"], binary::read),
    format("pinpoint", &["Pinpoint-TraceID", "Pinpoint-pSpanID"], pinpoint::read),
    // Spring Cloud Sleuth 1.x.
    format("spanTraceId", &["spanTraceId", "spanId"], pair::read),
    format("trace_id", &["trace_id", "span_id"], pair::read),
    // Also devonfw's Kafka module.
    format("traceId", &["traceId", "spanId"], pair::read),
    format("trace-id", &["trace-id", "span-id"], pair::read),
    format("X-Trace-Id", &["X-Trace-Id", "X-Span-Id"], pair::read),
];
