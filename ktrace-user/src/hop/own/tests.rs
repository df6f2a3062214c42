//! Values as backends write them, and values of others.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::hop::{Hop, samples, shown};

/// What a backend does with one span: its attributes' names, and those of its trace.
type Encode = fn(&[&str]) -> Vec<u8>;

const TRACE: [u8; 16] = [0xa1; 16];
const SPAN: [u8; 8] = [0xb2; 8];

fn pair(name: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::BoolValue(true)) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn span(names: &[&str]) -> Span {
    Span {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        name: "send orders".to_owned(),
        attributes: names.iter().map(|name| pair(name)).collect(),
        ..Span::default()
    }
}

fn request(resource: Option<Resource>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "app".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: vec![pair("service.name"), pair("host.name")], ..Resource::default() })
}

/// A field of protobuf with bytes, all of them fewer than 16 384.
fn bytes(tag: u8, inner: &[u8]) -> Vec<u8> {
    let len = match inner.len() {
        short @ ..0x80 => vec![short as u8],
        long => vec![long as u8 | 0x80, (long >> 7) as u8],
    };
    [&[tag], &len[..], inner].concat()
}

/// `jaeger.api_v2.Span` (`model.proto`): ids, operation, flags, start, duration, tags, process.
fn jaeger(names: &[&str]) -> Vec<u8> {
    let tag = |name: &&str| bytes(0x42, &[bytes(0x0a, name.as_bytes()), vec![0x10, 1, 0x20, 1]].concat());
    [
        bytes(0x0a, &TRACE),
        bytes(0x12, &SPAN),
        bytes(0x1a, b"send orders"),
        vec![0x28, 1],
        bytes(0x32, &[0x08, 1]),
        bytes(0x3a, &[0x10, 5]),
        names.iter().flat_map(tag).collect(),
        bytes(0x52, &bytes(0x0a, b"orders-api")),
    ]
    .concat()
}

/// `zipkin.proto3.ListOfSpans`: ids, kind, name, times, tags as a map.
fn zipkin(names: &[&str]) -> Vec<u8> {
    let tag = |name: &&str| bytes(0x5a, &[bytes(0x0a, name.as_bytes()), bytes(0x12, b"true")].concat());
    let span = [
        bytes(0x0a, &TRACE),
        bytes(0x1a, &SPAN),
        vec![0x20, 3],
        bytes(0x2a, b"send orders"),
        names.iter().flat_map(tag).collect(),
    ];
    bytes(0x0a, &span.concat())
}

/// A list of `zipkincore.Span`: trace id, name, id, and annotations with a key each.
fn thrift(names: &[&str]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
    let annotation = |name: &&str| {
        [&[0x0b, 0, 1][..], &string(name), &[0x0b, 0, 2], &string("true"), &[8, 0, 3, 0, 0, 0, 6, 0]].concat()
    };
    [
        &[0x0c, 0, 0, 0, 1, 0x0a, 0, 1][..],
        &SPAN,
        &[0x0b, 0, 3],
        &string("send orders"),
        &[0x0a, 0, 4],
        &SPAN,
        &[0x0f, 0, 8, 0x0c],
        &(names.len() as u32).to_be_bytes(),
        &names.iter().flat_map(annotation).collect::<Vec<_>>(),
        &[0],
    ]
    .concat()
}

fn otlp_json(names: &[&str]) -> Value {
    serde_json::to_value(request(resource(), vec![span(names)])).unwrap()
}

