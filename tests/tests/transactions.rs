//! Transactions committed and aborted in turn: what became of each message stands on its spans,
//! those of who reads uncommitted messages too, and who reads committed ones is shown no other.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::check::delays::Delays;
use harness::clients::{Consume, Library, python};
use harness::need;
use harness::ports;
use harness::process::Process;
use harness::scratch::Scratch;
use harness::truth::Truth;
use serde::Deserialize;

const SIZE: usize = 3;

#[derive(Debug, Deserialize)]
struct Sent {
    event: String,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    committed: Option<bool>,
}

#[test]
fn what_became_of_each_message_is_told() -> Result<()> {
    if !need::live("transactions", &["java"]) {
        return Ok(());
    }
    let transactions = if need::is_full() { 2000 } else { 200 };
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders"])?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    let read = |group, isolation, expect| {
        let consume = Consume {
            library: Library::Python,
            bootstrap: &bootstrap,
            topics: &["orders"],
            service: group,
            group,
            expect,
        };
        consume.start_with(dir, &["--set", &format!("isolation.level={isolation}")])
    };
    let committed = read("committed", "read_committed", transactions * SIZE / 2)?;
    let uncommitted = read("uncommitted", "read_uncommitted", transactions * SIZE)?;
    let mut producer = python::script("transactions")?;
    producer.args(["--bootstrap", &bootstrap, "--topic", "orders", "--service", "out", "--client-id", "out"]);
    producer.args(["--transactions", &transactions.to_string(), "--size", &SIZE.to_string()]);
    producer.arg("--truth").arg(dir.join("out.truth"));
    let mut producer = Process::start("producer", &mut producer, &dir.join("out.log"))?;
    producer.finish(Duration::from_secs(300))?;
    let mut truth = Truth::default();
    for consumer in [committed, uncommitted] {
        consumer.finish(Duration::from_secs(120), &mut truth)?;
    }
    let mut sent = BTreeMap::new();
    for line in fs::read_to_string(dir.join("out.truth"))?.lines() {
        let line: Sent = serde_json::from_str(line)?;
        ensure!(line.event == "sent", "{line:?}");
        let (Some(_), Some(partition), Some(offset), Some(committed)) =
            (line.topic, line.partition, line.offset, line.committed)
        else {
            continue;
        };
        sent.insert((partition, offset), if committed { "committed" } else { "aborted" });
    }
    ensure!(sent.len() == transactions * SIZE, "{} sent", sent.len());
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);

    let delays = Delays::of(&ended.spans);
    eprintln!("{delays}");
    delays.hold()?;
    let (mut seen, mut wrong) = (BTreeMap::<_, usize>::new(), Vec::new());
    for span in ended.spans.iter().filter(|span| span.operation() != "commit") {
        let who = format!("{} {}", span.operation(), span.service());
        let Some(place) = span.place() else {
            wrong.push(format!("{span:?}"));
            continue;
        };
        let became = sent.get(&(place.partition, place.offset)).copied();
        if became.is_none() || span.text("ktrace.transaction.state") != became {
            wrong.push(format!("{became:?}: {span:?}"));
        }
        *seen.entry((who, became)).or_default() += 1;
    }
    eprintln!("{transactions} transactions of {SIZE} messages: {seen:?}");
    ensure!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(3)]);
    let half = transactions * SIZE / 2;
    for (who, became, count) in [
        ("send transactions", "committed", half),
        ("send transactions", "aborted", half),
        ("poll committed", "committed", half),
        ("poll uncommitted", "committed", half),
        ("poll uncommitted", "aborted", half),
    ] {
        let told = seen.remove(&(who.to_owned(), Some(became)));
        ensure!(told == Some(count), "{who}, {became}: {told:?} and not {count}");
    }
    ensure!(seen.is_empty(), "nobody did: {seen:?}");
    Ok(())
}
