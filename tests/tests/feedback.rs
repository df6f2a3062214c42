//! A backend that writes spans and metrics to Kafka, on a host that is traced: what ktrace exports
//! comes by as messages, and makes no further spans. Nor does it for another agent on the way.
//! Spans of applications do, and with `--own-telemetry` its own do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::{self, Agent};
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::collector::{Collected, Collector, METRICS_TOPIC, spans_topic};
use harness::need;
use harness::scratch::Scratch;
use harness::truth::Truth;
use harness::{ports, process};
use serde_json::json;

/// One message for each request, for each trace, for each span.
const ENCODINGS: [&str; 4] = ["otlp_proto", "otlp_json", "jaeger_proto", "zipkin_json"];

/// Messages of each round.
const COUNT: u32 = 20;

/// Said once, whatever the number of topics.
const SAID: &str = "carries ktrace's own telemetry";

#[test]
fn what_ktrace_exports_makes_no_spans() -> Result<()> {
    if !need::live("feedback", &["java", "go"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    let topics = ENCODINGS.map(spans_topic);
    let all: Vec<&str> = topics.iter().map(String::as_str).chain([METRICS_TOPIC, "orders"]).collect();
    broker.create_topics(1, &all)?;
    let collector = Collector::start_with_kafka(dir, &bootstrap, &ENCODINGS)?;
    let otlp = collector.grpc_url();
    let run = |name: &str, more: &[&str]| {
        let mut command = process::command(agent::binary());
        command.arg("run").env("OTEL_METRIC_EXPORT_INTERVAL", "1000").env("OTEL_BSP_SCHEDULE_DELAY", "1000");
        let arguments = [&["--otlp", &otlp][..], more].concat();
        Agent::start(dir, name, &mut command, port, &arguments)
    };

    // Another agent, which does not export to this Collector: of what it sees, content alone says what
    // it is.
    let other = Agent::observe(dir, "other", port, &[])?;
    let exporting = run("run", &[])?;
    // What had made spans in one round would be there by the end of the next.
    for round in 1..=3 {
        talk(dir, &bootstrap, round)?;
        all_came_back(&collector, round)?;
        // By now all fetches are of after the agents' beginning, and nothing of ktrace shares the
        // Collector's batch.
        if round == 1 {
            collector.take_spans(&of_an_application())?;
        }
    }
    let (exported, seen) = (exporting.stop()?, other.stop()?);
    all_came_back(&collector, 3)?;

    let names = count(collector.so_far()?.iter().map(|span| span.name.as_str()));
    let seen_names = count(seen.spans.iter().map(|span| span.name.as_str()));
    eprintln!(
        "exported: {names:?}\nseen by another: {seen_names:?}\nleft out: {}",
        exported.summary["own_telemetry"]
    );
    let messages = u64::from(3 * COUNT);
    let mut expected: BTreeMap<String, u64> = [
        ("GET /orders".to_owned(), 1),
        ("send orders".to_owned(), messages),
        ("poll orders".to_owned(), messages),
    ]
    .into();
    // The application's span: sent, read and committed, as any message.
    for topic in &topics {
        expected.extend(["send", "poll", "commit"].map(|what| (format!("{what} {topic}"), 1)));
    }
    for (whose, mut names) in [("exported", names), ("seen", seen_names)] {
        // As often as the consumers liked.
        ensure!(
            names.remove("commit orders").is_some_and(|commits| (3..=messages).contains(&commits)),
            "{names:?}"
        );
        if whose == "seen" {
            expected.remove("GET /orders");
        }
        ensure!(names == expected, "{whose}: {names:?}, expected: {expected:?}");
    }
    for ended in [&exported, &seen] {
        let left_out =
            ended.summary["own_telemetry"].as_object().map(|by_topic| by_topic.keys().cloned().collect());
        let mut telemetry: Vec<String> = topics.iter().cloned().chain([METRICS_TOPIC.to_owned()]).collect();
        telemetry.sort();
        ensure!(left_out == Some(telemetry), "{}", ended.summary);
        // The Collector's fetches are on their way when an agent begins, and when it ends.
        let usual = ["own_telemetry", "response_without_request", "unanswered"];
        let mut lost = ended.summary["lost"].as_object().into_iter().flat_map(|lost| lost.keys());
        ensure!(lost.all(|reason| usual.contains(&reason.as_str())), "{}", ended.summary);
        ensure!(ended.stderr.matches(SAID).count() == 1, "{}", ended.stderr);
    }

    // Where the user wants it: what is exported comes by again, and is shown.
    let showing = run("showing", &["--own-telemetry"])?;
    talk(dir, &bootstrap, 4)?;
    // Perhaps by its topic's id: the Collector asked for names before this agent began.
    let is_of_telemetry = |name: &str| name.starts_with("send ") && name != "send orders";
    let of_telemetry = |span: &&Collected| is_of_telemetry(&span.name);
    until(|| Ok(collector.so_far()?.iter().filter(of_telemetry).count() > ENCODINGS.len()))?;
    let shown = showing.stop()?;
    ensure!(!shown.stderr.contains(SAID) && shown.summary["own_telemetry"].is_null(), "{}", shown.stderr);
    Ok(())
}

/// A span that a program of its own has made.
fn of_an_application() -> serde_json::Value {
    let service = json!({"key": "service.name", "value": {"stringValue": "shop"}});
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /orders", "kind": 2,
        "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
        "attributes": [{"key": "http.route", "value": {"stringValue": "/orders"}}]
    });
    let spans = json!([{"scope": {"name": "shop"}, "spans": [span]}]);
    json!({"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": spans}]})
}

fn talk(dir: &Path, bootstrap: &str, round: u32) -> Result<()> {
    let mut truth = Truth::default();
    let (sender, group) = (format!("shop-{round}"), format!("billing-{round}"));
    let produce = Produce::new(Library::Python, bootstrap, "orders", &sender);
    Produce { count: COUNT, ..produce }.run(dir, &mut truth)?;
    let consume = Consume {
        library: Library::Python,
        bootstrap,
        topics: &["orders"],
        service: &group,
        group: "billing",
        expect: COUNT as usize,
    };
    consume.start(dir)?.finish(Duration::from_secs(60), &mut truth)
}

/// Waits until the messages of all rounds so far are exported, and all that was exported has been
/// written to Kafka and read again.
fn all_came_back(collector: &Collector, rounds: u32) -> Result<()> {
    let messages = (rounds * COUNT) as usize;
    until(|| {
        let spans = collector.so_far()?;
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        let are_exported = count("poll orders") >= messages && count("commit orders") >= rounds as usize;
        Ok(are_exported && collector.came_back()?.len() == spans.len() * ENCODINGS.len())
    })
}

/// A file may not be there yet, or its last line not be whole: that is asked again, too.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = process::deadline(Duration::from_secs(60));
    loop {
        let answer = is_so();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it never came to that: {answer:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}
