//! The main claim: ten thousand messages of four client libraries, all codecs, several header
//! formats and two groups, each hop of each seen once and shown truly: live, as exported to a real
//! Collector and Jaeger, and in a replay of the capture.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::agent::{self, Agent, Ended};
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::collector::{self, Collected, Collector};
use harness::compare::compare;
use harness::jaeger::Jaeger;
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::tcpdump::{self, Capture};
use harness::traffic;
use harness::truth::Truth;

/// Of each client with each codec.
const EACH: u32 = 500;

#[test]
fn ten_thousand_messages() -> Result<()> {
    if !need::live("ground truth", &["java", "kcat", "tcpdump", "go"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    broker.create_topics(3, &traffic::topics())?;
    let jaeger = Jaeger::start(dir)?;
    let collector = Collector::start(dir, Some(&jaeger.otlp_address()))?;

    let capture = Capture::start(dir, "ground", port)?;
    let observing = Agent::observe(dir, "observe", port, &[])?;
    let exporting = Agent::run(dir, "run", port, &["--otlp", &collector.grpc_url()])?;
    let truth = traffic::run(dir, &broker.bootstrap(), EACH, 100)?;

    let dropped = capture.stop()?;
    observing.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let (live, exported) = (observing.stop()?, exporting.stop()?);
    ensure!(live.status.success() && exported.status.success(), "{}\n{}", live.stderr, exported.stderr);

    let report = check(&truth, &live.spans);
    eprintln!("live: {report}");
    ensure!(live.lost() == 0, "the agent lost bytes: {}", live.summary["lost"]);
    ensure!(report.is_perfect(), "live spans do not hold; summary {}", live.summary);
    report.delays.hold()?;

    ensure!(
        exported.lost() == 0,
        "the exporting agent lost: {}\n{}",
        exported.summary["lost"],
        exported.stderr
    );
    in_jaeger(&jaeger, &truth, &live.spans)?;
    in_collector(&collector.stop()?, &live.spans)?;
    in_metrics(&collector::counters(&dir.join("collected.json"))?, &exported)?;

    ensure!(dropped == 0, "tcpdump lost {dropped} packets, so the replay cannot be compared");
    let since = Instant::now();
    let (status, replayed, stderr) = agent::replay(&dir.join("ground.pcap"), port)?;
    ensure!(status.success(), "replay ended with {status}: {stderr}");
    let differences = compare(&hops(&live.spans), &hops(&replayed));
    eprintln!("replay in {:.1} s: {differences}", since.elapsed().as_secs_f32());
    ensure!(differences.is_none(), "live and replay differ");

    let parts = tcpdump::split(&dir.join("ground.pcap"), 7)?;
    let (status, pieced, stderr) = agent::replay_all(&parts, port)?;
    ensure!(status.success(), "replay of {} files ended with {status}: {stderr}", parts.len());
    let differences = compare(&replayed, &pieced);
    ensure!(differences.is_none(), "one file and its parts differ: {differences}");
    Ok(())
}

fn hops(spans: &[Span]) -> Vec<Span> {
    spans.iter().filter(|span| span.operation() != "commit").cloned().collect()
}

/// The other agent exported every hop, with the same parent and service.
fn in_collector(collected: &[Collected], live: &[Span]) -> Result<()> {
    let collected = Collected::by_id(collected);
    for span in hops(live) {
        let got = collected
            .get(&(span.trace_id.as_str(), span.span_id.as_str()))
            .with_context(|| format!("the Collector never got {span:?}"))?;
        ensure!(
            got.parent_span_id == span.parent_span_id
                && got.name == span.name
                && got.service == span.service(),
            "the Collector got {got:?}\n  of {span:?}"
        );
    }
    Ok(())
}

/// The agent's last metrics say what its summary says.
fn in_metrics(counters: &BTreeMap<String, u64>, exported: &Ended) -> Result<()> {
    let spans = counters.get("ktrace.spans").copied();
    ensure!(spans.is_some() && spans == exported.summary["spans"].as_u64(), "{counters:?}");
    for lost in
        ["ktrace.lost.events ring_full", "ktrace.lost.events export_failed", "ktrace.lost.bytes gap_bytes"]
    {
        ensure!(counters.get(lost) == Some(&0), "{lost}: {counters:?}");
    }
    Ok(())
}

/// A message without headers is one trace in Jaeger, from its producer to both groups.
fn in_jaeger(jaeger: &Jaeger, truth: &Truth, live: &[Span]) -> Result<()> {
    let line = truth.sent.iter().find(|line| line.service == "shipments-none").context("no such message")?;
    let is_send = |span: &&Span| span.operation() == "send" && span.place() == line.place();
    let send = live.iter().find(is_send).context("no send span")?;
    let shown = jaeger.trace(&send.trace_id, 3)?;
    for service in ["billing", "audit"] {
        let poll =
            shown.iter().find(|span| span.service == service).with_context(|| format!("no {service}"))?;
        ensure!(poll.parent_span_id.as_ref() == Some(&send.span_id), "{poll:?} is not below {send:?}");
        ensure!(poll.operation == "poll shipments");
    }
    ensure!(
        shown.iter().any(|span| span.service == "shipments-none" && span.span_id == send.span_id),
        "{shown:?}"
    );
    Ok(())
}
