//! A ring buffer far too small under load: what was lost is counted, what is shown is true, and
//! later messages are seen again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;

#[test]
fn lost_bytes_are_counted_and_make_no_wrong_span() -> Result<()> {
    if !need::live("overflow", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["flood", "calm"])?;
    // the smallest ring that the largest reservation fits into
    let mut agent = Agent::observe(dir, "observe", port, &["--ring-size", "128K"])?;

    let mut truth = Truth::default();
    let flood = Produce::new(Library::Java, &bootstrap, "flood", "flooder");
    Produce { count: 50_000, payload: 4000, ..flood }.run(dir, &mut truth)?;
    agent.wait_for_line("loss has ended, in all:").context("it did not catch up with the flood")?;
    let mut calm = Truth::default();
    let new = Produce::new(Library::Python, &bootstrap, "calm", "calm-out");
    Produce { count: 50, interval_ms: 20, ..new }.run(dir, &mut calm)?;
    Consume {
        library: Library::Python,
        bootstrap: &bootstrap,
        topics: &["calm"],
        service: "calm-in",
        group: "calm-in",
        expect: 50,
    }
    .start(dir)?
    .finish(Duration::from_secs(30), &mut calm)?;
    agent.wait_for_hops_of("calm", calm.sent.len() + calm.received.len())?;
    let ended = agent.stop()?;

    ensure!(truth.errors.is_empty(), "the flooder saw errors: {:?}", truth.errors);
    ensure!(ended.lost() > 0, "nothing lost, so nothing was tested: {}", ended.summary);
    let (of_calm, of_flood): (Vec<_>, Vec<_>) =
        ended.spans.iter().cloned().partition(|span| span.topic() == Some("calm"));
    let flood = check(&truth, &of_flood);
    eprintln!("flood: lost {}; {flood}", ended.summary["lost"]);
    ensure!(flood.is_true(), "wrong spans beside gaps");
    let truncated =
        |spans: &[Span]| spans.iter().filter(|span| span.attributes.contains_key("ktrace.truncated")).count();
    ensure!(truncated(&of_flood) > 0 && truncated(&of_calm) == 0, "marks are not where bytes are missing");
    for line in ["losing data:", "loss has ended, in all:"] {
        ensure!(ended.stderr.contains(line), "the agent did not say `{line}`:\n{}", ended.stderr);
    }
    ensure!(ended.summary["lossy"][0]["service"] == "flooder", "{}", ended.summary);
    let calm = check(&calm, &of_calm);
    eprintln!("afterwards: {calm}");
    ensure!(calm.is_perfect(), "messages after the flood are not all seen");
    Ok(())
}
