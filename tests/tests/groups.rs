//! Three groups of three members and more, several of each in one process: while members come, go and are killed, each delivery is
//! named by its group and its member, and told how often its group got the message. Where all of them have one client id, too, none
//! is named wrongly, and few are not named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Library, Produce};
use harness::need::{self, Need};
use harness::process::{self, Process};
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;
use harness::{ports, tools};
use serde::Deserialize;

/// What a member has seen, as `tests/clients/python/members.py` logs it.
#[derive(Debug, Deserialize)]
struct Line {
    event: String,
    group: String,
    member: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
}

#[test]
fn members_with_client_ids_of_their_own_are_all_named() -> Result<()> {
    let Some(seen) = storm("groups", &["--own-ids", "true"])? else { return Ok(()) };
    ensure!(seen.unnamed == 0 && seen.untold.is_empty(), "{seen:?}");
    Ok(())
}

#[test]
fn of_members_with_one_client_id_none_is_named_wrongly() -> Result<()> {
    let Some(seen) = storm("groups of one client id", &[])? else { return Ok(()) };
    // Who came at the same time and reads the same cannot be told apart by what is seen.
    ensure!(seen.untold.len() <= seen.unnamed && seen.unnamed * 4 < seen.polls, "{seen:?}");
    Ok(())
}

/// What the agent told of it.
#[derive(Debug)]
struct Seen {
    polls: usize,
    unnamed: usize,
    /// What members got and no span tells.
    untold: Vec<String>,
}

fn storm(name: &str, more: &[&str]) -> Result<Option<Seen>> {
    if !need::met(name, &[Need::Root, Need::Agent, Need::CgroupV2, Need::Program("java")]) {
        return Ok(None);
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(6, &["orders"])?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    let producer = Produce::new(Library::Python, &bootstrap, "orders", "orders-out");
    let producer = Produce { count: 3000, interval_ms: 5, ..producer }.start(dir)?;
    // Two groups by the classic protocol and one by KIP-848's.
    let start = |name: &str, own: &[&str]| members(dir, name, &bootstrap, &[own, more].concat());
    let steady = start("steady", &["--seconds", "18", "--leavers", "1", "--joiners", "2"])?;
    let mut killed = start("killed", &["--seconds", "60", "--members", "2"])?;
    std::thread::sleep(Duration::from_secs(6));
    killed.kill()?;
    let late = start("late", &["--seconds", "9", "--members", "2"])?;
    producer.finish(Duration::from_secs(60), &mut Truth::default())?;
    for mut members in [steady, late] {
        members.finish(Duration::from_secs(60))?;
    }
    let mut lines = Vec::new();
    for name in ["steady", "killed", "late"] {
        lines.extend(read(dir, name)?);
    }
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);

    let polls: Vec<&Span> = ended.spans.iter().filter(|span| span.operation() == "poll").collect();
    let (untold, unnamed) = named(&polls, &lines);
    let wrong = counted(&polls);
    let all = |attribute| polls.iter().filter_map(|span| span.text(attribute)).collect::<BTreeSet<_>>().len();
    let (groups, members) = (all("messaging.consumer.group.name"), all("ktrace.consumer.member.id"));
    let again = polls.iter().filter(|span| span.attributes.contains_key("ktrace.delivery.count")).count();
    eprintln!(
        "{name}: {} deliveries, {} seen by members; {groups} groups, {members} members; {unnamed} unnamed; {again} redelivered",
        polls.len(),
        lines.iter().filter(|line| line.event == "delivered").count(),
    );
    ensure!(wrong.is_empty(), "{} counted wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    ensure!(groups == 3 && members >= 15 && again > 0);
    Ok(Some(Seen { polls: polls.len(), unnamed, untold }))
}

fn members(dir: &Path, name: &str, bootstrap: &str, more: &[&str]) -> Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/members.py");
    let mut command: Command = process::command(tools::python()?);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    command.args([
        "--bootstrap",
        bootstrap,
        "--topic",
        "orders",
        "--service",
        name,
        "--client-id",
        "members",
    ]);
    command.args(["--groups", "billing,audit,search", "--consumer-protocol", "search"]);
    command.arg("--truth").arg(dir.join(format!("{name}.truth"))).args(more);
    Process::start(name, &mut command, &dir.join(format!("{name}.log")))
}

fn read(dir: &Path, name: &str) -> Result<Vec<Line>> {
    let text = fs::read_to_string(dir.join(format!("{name}.truth")))?;
    // The last line of one that was killed may be cut.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// What a member was given and no span tells, and how many spans name no member.
fn named(polls: &[&Span], lines: &[Line]) -> (Vec<String>, usize) {
    let mut told = BTreeSet::new();
    let mut unnamed = 0;
    for span in polls {
        let (group, member) =
            (span.text("messaging.consumer.group.name"), span.text("ktrace.consumer.member.id"));
        match (group, member, span.place()) {
            (Some(group), Some(member), Some(place)) => {
                told.insert((group, member, place.partition, place.offset));
            }
            _ => unnamed += 1,
        }
    }
    let mut untold = Vec::new();
    for line in lines.iter().filter(|line| line.event == "delivered") {
        let (Some(member), Some(partition), Some(offset)) = (&line.member, line.partition, line.offset)
        else {
            continue;
        };
        if !told.contains(&(&*line.group, &**member, partition, offset)) {
            untold.push(format!("{line:?}"));
        }
    }
    (untold, unnamed)
}

/// Spans whose count is not that of the group's deliveries of the message so far.
fn counted(polls: &[&Span]) -> Vec<String> {
    let mut times: BTreeMap<_, i64> = BTreeMap::new();
    let mut in_order = polls.to_vec();
    in_order.sort_by_key(|span| span.end_unix_nanos);
    let mut wrong = Vec::new();
    for span in in_order {
        if span.text("messaging.consumer.group.name").is_none() {
            continue;
        }
        let times = times.entry((span.text("messaging.consumer.group.name"), span.place())).or_default();
        *times += 1;
        let told =
            span.attributes.get("ktrace.delivery.count").and_then(serde_json::Value::as_i64).unwrap_or(1);
        if told != *times {
            wrong.push(format!("{told} and not {times}: {span:?}"));
        }
    }
    wrong
}
