//! Jaeger's graph of services: an edge from who sent a message to who got it, whether
//! OpenTelemetry's own instrumentation is in the one, the other, both or none.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::jaeger::{Graph, Jaeger};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;

/// Messages of each producer.
const COUNT: u32 = 50;

/// Library, service and topic, and whether its own spans, if it makes any, go to Jaeger too.
const PRODUCERS: [(Library, &str, bool); 3] =
    [(Library::Java, "till", false), (Library::JavaAgent, "shop", true), (Library::JavaAgent, "mute", false)];

/// Library, service and group. Both read all.
const CONSUMERS: [(Library, &str); 2] = [(Library::Java, "kitchen"), (Library::JavaAgent, "packing")];

#[test]
fn who_sends_to_whom() -> Result<()> {
    if !need::live("service graph", &["java", "go"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    broker.create_topics(2, &PRODUCERS.map(|(_, topic, _)| topic))?;
    let jaeger = Jaeger::start(dir)?;
    let otlp = format!("http://{}", jaeger.otlp_address());
    let exporting = Agent::run(dir, "run", port, &["--otlp", &otlp])?;
    let observing = Agent::observe(dir, "observe", port, &[])?;
    let truth = talk(dir, &broker.bootstrap(), &otlp)?;
    observing.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let (exported, seen) = (exporting.stop()?, observing.stop()?);
    ensure!(exported.lost() == 0 && seen.lost() == 0, "{} {}", exported.summary, seen.summary);

    let count = u64::from(COUNT);
    let edge = |from: &str, to: &str, count| ((from.to_owned(), to.to_owned()), count);
    let wanted: Graph = [
        edge("till", "kitchen", count),
        // its instrumentation knows of no sender
        edge("till", "packing", count),
        edge("shop", "kitchen", count),
        // shown by the instrumentation and by ktrace
        edge("shop", "packing", 2 * count),
        // of `mute` the headers name a span that Jaeger never gets: there is no service to draw an edge from
    ]
    .into();
    let graph = jaeger.graph(&wanted)?;
    eprintln!("{graph:?}");
    ensure!(graph == wanted, "the graph should be {wanted:?}");
    for (_, from, told) in PRODUCERS {
        for (_, to) in CONSUMERS {
            let poll = seen.spans.iter().find(|span| {
                span.operation() == "poll" && span.topic() == Some(from) && span.service() == to
            });
            pair(&jaeger, from, told, poll.with_context(|| format!("nothing from {from} to {to}"))?)?;
        }
    }
    Ok(())
}

fn talk(dir: &Path, bootstrap: &str, otlp: &str) -> Result<Truth> {
    let mut truth = Truth::default();
    for (library, service, told) in PRODUCERS {
        let new = Produce::new(library, bootstrap, service, service);
        let extra: &[&str] = if told { &["--otlp", otlp] } else { &[] };
        Produce { count: COUNT, ..new }
            .start_with(dir, extra)?
            .finish(Duration::from_secs(60), &mut truth)?;
    }
    for (library, service) in CONSUMERS {
        let topics = &PRODUCERS.map(|(_, topic, _)| topic);
        let expect = COUNT as usize * topics.len();
        Consume { library, bootstrap, topics, service, group: service, expect }
            .start_with(dir, &["--otlp", otlp])?
            .finish(Duration::from_secs(60), &mut truth)?;
    }
    Ok(truth)
}

/// A delivery as Jaeger has it: a consumer's span below a span of who sent the message, if Jaeger
/// got that.
fn pair(jaeger: &Jaeger, from: &str, told: bool, poll: &Span) -> Result<()> {
    let trace = jaeger.trace(&poll.trace_id, 3)?;
    let span = |id: &str| trace.iter().find(|span| span.span_id == id);
    let child = span(&poll.span_id).with_context(|| format!("Jaeger never got {poll:?}"))?;
    ensure!(child.kind == "consumer" && child.service == poll.service(), "{child:?}");
    let parent = child.parent_span_id.as_deref().and_then(span);
    if poll.is_derived() || told {
        let parent = parent.with_context(|| format!("{child:?} has no parent in {trace:?}"))?;
        ensure!(parent.service == from && parent.kind == "producer", "{parent:?} above {child:?}");
    } else {
        ensure!(parent.is_none(), "whose is {parent:?}?");
    }
    Ok(())
}
