//! How many instructions a span takes from the segments that it is read of to its hop, and from its
//! hop to its line, counted by callgrind, as in `ktrace-kafka/benches/instructions.rs`.
//! Held against `instructions.txt`, which `--bless` writes anew.

#[path = "../../ktrace-kafka/benches/callgrind/mod.rs"]
mod callgrind;
mod exchanges;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use callgrind::counted;
use ktrace_user::export::Output;
use ktrace_user::export::top::Figures;
use ktrace_user::hop::appends::Sent;
use ktrace_user::hop::groups::Reader;
use ktrace_user::hop::sampling::Sampling;
use ktrace_user::hop::topics::Topics;
use ktrace_user::hop::{Context, Hop, Hops, Kind, Parties, Passage, Topic, identity};
use ktrace_user::span::{Resource, Value};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// As many as an exchange has of 1 KB.
const HOPS: i64 = 1000;

const CASES: [&str; 12] = [
    READ[0],
    READ[1],
    READ[2],
    READ[3],
    READ[4],
    "not sampled",
    "to the sink",
    "sent, json",
    "delivered, json",
    "delivered, text",
    "delivered, otlp",
    "delivered, top",
];

/// What a worker reads: 1000 in a request or a batch, or one.
const READ: [&str; 5] = [
    "read, sent",
    "read, sent one by one",
    "read, delivered of elsewhere",
    "read, delivered",
    "read, delivered one by one",
];

fn parties() -> Arc<Parties> {
    let text = |text: &str| Value::from(text.to_owned());
    let resource = vec![
        ("host.name".into(), text("node-7")),
        ("process.executable.name".into(), text("java")),
        ("process.pid".into(), Value::Int(4711)),
        ("service.name".into(), text("billing")),
    ];
    Arc::new(Parties {
        client_id: Some("billing-1".into()),
        reader: Reader::Group("billing".into()),
        cluster_id: Some("a3RyYWNlLXRlc3RzLTAwMQ".into()),
        broker_address: "10.0.0.7".into(),
        broker_port: 9092,
        client: None,
        resource: Arc::new(Resource::new(resource)),
    })
}

fn hops(sent: bool) -> Vec<Hop> {
    let (parties, topic) = (parties(), Topics::default().named("orders"));
    let hop = |offset: i64| {
        let key = format!("key-{offset}");
        let derived =
            identity::derived_trace_id(3, offset, 1_700_000_000_000, Some(key.as_bytes()), Some(1000));
        let delivery = identity::Delivery { correlation_id: 9, response_seq: 77 };
        let kind = if sent {
            Kind::Produced { acks: -1, attempt: 1, pending: None, throttle_ms: 0 }
        } else {
            Kind::Delivered {
                lag: Some(HOPS - offset),
                delivery,
                times: Some(1),
                is_behind: false,
                is_uncommitted: false,
                is_catching_up: false,
                sent: Sent::Unknown,
                throttle_ms: 0,
            }
        };
        let context = Context {
            format: "traceparent",
            trace_id: derived,
            span_id: Some(identity::send_span_id(derived, "elsewhere")),
            state: None,
            others: [].into(),
        };
        let passage = Passage {
            kind,
            partition: 3,
            offset: Some(1_000_000 + offset),
            timestamp_ms: 1_700_000_000_000,
            key: None,
            value_len: Some(1000),
            context: (!sent).then_some(context),
            transaction: None,
            cause: None,
            derived,
            error: 0,
            truncated: false,
            start_ns: 1_700_000_000_004_100_000,
            end_ns: 1_700_000_000_007_300_000,
        };
        Hop { parties: Arc::clone(&parties), topic: Topic::Named(Arc::clone(&topic)), passage }
    };
    (0..HOPS).map(hop).collect()
}

fn read(case: &str) {
    let (count, each) = (HOPS as usize, if case.ends_with("one") { 1 } else { HOPS as usize });
    let shown = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&shown);
    let mut reader = exchanges::Reader::new(move || {
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let (first, second) = (exchanges::sent(0, count, each), exchanges::sent(HOPS, count, each));
    reader.read(&first);
    let read_as_second = match case {
        "read, sent" | "read, sent one by one" => second,
        _ => {
            if !case.ends_with("elsewhere") {
                reader.read(&exchanges::Exchanges { port: 4001, ..second });
            }
            reader.read(&exchanges::delivered(0, count, each));
            exchanges::delivered(HOPS, count, each)
        }
    };
    let before = shown.load(Ordering::Relaxed);
    let read_as_second = exchanges::Exchanges { port: 6000, ..read_as_second };
    counted(&mut || reader.read(&read_as_second));
    assert_eq!(shown.load(Ordering::Relaxed) - before, count, "{case}");
}

/// One case, under callgrind: once to warm, once to count.
fn run(case: &str) {
    if READ.contains(&case) {
        return read(case);
    }
    let given = hops(case.starts_with("sent"));
    let (mut queued, mut out) = (Hops::default(), Vec::new());
    if case == "not sampled" {
        let sampling = Sampling::new(black_box(0.0));
        counted(&mut || {
            for offset in 0..HOPS {
                let id =
                    identity::derived_trace_id(3, offset, 1_700_000_000_000, Some(b"key-1234"), Some(1000));
                assert!(!sampling.keeps(id));
            }
        });
        return;
    }
    if case == "to the sink" {
        given.iter().for_each(|hop| queued.push(hop.clone()));
        queued.clear();
        let mut given = given.into_iter();
        return counted(&mut || given.by_ref().for_each(|hop| queued.push(hop)));
    }
    if case.ends_with("top") {
        given.into_iter().for_each(|hop| queued.push(hop));
        let mut figures = Figures::default();
        figures.add(&queued);
        return counted(&mut || figures.add(&queued));
    }
    let output = match case.split_once(", ") {
        Some((_, "text")) => Output::Text,
        Some((_, "otlp")) => Output::Otlp,
        _ => Output::Json,
    };
    let mut format = output.format(false);
    given.into_iter().for_each(|hop| queued.push(hop));
    let mut write = || {
        let mut spans = queued.spans();
        while spans.len() > 0 {
            out.clear();
            format.write(&mut spans, &mut out);
            black_box(&out);
        }
    };
    write();
    counted(&mut write);
}

fn main() {
    callgrind::table("span", KEPT, &CASES.map(|case| (case, HOPS as u64)), run);
}
