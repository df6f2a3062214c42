//! Two hosts whose clocks differ, each known by a capture file of its own: what passed on the one
//! and on the other joins, and nothing ends before it begins.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::agent;
use harness::check::check;
use harness::hosts::{self, Hosts};
use harness::need::{self, Need};
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::tcpdump::{self, Capture};
use harness::truth::Truth;

/// Of each of four producers.
fn count() -> u32 {
    if need::is_full() { 2000 } else { 100 }
}

/// Places at which a clock is set anew.
const JUMPS: u8 = 20;

/// What `ktrace replay` shows of either host.
struct Told {
    sent: Vec<Span>,
    received: Vec<Span>,
}

#[test]
fn clocks_that_differ() -> Result<()> {
    let needs = [&[Need::Root, Need::Agent, Need::Program("tcpdump")], &hosts::NEEDS[..]].concat();
    if !need::met("clocks", &needs) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let hosts = Hosts::new(dir)?;
    let port = hosts.broker.port;
    let sending = hosts.producers.within(|| Capture::start_on("eth0", dir, "sending", port))?;
    let receiving = hosts.consumers.within(|| Capture::start_on("eth0", dir, "receiving", port))?;
    let truth = hosts.talk(dir, count())?;
    let (sends, receives) = (sending.file.clone(), receiving.file.clone());
    let dropped = sending.stop()? + receiving.stop()?;
    ensure!(dropped == 0, "tcpdump lost {dropped} packets");
    // not before: a link takes with it what tcpdump has not read yet
    drop(hosts);

    let equal = told(&truth, &sends, &receives, port).context("equal clocks")?;
    for poll in equal.received.iter().filter(|span| span.operation() == "poll") {
        ensure!(poll.text("messaging.consumer.group.name") == Some("in"), "not its group: {poll:?}");
    }
    for seconds in [-3_i32, 3] {
        let shifted = told(&truth, &sends, &tcpdump::shift(&receives, seconds, 0.0)?, port)
            .with_context(|| format!("the consumer's is {seconds} s ahead"))?;
        ensure!(shifted.sent == equal.sent, "the producers' clock has not changed");
        same_but_for(seconds.into(), &equal.received, &shifted.received)?;
        let polls: Vec<_> = shifted.received.iter().filter(|span| span.operation() == "poll").collect();
        let early = polls.iter().filter(|poll| queued(poll).is_ok_and(|ms| ms < 0.0)).count();
        eprintln!(
            "{} messages of {}; with the consumer {seconds} s ahead, {early} came before they were sent",
            truth.received.len(),
            truth.sent.len()
        );
        // A skew below a millisecond is shown as no time at all.
        let is_early = |poll: &&Span| queued(poll).is_ok_and(|ms| ms + f64::from(seconds) * 1e3 <= -1.0);
        let polls = equal.received.iter().filter(|span| span.operation() == "poll");
        let expected = polls.filter(is_early).count();
        ensure!(
            early == expected && (seconds > 0 || expected > 0),
            "{early} of {expected} came before they were sent"
        );

        let shifted = told(&truth, &tcpdump::shift(&sends, seconds, 0.0)?, &receives, port)
            .with_context(|| format!("the producers' is {seconds} s ahead"))?;
        ensure!(shifted.received == equal.received, "the consumer's clock has not changed");
        same_but_for(seconds.into(), &equal.sent, &shifted.sent)?;

        for part in 1..JUMPS {
            let jump = |file: &Path| tcpdump::shift(file, seconds, f64::from(part) / f64::from(JUMPS));
            told(&truth, &jump(&sends)?, &jump(&receives)?, port)
                .with_context(|| format!("both are set {seconds} s ahead after {part} of {JUMPS} parts"))?;
        }
    }
    Ok(())
}

/// Replays either capture by itself. All hops are shown, each truly, and they join.
fn told(truth: &Truth, sends: &Path, receives: &Path, port: u16) -> Result<Told> {
    let replay = |file: &Path| -> Result<Vec<Span>> {
        let (status, spans, stderr) = agent::replay(file, port)?;
        ensure!(status.success(), "{status}: {stderr}");
        Ok(spans)
    };
    let told = Told { sent: replay(sends)?, received: replay(receives)? };
    ensure!(told.sent.iter().all(|span| span.operation() == "send"), "the one has seen the other's");
    ensure!(told.received.iter().all(|span| span.operation() != "send"), "the other has seen the one's");
    let all = [&told.sent[..], &told.received[..]].concat();
    let report = check(truth, &all);
    ensure!(report.is_perfect(), "the spans do not join: {report}");
    for span in &all {
        ensure!(span.start_unix_nanos <= span.end_unix_nanos, "ends before it begins: {span:?}");
        if span.operation() == "poll" {
            queued(span)?;
        }
    }
    Ok(told)
}

/// How long a message was on its way, in milliseconds; below zero where the clocks say that it came
/// before it was sent.
fn queued(poll: &Span) -> Result<f64> {
    let ms =
        |name: &str| poll.attributes.get(name).map(|value| value.as_f64().context("no number")).transpose();
    match (ms("ktrace.queue_time_ms")?, ms("ktrace.clock_skew_ms")?) {
        (Some(ms), None) if ms >= 0.0 => Ok(ms),
        (None, Some(ms)) if ms > 0.0 => Ok(-ms),
        other => anyhow::bail!("{other:?} of {poll:?}"),
    }
}

/// By span: a clock that is ahead changes times alone, all by as much.
fn same_but_for(seconds: i64, equal: &[Span], shifted: &[Span]) -> Result<()> {
    let by_id = |spans: &[Span]| -> BTreeMap<(String, String), Span> {
        spans.iter().map(|span| ((span.trace_id.clone(), span.span_id.clone()), span.clone())).collect()
    };
    let (equal, mut shifted) = (by_id(equal), by_id(shifted));
    ensure!(equal.len() == shifted.len(), "{} spans and {}", equal.len(), shifted.len());
    for (id, before) in equal {
        let mut after = shifted.remove(&id).with_context(|| format!("no longer told: {before:?}"))?;
        for time in [&mut after.start_unix_nanos, &mut after.end_unix_nanos] {
            *time = time.wrapping_add_signed(-seconds * 1_000_000_000);
        }
        if before.operation() == "poll" {
            let moved = queued(&after)? - queued(&before)?;
            ensure!(
                (moved - seconds as f64 * 1e3).abs() < 0.01,
                "by {moved} ms: {before:?}\n  and {after:?}"
            );
            for attribute in ["ktrace.queue_time_ms", "ktrace.clock_skew_ms"] {
                after.attributes.remove(attribute);
                after
                    .attributes
                    .extend(before.attributes.get_key_value(attribute).map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        ensure!(after == before, "{before:?}\n  and {after:?}");
    }
    Ok(())
}
