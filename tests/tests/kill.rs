//! The agent is killed under load: clients notice nothing, and nothing of it stays in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::need::{self, Need};
use harness::ports;
use harness::scratch::Scratch;
use harness::truth::Truth;
use serde_json::Value;

/// One a millisecond or less.
const MESSAGES: u32 = 5_000;

/// Kinds of objects in the kernel, as bpftool and `/proc/PID/fdinfo` call them.
const KINDS: [&str; 3] = ["prog", "map", "link"];

#[test]
fn a_killed_agent_leaves_nothing() -> Result<()> {
    let needs = [Need::Root, Need::Agent, Need::CgroupV2, Need::Program("java"), Need::Program("bpftool")];
    if !need::met("kill", &needs) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["load"])?;
    let mut agent = Agent::observe(dir, "observe", port, &[])?;
    let objects = objects_of(agent.pid())?;
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

    // the kernel frees maps after a grace period
    for _ in 0..50 {
        if objects.is_disjoint(&all_objects()?.into_iter().map(|(kind, id, _)| (kind, id)).collect()) {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    let left: Vec<_> =
        all_objects()?.into_iter().filter(|(kind, id, _)| objects.contains(&(*kind, *id))).collect();
    anyhow::bail!("left in the kernel: {left:?}")
}

/// Kind, id, and what bpftool tells.
fn all_objects() -> Result<Vec<(&'static str, u64, Value)>> {
    let mut objects = Vec::new();
    for kind in KINDS {
        let bpftool = need::on_path("bpftool").context("no bpftool")?;
        let output = Command::new(bpftool).args(["-j", kind, "show"]).output()?;
        ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
        let list: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        objects.extend(list.into_iter().filter_map(|object| Some((kind, object["id"].as_u64()?, object))));
    }
    Ok(objects)
}

/// What the process holds, from what the kernel tells of its descriptors (`link_id: 7`); a link tells its program too.
fn objects_of(pid: u32) -> Result<BTreeSet<(&'static str, u64)>> {
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let told = fs::read_to_string(entry?.path()).unwrap_or_default();
        for kind in KINDS {
            let id = told
                .lines()
                .find_map(|line| line.strip_prefix(kind)?.strip_prefix("_id:")?.trim().parse().ok());
            objects.extend(id.map(|id| (kind, id)));
        }
    }
    Ok(objects)
}