/// As `jsonpb` writes it, its fields in their order.
fn jaeger_json(names: &[&str]) -> Vec<u8> {
    let tag = |name: &&str| format!(r#"{{"key":"{name}","vType":"BOOL","vBool":true}}"#);
    let tags: Vec<_> = names.iter().map(tag).collect();
    format!(
        r#"{{"traceId":"oaGhoaGhoaGhoaGhoaGhoQ==","spanId":"srKysrKysrI=","operationName":"send orders","tags":[{}]}}"#,
        tags.join(",")
    )
    .into_bytes()
}

fn zipkin_json(names: &[&str]) -> Vec<u8> {
    let tags: Vec<_> = names.iter().map(|name| format!(r#""{name}":"true""#)).collect();
    format!(r#"[{{"traceId":"a1a1","id":"b2b2","name":"send orders","tags":{{{}}}}}]"#, tags.join(","))
        .into_bytes()
}

/// A line of `-o json` in a log shipper's field, twice.
fn shipped(names: &[&str]) -> Vec<u8> {
    let attributes: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
    let line = json!({"trace_id": "a1", "name": "send orders", "attributes": attributes}).to_string();
    json!({"@timestamp": "2026", "log": json!({"message": line}).to_string()}).to_string().into_bytes()
}

const ENCODINGS: [(&str, Encode); 12] = [
    ("otlp_proto", |names| request(resource(), vec![span(names)]).encode_to_vec()),
    ("otlp_proto without a resource", |names| request(None, vec![span(names)]).encode_to_vec()),
    ("otlp_proto, an empty resource", |names| {
        request(Some(Resource::default()), vec![span(names)]).encode_to_vec()
    }),
    ("a span of OTLP alone", |names| span(names).encode_to_vec()),
    ("otlp_json", |names| otlp_json(names).to_string().into_bytes()),
    ("otlp_json with spaces", |names| serde_json::to_vec_pretty(&otlp_json(names)).unwrap()),
    ("jaeger_proto", jaeger),
    ("jaeger_json", jaeger_json),
    ("zipkin_proto", zipkin),
    ("zipkin_json", zipkin_json),
    ("zipkin_thrift", thrift),
    ("a log line", shipped),
];

/// Names of attributes as the span of a hop has them.
fn names(hop: &Hop) -> Vec<&'static str> {
    let topic = shown(&hop.topic);
    let span = hop.span(&topic);
    span.attributes.iter().map(|(name, _)| *name).collect()
}

#[test]
fn spans_are_known_in_each_encoding() {
    for hop in [samples::sent(), samples::delivered(), samples::acknowledged()] {
        let names = names(&hop);
        for (encoding, encode) in ENCODINGS {
            assert!(is_own(&encode(&names)), "{encoding} {names:?}");
        }
    }
}

#[test]
fn each_name_alone_will_do() {
    for name in NAMES {
        assert!(name.starts_with(PREFIX) && ![9, 10, 13].contains(&name.len()), "{name}");
        for (encoding, encode) in ENCODINGS {
            assert!(is_own(&encode(&["messaging.system", name, "server.port"])), "{encoding} {name}");
        }
        let metric = bytes(0x0a, &bytes(0x12, &bytes(0x12, &bytes(0x0a, name.as_bytes()))));
        assert!(is_own(&metric) && is_own(json!({"metrics": [{"name": name}]}).to_string().as_bytes()));
    }
    let message_pack = [&[0x81, 0xae][..], b"ktrace.derived", &[0xc3]].concat();
    assert!(is_own(&message_pack));
}

#[test]
fn spans_of_applications_are_not_own_but_telemetry() {
    let names = [
        "messaging.system",
        "ktrace",
        "k8s.pod.name",
        "app.ktrace.derived",
        "ktrace.derived.too",
        "ktrace.x",
    ];
    for (encoding, encode) in ENCODINGS {
        let value = encode(&names);
        assert!(!is_own(&value), "{encoding}");
        // That of a log shipper is any JSON: it is met by a look at a few.
        assert_eq!(is_telemetry(&value), encoding != "a log line", "{encoding}");
    }
}

/// A tag of 10 is white space, and some lengths are brackets.
#[test]
fn telemetry_of_any_length_is_known() {
    let mut lens = std::collections::BTreeSet::new();
    for len in 0..200 {
        let mut one = span(&[]);
        one.name = "x".repeat(len);
        let value = request(None, vec![one]).encode_to_vec();
        lens.insert(value[1]);
        assert!(is_telemetry(&value), "{len}");
    }
    assert!(lens.is_superset(&(*b"{[").into()), "{lens:?}");
}

#[test]
fn a_message_that_speaks_of_ktrace_is_none() {
    let texts = [
        "see ktrace.derived for more",
        "ktrace.derived",
        "\"ktrace.derived\"",
        "ktrace.acks\nktrace.derived\r\nktrace.context.format\tktrace.spans",
        r#"{"text":"the attribute \"ktrace.derived\" says so"}"#,
        r#"{"text":"ktrace.derived","tags":["ktrace.derived","ktrace.acks"]}"#,
        r#"{"monkey":"x","the_key":"ktrace.derived"}"#,
        r#"{"chart":{"name":"ktrace","ktrace.enabled":true,"ktrace.derived.x":1}}"#,
        "**ktrace.context.format**, `ktrace.derived`",
    ];
    for text in texts {
        assert!(!is_own(text.as_bytes()), "{text}");
    }
}

#[test]
fn business_messages_are_no_telemetry() {
    let proto = [bytes(0x0a, b"order-1042"), bytes(0x12, b"EUR"), vec![0x18, 42]].concat();
    let nested = bytes(0x0a, &[bytes(0x0a, b"order-1042"), bytes(0x12, b"EUR")].concat());
    let deep = bytes(0x0a, &bytes(0x0a, &bytes(0x0a, b"order-1042")));
    for value in
        [&proto[..], &nested, &deep, b"{\"order\":1042,\"total\":\"9.99\"}", b"[1,2]", b"b", b"", &[0; 64]]
    {
        assert!(!is_telemetry(value) && !is_own(value), "{value:?}");
    }
}

/// Hostile: every beginning of every encoding, and each with any byte turned over.
#[test]
fn no_bytes_are_too_strange() {
    for (_, encode) in ENCODINGS {
        let value = encode(&["ktrace.derived"]);
        for at in 0..value.len() {
            let (head, mut turned) = (&value[..at], value.clone());
            turned[at] ^= 0xff;
            for bytes in [head, &turned, &value[at..]] {
                let _ = (is_telemetry(bytes), is_own(bytes));
            }
        }
    }
    let quotes = [b"ktrace.derived\"".repeat(1000), b"\\\"".repeat(5000)].concat();
    assert!(!is_own(&quotes));
}

fn looks(watched: &Watched, skip: &mut u32, values: &[&[u8]]) -> Vec<bool> {
    let mut watch = Watch::of(watched, *skip);
    let own = values.iter().map(|value| !watch.passes() && watch.look(value)).collect();
    *skip = watch.settle(watched, *skip);
    own
}

#[test]
fn where_others_spans_come_first_the_first_own_one_is_found() {
    let (watched, mut skip) = (Watched::default(), 0);
    let (other, own) = (span(&["http.route"]).encode_to_vec(), span(&["ktrace.derived"]).encode_to_vec());
    for _ in 0..1000 {
        assert_eq!(looks(&watched, &mut skip, &[&other]), [false]);
    }
    assert_eq!(looks(&watched, &mut skip, &[&own, b"b", &other, &own]), [true, false, false, true]);
}

#[test]
fn of_an_ordinary_topic_few_values_are_looked_at() {
    let (watched, mut skip) = (Watched::default(), 0);
    let own = shipped(&["ktrace.derived"]);
    let mut watch = Watch::of(&watched, 0);
    let looked = (0..16 + 10 * ONE_IN).filter(|_| !watch.passes() && !watch.look(b"b")).count();
    assert_eq!(looked, 16 + 10);
    skip = watch.settle(&watched, skip);
    // Whatever it is hidden in, it is found in time, and for good.
    let missed = (0..u32::MAX).find(|_| looks(&watched, &mut skip, &[&own]) == [true]).unwrap();
    assert!(missed < ONE_IN, "{missed}");
    assert_eq!(looks(&watched, &mut skip, &[b"b", &own]), [false, true]);
    assert_eq!(looks(&Watched::default(), &mut 0, &[&own]), [true]);
}

#[test]
fn a_large_request_is_looked_through_to_its_end() {
    let mut spans: Vec<_> = (0..1000).map(|_| span(&["http.route"])).collect();
    spans.push(span(&["ktrace.derived"]));
    let value = request(resource(), spans).encode_to_vec();
    assert!(value.len() > 10 * HEAD_BYTES && looks(&Watched::default(), &mut 0, &[&value]) == [true]);
}
