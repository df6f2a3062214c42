//! Every format by its examples, every reader under hostile values, and the order of preference.

use super::read::{MAX_VALUE_BYTES, SLOTS};
use super::*;
use xxhash_rust::xxh3::xxh3_128;

const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const S: &str = "00f067aa0ba902b7";
/// `T`'s low half and `S` in decimal.
const LOW: &str = "11803532876627986230";
const SPAN: &str = "67667974448284343";

type Headers = Vec<(&'static str, Vec<u8>)>;

/// Headers that carry `T`, or the hash of a text, and `S`.
struct Example {
    /// The line of the table.
    format: &'static str,
    headers: Headers,
    trace: Trace,
    span: Option<&'static str>,
    flags: Option<u8>,
}

#[derive(Clone, Copy)]
enum Trace {
    Whole,
    Low,
    HashOf(&'static str),
}

impl Example {
    fn is(&self, found: &Seen<'_>) -> bool {
        let (name, trace) = match self.trace {
            Trace::Whole => (self.format.to_owned(), T.to_owned()),
            Trace::Low => (self.format.to_owned(), format!("{:0>32}", &T[16..])),
            Trace::HashOf(text) => {
                (format!("{}-hash", self.format), format!("{:032x}", xxh3_128(text.as_bytes())))
            }
        };
        found.context.is_some_and(|context| {
            context.format == name
                && context.trace_id.to_string() == trace
                && context.span_id.map(|id| id.to_string()).as_deref() == self.span
                && context.flags == self.flags
        })
    }
}

/// Examples of every line of the table, in its order.
fn examples() -> Vec<Example> {
    use Trace::{HashOf, Low, Whole};

    let binary = {
        let (trace, span): ([u8; 16], [u8; 8]) =
            (hex::decode(T.as_bytes()).unwrap(), hex::decode(S.as_bytes()).unwrap());
        [&[0, 0][..], &trace, &[1], &span, &[2, 1]].concat()
    };
    let parent = format!("00-{T}-{S}-01");
    let root = format!("Root=1-{}-{}", &T[..8], &T[8..]);
    let tid = format!("_dd.p.dm=-1,_dd.p.tid={}", &T[..16]);
    let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    // Trace ids in base64: `T`, the UUID, and that of SkyWalking's own documentation.
    let sw8 = |trace: &str| format!("1-{trace}-NTY3OC4xMjM0-3-c2VydmljZQ==-aW5zdGFuY2U=-L2FwaQ==-YnJva2Vy");
    let own = "ODg4OC45OTk5LjExMTE=";
    let pinpoint = "orders-1^1606104556000^42";
    // {"v":[0,1],"d":{"ty":"App","ac":"1","ap":"2","id":S,"tr":T,"tx":"27856f70d3d314b7","pr":0.5,"sa":true,"ti":1}}
    let newrelic = concat!(
        "eyJ2IjpbMCwxXSwiZCI6eyJ0eSI6IkFwcCIsImFjIjoiMSIsImFwIjoiMiIsImlkIjoiMDBmMDY3YWEwYmE5MDJiNyIsInRy",
        "IjoiNGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzYiLCJ0eCI6IjI3ODU2ZjcwZDNkMzE0YjciLCJwciI6MC41LCJz",
        "YSI6dHJ1ZSwidGkiOjF9fQ==",
    );

    let mut examples = vec![];
    let mut add = |format, headers: &[(&'static str, &[u8])], trace, span, flags| {
        let headers = headers.iter().map(|(key, value)| (*key, value.to_vec())).collect();
        examples.push(Example { format, headers, trace, span, flags });
    };
    macro_rules! example {
        ($format:literal, [$(($key:literal, $value:expr)),+], $trace:expr, $span:expr, $flags:expr) => {
            add($format, &[$(($key, $value.as_ref() as &[u8])),+], $trace, $span, $flags)
        };
    }
    let whole = Some(S);

    example!("traceparent", [("traceparent", parent)], Whole, whole, Some(1));
    example!("traceparent", [("TraceParent", format!(" \"{parent}\" "))], Whole, whole, Some(1));
    example!("traceparent", [("traceparent", format!("01-{T}-{S}-00-more"))], Whole, whole, Some(0));
    example!("elasticapmtraceparent", [("elasticapmtraceparent", binary)], Whole, whole, Some(1));
    example!("elastic-apm-traceparent", [("elastic-apm-traceparent", parent)], Whole, whole, Some(1));
    example!("b3", [("b3", format!("{T}-{S}"))], Whole, whole, None);
    example!("b3", [("b3", format!("{T}-{S}-1"))], Whole, whole, Some(1));
    example!("b3", [("b3", format!("{T}-{S}-d-{S}"))], Whole, whole, Some(1));
    example!("b3", [("b3", format!("{}-{S}-0", &T[16..]))], Low, whole, Some(0));
    example!("b3multi", [("x-b3-traceid", T), ("X-B3-SpanId", S)], Whole, whole, None);
    example!(
        "b3multi",
        [("X-B3-TraceId", T), ("X-B3-SpanId", S), ("X-B3-Sampled", "false")],
        Whole,
        whole,
        Some(0)
    );
    example!(
        "b3multi",
        [("X-B3-TraceId", T), ("X-B3-SpanId", S), ("X-B3-Sampled", "0"), ("X-B3-Flags", "1")],
        Whole,
        whole,
        Some(1)
    );
    example!(
        "datadog",
        [
            ("x-datadog-trace-id", LOW),
            ("x-datadog-parent-id", SPAN),
            ("x-datadog-sampling-priority", "2"),
            ("x-datadog-tags", tid)
        ],
        Whole,
        whole,
        Some(1)
    );
    example!(
        "datadog",
        [
            ("x-datadog-trace-id", LOW),
            ("x-datadog-parent-id", SPAN),
            ("x-datadog-sampling-priority", "-1"),
            ("x-datadog-tags", "_dd.p.tid=1")
        ],
        Low,
        whole,
        Some(0)
    );
    example!("datadog", [("x-datadog-trace-id", LOW), ("x-datadog-parent-id", "0")], Low, None, None);
    example!("jaeger", [("uber-trace-id", format!("{T}:{S}:0:1"))], Whole, whole, Some(1));
    example!("jaeger", [("uber-trace-id", format!("{T}:{}:abc:3", &S[2..]))], Whole, whole, Some(1));
    example!("jaeger", [("uber-trace-id", format!("{T}%3A{S}%3a0%3A0"))], Whole, whole, Some(0));
    example!("jaeger", [("uber-trace-id", format!("{}:{S}:0:02", &T[16..]))], Low, whole, Some(0));
    example!("xray", [("X-Amzn-Trace-Id", format!("{root};Parent={S};Sampled=1"))], Whole, whole, Some(1));
    example!(
        "xray",
        [("x-amzn-trace-id", format!("Self=1-0-0; Sampled=?; Parent={S}; {root};Lineage=a:0"))],
        Whole,
        whole,
        None
    );
    example!("xray", [("X-Amzn-Trace-Id", root)], Whole, None, None);
    example!("sw8", [("sw8", sw8("NGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzY="))], Whole, None, Some(1));
    example!("sw8", [("sw8", sw8("NGJmOTJmMzUtNzdiMy00ZGE2LWEzY2UtOTI5ZDBlMGU0NzM2"))], Whole, None, Some(1));
    example!("sw8", [("sw8", sw8(own))], HashOf("8888.9999.1111"), None, Some(1));
    example!(
        "x-cloud-trace-context",
        [("X-Cloud-Trace-Context", format!("{T}/{SPAN};o=1"))],
        Whole,
        whole,
        Some(1)
    );
    example!("x-cloud-trace-context", [("x-cloud-trace-context", format!("{T}/{SPAN}"))], Whole, whole, None);
    example!("x-cloud-trace-context", [("x-cloud-trace-context", format!("{T};o=0"))], Whole, None, Some(0));
    example!("sentry-trace", [("sentry-trace", format!("{T}-{S}-1"))], Whole, whole, Some(1));
    example!("sentry-trace", [("sentry-trace", format!(" {}-{S} ", T.to_uppercase()))], Whole, whole, None);
    example!(
        "instana",
        [("X_INSTANA_T", T), ("X_INSTANA_S", S), ("X_INSTANA_L_S", "1")],
        Whole,
        whole,
        Some(1)
    );
    example!("instana", [("X_INSTANA_T", &T[16..]), ("X_INSTANA_S", &S[2..])], Low, whole, None);
    example!("newrelic", [("NEWRELIC", newrelic)], Whole, whole, Some(1));
    example!(
        "newrelic",
        [("newrelic", format!(r#"{{"v":[0,1],"d":{{"tr":"{T}","sa":false}}}}"#))],
        Whole,
        None,
        Some(0)
    );
    example!("ce_traceparent", [("ce_traceparent", parent)], Whole, whole, Some(1));
    example!("MT-Activity-Id", [("MT-Activity-Id", parent)], Whole, whole, Some(1));
    example!("Diagnostic-Id", [("Diagnostic-Id", parent)], Whole, whole, Some(1));
    example!("parent-id", [("parent-id", parent)], Whole, whole, Some(1));
    example!(
        "ottrace",
        [("ot-tracer-traceid", &T[16..]), ("ot-tracer-spanid", S), ("ot-tracer-sampled", "true")],
        Low,
        whole,
        Some(1)
    );
    example!("grpc-trace-bin", [("grpc-trace-bin", binary)], Whole, whole, Some(1));
    example!(
        "pinpoint",
        [("Pinpoint-TraceID", pinpoint), ("Pinpoint-SpanID", "5"), ("Pinpoint-pSpanID", SPAN)],
        HashOf(pinpoint),
        whole,
        None
    );
    example!(
        "pinpoint",
        [("Pinpoint-TraceID", pinpoint), ("Pinpoint-pSpanID", "-2")],
        HashOf(pinpoint),
        Some("fffffffffffffffe"),
        None
    );
    example!("spanTraceId", [("spanTraceId", &T[16..]), ("spanId", S)], Low, whole, None);
    example!("trace_id", [("trace_id", T), ("span_id", S)], Whole, whole, None);
    example!("trace_id", [("trace_id", binary[2..18]), ("span_id", binary[19..27])], Whole, whole, None);
    example!("traceId", [("traceId", T), ("spanId", S)], Whole, whole, None);
    example!("traceId", [("traceId", T)], Whole, None, None);
    example!("traceId", [("traceId", &T[16..]), ("spanId", S)], Low, whole, None);
    example!("trace-id", [("trace-id", uuid), ("span-id", S)], Whole, whole, None);
    example!("X-Trace-Id", [("X-Trace-ID", T), ("x-span-id", S)], Whole, whole, None);
    examples
}

/// [`Found`], owned.
#[derive(Debug, Default, PartialEq)]
struct Seen<'a> {
    context: Option<TraceContext<'a>>,
    others: Vec<TraceContext<'a>>,
    malformed: Vec<&'static str>,
}

fn find<'a, K: AsRef<[u8]>, V: AsRef<[u8]>>(extractor: &Extractor, headers: &'a [(K, V)]) -> Seen<'a> {
    let slots = Box::leak(Box::new(Slots::<'a>::new()));
    for (key, value) in headers {
        extractor.note(slots, key.as_ref(), value.as_ref());
    }
    let Found { context, others, malformed } = extractor.find(slots);
    Seen { context, others: others.to_vec(), malformed: extractor.names(malformed).collect() }
}

fn only(format: &str) -> Extractor {
    Extractor::new(&[Wanted::Format(format.into())]).unwrap()
}

#[test]
fn every_format_is_read_among_all_and_alone() {
    let all = Extractor::default();
    for example in examples() {
        for extractor in [&all, &only(example.format)] {
            let found = find(extractor, &example.headers);
            assert!(example.is(&found) && found.malformed.is_empty(), "{}: {found:?}", example.format);
        }
    }
}

#[test]
fn every_line_of_the_table_has_an_example_in_its_order() {
    let mut lines: Vec<_> = examples().iter().map(|example| example.format).collect();
    lines.dedup();
    assert_eq!(lines, formats().collect::<Vec<_>>());
}

#[test]
fn the_order_is_the_documented_one() {
    let semantics = include_str!("../../../docs/semantics.md");
    let row = semantics.lines().find(|line| line.starts_with("| `ktrace.context.format`")).unwrap();
    let (_, list) = row.split_once(": ").unwrap();
    let (list, _) = list.split_once(", `key:NAME`").unwrap();
    let documented: Vec<_> = list.split(", ").map(|name| name.trim_matches('`')).collect();
    assert_eq!(documented, formats().collect::<Vec<_>>());
}

#[test]
fn the_first_in_order_wins_over_all_after_it() {
    let all = Extractor::default();
    let examples = examples();
    for (i, first) in examples.iter().enumerate() {
        if i > 0 && examples[i - 1].format == first.format {
            continue;
        }
        // The keys of this format as in this example; every later format's too, whatever their
        // order on the wire.
        let mut headers = first.headers.clone();
        for later in examples[i..].iter().filter(|later| later.format != first.format) {
            headers.extend(later.headers.iter().cloned());
        }
        headers.reverse();
        // `spanId` is of two formats, the same in both.
        assert!(first.is(&find(&all, &headers)), "{}", first.format);
    }
}

#[test]
fn hostile_values_are_malformed_in_every_format() {
    let zeros = |count| "0".repeat(count).into_bytes();
    let hostile: Vec<Vec<u8>> = vec![
        vec![],
        b"\"".to_vec(),
        b"\"\"".to_vec(),
        b" \t ".to_vec(),
        b"-".to_vec(),
        b"---------".to_vec(),
        b":::".to_vec(),
        b"%3A%3A%3A".to_vec(),
        b"^^".to_vec(),
        b"/;o=".to_vec(),
        b"Root=;Parent=;Sampled=".to_vec(),
        b"{\"d\":{}}".to_vec(),
        b"e30=".to_vec(),
        b"hello".to_vec(),
        b"\xc3\x28".to_vec(),
        vec![0xff; 7],
        vec![0xff; 29],
        vec![0xff; 55],
        vec![0; 8],
        vec![0; 16],
        vec![0; 29],
        zeros(15),
        zeros(16),
        zeros(32),
        zeros(33),
        format!("00-{}-{S}-01", "0".repeat(32)).into_bytes(),
        format!("00-{T}-{}-01", "0".repeat(16)).into_bytes(),
        format!("ff-{T}-{S}-01").into_bytes(),
        format!("00-{T}-{S}-01-more").into_bytes(),
        format!("{}-{S}", "0".repeat(32)).into_bytes(),
        format!("{T}-{}", "0".repeat(16)).into_bytes(),
        format!("{T}-{S}-x").into_bytes(),
        format!("{T}-{S}-1-{S}-1").into_bytes(),
        format!("0:{S}:0:1").into_bytes(),
        format!("{T}:0:0:1").into_bytes(),
        format!("{T}:{S}:0").into_bytes(),
        format!("{T}:{S}:0:1:1").into_bytes(),
        format!("{T}%3B{S}%3B0%3B1").into_bytes(),
        format!("{T}/0").into_bytes(),
        format!("{T}/{SPAN};p=1").into_bytes(),
        format!("{T}/18446744073709551616").into_bytes(),
        format!("Root=1-{}-{};Parent=0", &T[..8], &T[8..]).into_bytes(),
        format!("Root=2-{}-{}", &T[..8], &T[8..]).into_bytes(),
        b"1-ODg4OA==-YQ==-3-YQ==-YQ==-YQ==".to_vec(),
        b"2-ODg4OA==-YQ==-3-YQ==-YQ==-YQ==-YQ==".to_vec(),
        b"1-!-YQ==-3-YQ==-YQ==-YQ==-YQ==".to_vec(),
        b"agent^1^2^3".to_vec(),
        b"agent^-1^2".to_vec(),
        b"1".repeat(MAX_VALUE_BYTES + 1),
        b"f".repeat(1 << 20),
        b"[".repeat(MAX_VALUE_BYTES),
        b"{\"d\":".repeat(400),
    ];
    let all = Extractor::default();
    for format in TABLE {
        for value in &hostile {
            let shown = String::from_utf8_lossy(&value[..value.len().min(60)]).into_owned();
            let everywhere: Vec<_> = format.keys.iter().map(|key| (key, value)).collect();
            for extractor in [&all, &only(format.name)] {
                let found = find(extractor, &everywhere);
                // A key with other uses: what is no context there is nothing.
                let malformed = if format.name == "parent-id" { vec![] } else { vec![format.name] };
                assert_eq!((found.context, found.malformed), (None, malformed), "{}: {shown}", format.name);
            }
            for key in format.keys {
                assert_eq!(find(&all, &[(key, value)]).context, None, "{key}: {shown}");
            }
        }
    }
    let own = Extractor::new(&[Wanted::Key("own".into())]).unwrap();
    for value in &hostile {
        let headers = [("own", value)];
        let found = find(&own, &headers);
        assert_eq!((found.context, found.malformed), (None, vec!["key:own"]), "{value:?}");
    }
}

#[test]
fn a_value_that_is_too_long_is_not_read_even_if_good() {
    let all = Extractor::default();
    for mut example in examples() {
        for (_, value) in &mut example.headers {
            value.resize(MAX_VALUE_BYTES + 1, b' ');
        }
        let found = find(&all, &example.headers);
        let malformed = if example.format == "parent-id" { vec![] } else { vec![example.format] };
        assert_eq!((found.context, found.malformed), (None, malformed), "{}", example.format);
    }
}

#[test]
fn examples_cut_or_bent_anywhere_never_give_a_zero_id() {
    let all = Extractor::default();
    let check = |headers: &Headers| {
        if let Some(context) = find(&all, headers).context {
            assert_ne!(context.trace_id.to_bytes(), [0; 16]);
            assert_ne!(context.span_id.map(SpanId::to_bytes), Some([0; 8]));
        }
    };
    for example in examples() {
        for header in 0..example.headers.len() {
            for at in 0..example.headers[header].1.len() {
                let mut cut = example.headers.clone();
                cut[header].1.truncate(at);
                check(&cut);
                for byte in [0, b'0', b'-', b'"', b'\\', b'{', b'}', 0xff] {
                    let mut bent = example.headers.clone();
                    bent[header].1[at] = byte;
                    check(&bent);
                }
            }
        }
    }
}

#[test]
fn ids_that_a_format_cannot_have() {
    let all = Extractor::default();
    for headers in [
        &[("x-datadog-trace-id", "0"), ("x-datadog-parent-id", "1")][..],
        &[("x-datadog-trace-id", T), ("x-datadog-parent-id", "1")],
        &[("x-datadog-trace-id", "18446744073709551616")],
        &[("x-datadog-trace-id", "1"), ("x-datadog-parent-id", "x")],
        &[("x-datadog-parent-id", "1")],
        &[("Pinpoint-TraceID", "agent^1^2"), ("Pinpoint-pSpanID", "0")],
        &[("Pinpoint-TraceID", "agent^1^2"), ("Pinpoint-pSpanID", "9223372036854775808")],
        &[("Pinpoint-pSpanID", "1")],
        &[("X-B3-TraceId", T)],
        &[("X_INSTANA_T", T)],
        &[("X_INSTANA_S", S)],
        &[("ot-tracer-traceid", T)],
        &[("newrelic", r#"{"v":[0,1],"d":{"id":"00f067aa0ba902b7"}}"#)],
        &[("newrelic", r#"{"tr":"4bf92f3577b34da6a3ce929d0e0e4736"}"#)],
        // An example with a byte more, or without its flags.
        &[("elasticapmtraceparent", "\0\x001234567890123456\x0112345678\x02\x01\0")],
        &[("elasticapmtraceparent", "\0\x001234567890123456\x0112345678")],
    ] {
        let found = find(&all, headers);
        assert_eq!((found.context, found.malformed.len()), (None, 1), "{headers:?}");
    }
}

#[test]
fn what_names_no_trace_is_none_and_not_malformed() {
    let all = Extractor::default();
    for header in [
        ("b3", "0"),
        ("b3", "d"),
        ("X-B3-Sampled", "1"),
        ("tracestate", "a=1"),
        ("ce_tracestate", "a=1"),
        ("x-datadog-sampling-priority", "1"),
        ("x-datadog-tags", "_dd.p.dm=-1"),
        ("X_INSTANA_L_S", "0"),
        ("ot-tracer-sampled", "true"),
        ("MT-Activity-Id", "|7e89d4f4.1_2."),
        ("Diagnostic-Id", "|7e89d4f4.1_2."),
        ("parent-id", "42"),
        ("span_id", S),
        ("content-type", "text/plain"),
        ("", ""),
    ] {
        assert_eq!(find(&all, &[header]), Seen::default(), "{header:?}");
    }
}

#[test]
fn state_comes_along() {
    let parent = format!("00-{T}-{S}-01");
    let all = Extractor::default();
    for (key, state_key) in [("traceparent", "tracestate"), ("ce_traceparent", "ce_tracestate")] {
        let headers = [(state_key, "a=1,b=2"), (key, &parent)];
        let context = find(&all, &headers).context.unwrap();
        assert_eq!((context.flags, context.state), (Some(1), Some("a=1,b=2")));
        let long = "a".repeat(MAX_VALUE_BYTES + 1);
        let headers = [(state_key, &long), (key, &parent)];
        let found = find(&all, &headers);
        assert_eq!((found.context.unwrap().state, found.malformed), (None, vec![]), "the parent stays good");
    }
}

#[test]
fn the_last_value_of_a_key_counts_and_malformed_ones_do_not() {
    let all = Extractor::default();
    let (old, new) = (format!("00-{}-{S}-01", "a".repeat(32)), format!("00-{T}-{S}-00"));
    let headers = [("traceparent", &old), ("traceparent", &new)];
    assert_eq!(find(&all, &headers).context.unwrap().trace_id.to_string(), T);
    let b3 = format!("{T}-{S}");
    let headers = [("traceparent", "nonsense"), ("b3", &b3)];
    let found = find(&all, &headers);
    assert_eq!((found.context.unwrap().format, found.malformed), ("b3", vec!["traceparent"]));
}

/// Kafka's keys are case-sensitive, and some libraries let the application write any case.
#[test]
fn a_key_as_its_tracer_writes_it_wins_and_the_loser_is_reported() {
    let all = Extractor::default();
    let (one, other) = (format!("00-{T}-{S}-01"), format!("00-{}-{S}-01", "a".repeat(32)));
    for headers in [
        [("traceparent", &one), ("Traceparent", &other)],
        [("Traceparent", &other), ("traceparent", &one)],
        // Of the same case the last wins.
        [("traceparent", &other), ("traceparent", &one)],
        [("Traceparent", &other), ("TraceParent", &one)],
    ] {
        let found = find(&all, &headers);
        let others: Vec<_> =
            found.others.iter().map(|other| (other.format, other.trace_id.to_string())).collect();
        assert_eq!(found.context.unwrap().trace_id.to_string(), T, "{headers:?}");
        assert_eq!(others, [("traceparent", "a".repeat(32))], "{headers:?}");
        assert_eq!(found.malformed, Vec::<&str>::new());
    }
    // The same once more is no other; neither is one of another record.
    assert_eq!(find(&all, &[("traceparent", &one), ("Traceparent", &one)]).others, []);
    let mut slots = Slots::new();
    for (headers, others) in [(&[&one, &other][..], 1), (&[&one], 0)] {
        slots.clear();
        headers.iter().for_each(|value| all.note(&mut slots, b"traceparent", value.as_bytes()));
        assert_eq!(all.find(&mut slots).others.len(), others);
    }
    // Formats of several keys: those of one tracer belong together.
    let (a, b) = ("a".repeat(32), "b".repeat(16));
    let headers = [("x-b3-traceid", &a[..]), ("x-b3-spanid", &b), ("X-B3-TraceId", T), ("X-B3-SpanId", S)];
    let found = find(&all, &headers);
    let ids =
        |context: &TraceContext<'_>| (context.trace_id.to_string(), context.span_id.unwrap().to_string());
    assert_eq!(ids(&found.context.unwrap()), (T.to_owned(), S.to_owned()));
    assert_eq!(found.others.iter().map(ids).collect::<Vec<_>>(), [(a.clone(), b.clone())]);
}

/// W3C: a `traceparent` that cannot be read counts as none, its `tracestate` too.
#[test]
fn a_value_that_cannot_be_read_leaves_its_place_to_another() {
    let all = Extractor::default();
    let good = format!("00-{T}-{S}-01");
    let zeros = format!("00-{}-{S}-01", "0".repeat(32));
    for bad in ["", "nonsense", &zeros] {
        for headers in [
            [("traceparent", bad), ("traceparent", &good)],
            [("traceparent", &good), ("traceparent", bad)],
            [("traceparent", bad), ("Traceparent", &good)],
            [("Traceparent", &good), ("traceparent", bad)],
        ] {
            let found = find(&all, &headers);
            assert_eq!(
                found.context.map(|context| context.trace_id.to_string()).as_deref(),
                Some(T),
                "{headers:?}"
            );
            assert_eq!(found.others, []);
        }
    }
    let found = find(&all, &[("traceparent", "nonsense"), ("tracestate", "a=1")]);
    assert_eq!((found.context, found.malformed), (None, vec!["traceparent"]));
}

/// As Azure Event Hubs hands over what AMQP clients have sent.
#[test]
fn values_in_amqps_encoding_are_read() {
    let all = Extractor::default();
    let good = format!("00-{T}-{S}-01").into_bytes();
    let typed = |head: &[u8]| [head, &good].concat();
    for value in [
        typed(&[0xa1, 55]),
        typed(&[0xa3, 55]),
        typed(&[0xa0, 55]),
        typed(&[0xb1, 0, 0, 0, 55]),
        typed(&[0xb3, 0, 0, 0, 55]),
        typed(&[0xb0, 0, 0, 0, 55]),
    ] {
        for key in ["traceparent", "Diagnostic-Id", "parent-id", "trace-id"] {
            let headers = [(key, &value)];
            let found = find(&all, &headers);
            assert_eq!(
                found.context.map(|context| context.trace_id.to_string()).as_deref(),
                Some(T),
                "{value:x?}"
            );
        }
    }
    // Of another length than it says, or of another type.
    for value in [
        typed(&[0xa1, 54]),
        typed(&[0xa1]),
        typed(&[0xb1, 0, 0, 55]),
        typed(&[0x71, 55]),
        vec![0xa1],
        vec![0xa1, 0],
    ] {
        let headers = [("traceparent", &value)];
        let found = find(&all, &headers);
        assert_eq!((found.context, found.malformed), (None, vec!["traceparent"]), "{value:x?}");
    }
}

#[test]
fn other_traces_are_kept_in_the_order_of_preference() {
    let all = Extractor::default();
    let (parent, b3) = (format!("00-{T}-{S}-01"), format!("{}-{S}", "b".repeat(32)));
    let jaeger = format!("{T}:{S}:0:1");
    let headers = [
        ("traceparent", &parent[..]),
        ("b3", &b3),
        ("trace_id", "0123456789abcdef"),
        // The same trace: whole, its low half, and one that cannot be compared.
        ("uber-trace-id", &jaeger),
        ("x-datadog-trace-id", LOW),
        ("Pinpoint-TraceID", "agent^1^2"),
        // Not a trace.
        ("sentry-trace", "nonsense"),
    ];
    let found = find(&all, &headers);
    let others: Vec<_> = found.others.iter().map(|other| other.format).collect();
    assert_eq!(found.context.unwrap().format, "traceparent");
    assert_eq!((others, found.malformed), (vec!["b3", "trace_id"], vec!["sentry-trace"]));
}

#[test]
fn a_users_own_keys_in_the_users_order() {
    let own = Extractor::new(&[Wanted::Key("X-My-Trace".into()), Wanted::Format("b3".into())]).unwrap();
    let b3 = format!("{}-{S}", "b".repeat(32));
    let headers = [("b3", &b3[..]), ("x-my-trace", T)];
    let context = find(&own, &headers).context.unwrap();
    assert_eq!((context.format, context.trace_id.to_string().as_str()), ("key:X-My-Trace", T));
    assert_eq!(find(&own, &[("traceparent", T)]), Seen::default(), "not looked for");
    assert!(matches!(Extractor::new(&[Wanted::Format("b4".into())]), Err(WantedError::Unknown(_))));
    assert!(matches!(Extractor::new(&[Wanted::Key(String::new())]), Err(WantedError::EmptyKey)));
}

#[test]
fn a_format_sees_no_key_of_the_next_one() {
    let own = Extractor::new(&[Wanted::Key("first".into()), Wanted::Key("second".into())]).unwrap();
    let headers = [("first", T), ("second", S)];
    assert_eq!(find(&own, &headers).context.unwrap().span_id, None);
}

#[test]
fn the_table_leaves_room_for_keys_of_users() {
    let mut wanted: Vec<_> = formats().map(|name| Wanted::Format(name.into())).collect();
    wanted.extend((0..20).map(|i| Wanted::Key(format!("own-{i}"))));
    let extractor = Extractor::new(&wanted).unwrap();
    let headers = [("own-19", T)];
    assert_eq!(find(&extractor, &headers).context.unwrap().format, "key:own-19");
    wanted.extend((0..SLOTS).map(|i| Wanted::Key(format!("more-{i}"))));
    assert!(matches!(Extractor::new(&wanted), Err(WantedError::TooMany)));
}
