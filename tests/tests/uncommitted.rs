//! Messages that a group was given and has not committed are listed when their time is over: all of
//! them of a group that has committed before, the first ones of a group that never does, none of a
//! group that commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::process::deadline;
use harness::scratch::Scratch;
use harness::truth::{Place, Truth};

const COUNT: u32 = 1200;

/// How many are listed of a group that never commits.
const FIRST: usize = 16;

#[test]
fn what_nobody_commits_is_listed() -> Result<()> {
    if !need::live("uncommitted", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders"])?;
    let agent = Agent::observe(dir, "agent", port, &["--uncommitted", "15s"])?;
    let mut truth = Truth::default();
    let produce = Produce::new(Library::Python, &bootstrap, "orders", "orders-out");
    Produce { count: COUNT, ..produce }.run(dir, &mut truth)?;
    let consume = |service, group, expect, more: &[&str]| {
        let topics = &["orders"];
        let library = Library::Python;
        Consume { library, bootstrap: &bootstrap, topics, service, group, expect }.start_with(dir, more)
    };
    let never = ["--set", "enable.auto.commit=false"];
    let billing = consume("billing", "billing", COUNT as usize, &[])?;
    let elsewhere = consume("elsewhere", "elsewhere", COUNT as usize, &never)?;
    // It commits what it has got, which is at most 500; the next of its group gets the others and is
    // stuck.
    consume("half", "half", 100, &[])?.finish(Duration::from_secs(60), &mut truth)?;
    let committed: BTreeSet<Place> = truth.received.iter().filter_map(|line| line.place()).collect();
    let stuck = consume("stuck", "half", 1 << 30, &never)?;
    for consumer in [billing, elsewhere] {
        consumer.finish(Duration::from_secs(60), &mut truth)?;
    }
    let sent: BTreeSet<Place> = truth.sent.iter().filter_map(|line| line.place()).collect();
    let open: BTreeSet<Place> = sent.difference(&committed).cloned().collect();
    let deadline = deadline(Duration::from_secs(60));
    while Instant::now() < deadline && agent.so_far()?.len() < open.len() + FIRST {
        std::thread::sleep(Duration::from_secs(1));
    }
    stuck.stop(&mut truth)?;
    let ended = agent.stop()?;

    let mut listed: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for span in &ended.spans {
        ensure!(span.operation() == "poll" && span.attributes.contains_key("ktrace.uncommitted"), "{span:?}");
        let group = span.text("messaging.consumer.group.name").unwrap_or_default();
        listed.entry(group).or_default().extend(span.place());
    }
    let lost = &ended.summary["lost"];
    let counts: BTreeMap<_, _> = listed.iter().map(|(group, places)| (*group, places.len())).collect();
    eprintln!("{} committed of {}; listed: {counts:?}; lost: {lost}", committed.len(), sent.len());
    ensure!(sent.len() == COUNT as usize && !committed.is_empty() && !open.is_empty());
    ensure!(counts.keys().eq(&["elsewhere", "half"]), "others are listed");
    let half: BTreeSet<Place> = listed["half"].iter().cloned().collect();
    ensure!(half == open, "{:?}", half.symmetric_difference(&open).take(5).collect::<Vec<_>>());
    ensure!(half.len() == counts["half"], "listed twice");
    let elsewhere: BTreeSet<_> = listed["elsewhere"].iter().collect();
    ensure!(elsewhere.len() == FIRST && counts["elsewhere"] == FIRST);
    // What is not listed of that group, and nothing else was lost.
    ensure!(lost["uncommitted_left_out"].as_u64() >= Some(u64::from(COUNT) - FIRST as u64), "{lost}");
    ensure!(
        lost.as_object().is_some_and(|lost| lost.values().filter(|count| **count != 0).count() == 1),
        "{lost}"
    );
    ensure!(
        ended.stderr.contains("were not committed in time and are not listed"),
        "nobody is told:\n{}",
        ended.stderr
    );
    Ok(())
}
