//! The broker's end: an agent there exports the same spans, by the same ids, as one at the clients;
//! one that looks at both ends exports each once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::process::deadline;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;

const EACH: u32 = 200;

const PRODUCERS: [(Library, &str, &str); 4] = [
    (Library::Java, "orders", "lz4"),
    (Library::JavaAgent, "orders", "none"),
    (Library::Python, "payments", "zstd"),
    (Library::Kcat, "payments", "none"),
];

#[test]
fn both_ends_tell_the_same() -> Result<()> {
    if !need::live("sides", &["java", "kcat"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders", "payments", "early"])?;

    // A connection older than the agents, whose beginning none of them sees.
    let early = Produce::new(Library::Python, &bootstrap, "early", "early-out");
    let early = Produce { count: 1 << 30, interval_ms: 20, ..early }.start(dir)?;
    let observe = |side| Agent::observe(dir, side, port, &["--side", side]);
    // an agent that begins later than its connection, and goes, as its messages show that it has begun
    let mut before = Agent::observe(dir, "before", port, &[])?;
    before.wait_for_sends("early-out", 10)?;
    before.stop()?;
    let mut agents = [observe("client")?, observe("broker")?, observe("both")?];

    let mut truth = Truth::default();
    let consumer = Consume {
        library: Library::Java,
        bootstrap: &bootstrap,
        topics: &["orders", "payments"],
        service: "billing",
        group: "billing",
        expect: EACH as usize * PRODUCERS.len(),
    }
    .start(dir)?;
    for (library, topic, codec) in PRODUCERS {
        let service = format!("{}-out", library.name());
        let new = Produce::new(library, &bootstrap, topic, &service);
        Produce { count: EACH, codec, ..new }.run(dir, &mut truth)?;
    }
    consumer.finish(Duration::from_secs(60), &mut truth)?;
    let mut early_truth = Truth::default();
    for agent in &mut agents {
        agent.wait_until("the older connection", |spans| of_early(spans) > 0)?;
    }
    early.stop(&mut early_truth)?;
    truth.resolve();
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);

    let hops = truth.sent.len() + truth.received.len();
    for agent in &agents {
        let deadline = deadline(Duration::from_secs(10));
        while Instant::now() < deadline && later(&agent.so_far()?).len() < hops {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let mut told = Vec::new();
    for (agent, side) in agents.into_iter().zip(["client", "broker", "both"]) {
        let ended = agent.stop()?;
        ensure!(ended.status.success(), "{side}: {}", ended.stderr);
        // The programs of the two directions are attached one after the other, so that of an exchange of
        // the older connection the request alone may have been seen, for some requests.
        let begun = ended.summary["lost"]["unanswered"].as_u64().unwrap_or_default();
        ensure!(ended.lost() == begun, "{side} lost: {}", ended.summary["lost"]);
        let report = check(&truth, &later(&ended.spans));
        eprintln!("{side}: {report}");
        ensure!(report.is_perfect(), "{side}: the spans do not hold; summary {}", ended.summary);
        told.push(ended.spans);
    }
    let [client, broker, both] = [&told[0], &told[1], &told[2]];
    ensure!(ids(&later(client)) == ids(&later(broker)), "the two ends name spans differently");
    ensure!(ids(&later(client)) == ids(&later(both)), "both ends together name other spans");
    for span in broker {
        ensure!(
            span.text("ktrace.side") == Some("broker")
                && span.text("client.address") == Some("127.0.0.1")
                && !span.resource.contains_key("process.pid")
                && !span.resource.contains_key("host.name")
                && span.resource.contains_key("ktrace.client.software.name")
                    == (span.topic() != Some("early")),
            "{span:?}"
        );
    }
    // Those of the connection that is older, too: a few are held back until it is known to be one
    // within the host.
    let (at_client, at_broker, at_both) = (of_early(client), of_early(broker), of_early(both));
    eprintln!("early: {at_client} at the client's end, {at_broker} at the broker's, {at_both} of both");
    ensure!(at_client > 0 && at_broker > 0 && at_both > 0, "the older connection was not read");
    let mut times = BTreeMap::<_, u32>::new();
    for span in both {
        *times.entry((&span.trace_id, &span.span_id)).or_default() += 1;
        ensure!(span.text("ktrace.side").is_none(), "told at the broker's end too: {span:?}");
    }
    ensure!(times.values().all(|times| *times == 1), "told twice");
    Ok(())
}

/// Messages of the connection that is older than the agents.
fn of_early(spans: &[Span]) -> usize {
    spans.iter().filter(|span| span.topic() == Some("early")).count()
}

/// Without the connection that is older than the agents: they began at different messages of it.
fn later(spans: &[Span]) -> Vec<Span> {
    spans
        .iter()
        .filter(|span| span.operation() != "commit" && span.topic() != Some("early"))
        .cloned()
        .collect()
}

fn ids(spans: &[Span]) -> BTreeSet<(&str, &str, Option<&str>, &str)> {
    spans
        .iter()
        .map(|span| (&*span.trace_id, &*span.span_id, span.parent_span_id.as_deref(), &*span.name))
        .collect()
}
