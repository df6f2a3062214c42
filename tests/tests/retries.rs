//! A broker that stops to answer, and one that is killed and comes back: what a producer sends
//! again is one message, with its attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Library, Produce};
use harness::need;
use harness::ports;
use harness::process::deadline;
use harness::scratch::Scratch;
use harness::truth::Truth;
use rustix::process::{Pid, Signal, kill_process};

const SERVICES: [&str; 2] = ["idempotent", "plain"];

#[test]
fn what_is_sent_again_is_one_message() -> Result<()> {
    if !need::live("retries", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let settings = Settings { port, ..Settings::default() };
    let broker = Broker::start(dir, &settings)?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders"])?;
    let mut agent = Agent::observe(dir, "agent", port, &[])?;
    // With `all` the producer is idempotent: its sequence numbers name the messages.
    let start = |acks, service| {
        let produce = Produce::new(Library::Python, &bootstrap, "orders", service);
        let produce = Produce { count: 1500, interval_ms: 10, acks, ..produce };
        produce.start_with(dir, &["--set", "socket.timeout.ms=1500"])
    };
    let [idempotent, plain] = SERVICES;
    let producers = [start("all", idempotent)?, start("1", plain)?];
    for service in SERVICES {
        agent.wait_for_sends(service, 100)?;
    }
    let pid = Pid::from_raw(i32::try_from(broker.pid())?);
    let signal = |signal| pid.map_or(Ok(()), |pid| kill_process(pid, signal));
    signal(Signal::STOP)?;
    let deadline = deadline(Duration::from_secs(30));
    for service in SERVICES {
        // librdkafka says when it gives a request up, after socket.timeout.ms
        while !fs::read_to_string(dir.join(format!("{service}.log")))?.contains("Timed out ProduceRequest") {
            ensure!(Instant::now() < deadline, "{service} waits for ever");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    signal(Signal::CONT)?;
    for service in SERVICES {
        agent.wait_for_sends(service, 600)?;
    }
    let broker = broker.killed_and_started(dir, &settings)?;
    let mut truth = Truth::default();
    for producer in producers {
        producer.finish(Duration::from_secs(120), &mut truth)?;
    }
    truth.resolve();
    drop(broker);
    let ended = agent.stop()?;

    let mut sends: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in ended.spans.iter().filter(|span| span.operation() == "send") {
        sends.entry(span.place()).or_default().push(span);
    }
    let failed = sends.remove(&None).unwrap_or_default();
    let acked: BTreeSet<_> = truth.sent.iter().filter_map(|line| line.place()).collect();
    let told: BTreeSet<_> = sends.keys().flatten().cloned().collect();
    let again =
        sends.values().flatten().filter(|span| span.attributes.contains_key("ktrace.attempts")).count();
    eprintln!(
        "{} acknowledged, {} told, {again} of them sent again, {} failed; lost {}",
        acked.len(),
        told.len(),
        failed.len(),
        ended.summary["lost"]
    );
    ensure!(told == acked, "not told: {:?}", acked.difference(&told).take(5).collect::<Vec<_>>());
    ensure!(sends.values().all(|spans| spans.len() == 1), "told twice");
    ensure!(failed.is_empty(), "{:?}", failed.first());
    ensure!(again > 0, "nothing was sent again");
    Ok(())
}
