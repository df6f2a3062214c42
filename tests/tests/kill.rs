//! The agent is killed under load: clients notice nothing, and nothing of it stays in the kernel.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::kernel_objects;
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::truth::Truth;

/// One a millisecond or less.
const MESSAGES: u32 = 5_000;

#[test]
fn a_killed_agent_leaves_nothing() -> Result<()> {
    if !need::live("kill", &["java", "bpftool"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["load"])?;
    let mut agent = Agent::observe(dir, "observe", port, &[])?;
    let objects = kernel_objects::of_process(agent.pid())?;
    ensure!(objects.iter().any(|(kind, _)| *kind == "link"), "no link, so the test is blind: {objects:?}");
    ensure!(
        objects.iter().any(|(kind, _)| *kind == "prog") && objects.iter().any(|(kind, _)| *kind == "map")
    );

    let consumer = Consume {
        library: Library::Python,
        bootstrap: &bootstrap,
        topics: &["load"],
        service: "reader",
        group: "reader",
        expect: MESSAGES as usize,
    }
    .start(dir)?;
    let new = Produce::new(Library::Java, &bootstrap, "load", "writer");
    let mut producer = Produce { count: MESSAGES, payload: 1000, interval_ms: 1, ..new }.start(dir)?;
    while agent.so_far()?.is_empty() {
        ensure!(producer.is_running()?, "the producer ended before the agent saw anything");
        sleep(Duration::from_millis(20));
    }
    agent.kill()?;
    ensure!(producer.is_running()?, "the producer ended too early, so it was not under load");

    let mut truth = Truth::default();
    producer.finish(Duration::from_secs(60), &mut truth)?;
    consumer.finish(Duration::from_secs(60), &mut truth)?;
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);
    ensure!(truth.sent.len() == MESSAGES as usize && truth.received.len() == MESSAGES as usize);

    kernel_objects::wait_until_gone(&objects)
}
