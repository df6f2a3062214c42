//! Three groups of three members and more, several of each in one process: while members come, go and are killed, each delivery is
//! named by its group and its member, and told how often its group got the message. Where all of them have one client id, too, none
//! is named wrongly, and few are not named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Library, Produce, python};
use harness::need::{self, Need};
use harness::ports;
use harness::process::Process;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;
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
    // Who came at the same time and reads the same cannot be told apart by what is seen: such spans name nobody.
    ensure!(seen.wrong == 0 && seen.unnamed * 4 < seen.polls, "{seen:?}");
    Ok(())
}

/// What the agent told of it.
#[derive(Debug)]
struct Seen {
    polls: usize,
    unnamed: usize,
    /// What members got and no span tells.
    untold: Vec<String>,
    /// Of these, those for which there is no span that names nobody: another member is named in their place, or there is none.
    wrong: usize,
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
    let named = named(&polls, &lines);
    let counts = counted(&polls);
    let all = |attribute| polls.iter().filter_map(|span| span.text(attribute)).collect::<BTreeSet<_>>().len();
    let (groups, members) = (all("messaging.consumer.group.name"), all("ktrace.consumer.member.id"));
    let again = polls.iter().filter(|span| span.attributes.contains_key("ktrace.delivery.count")).count();
    eprintln!(
        "{name}: {} deliveries, {} seen by members; {groups} groups, {members} members; {} unnamed; {again} redelivered",
        polls.len(),
        lines.iter().filter(|line| line.event == "delivered").count(),
        named.unnamed
    );
    ensure!(counts.is_empty(), "{} counted wrong: {:?}", counts.len(), &counts[..counts.len().min(5)]);
    ensure!(groups == 3 && members >= 15 && again > 0);
    Ok(Some(named))
}

fn members(dir: &Path, name: &str, bootstrap: &str, more: &[&str]) -> Result<Process> {
    let mut command = python::script("members")?;
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

/// Holds the spans against what the members got.
fn named(polls: &[&Span], lines: &[Line]) -> Seen {
    let mut told = BTreeSet::new();
    // By message: how many spans of it name nobody.
    let mut nobodys: BTreeMap<(i32, i64), usize> = BTreeMap::new();
    for span in polls {
        let Some(place) = span.place() else { continue };
        let (group, member) =
            (span.text("messaging.consumer.group.name"), span.text("ktrace.consumer.member.id"));
        match (group, member) {
            (Some(group), Some(member)) => {
                told.insert((group, member, place.partition, place.offset));
            }
            _ => *nobodys.entry((place.partition, place.offset)).or_default() += 1,
        }
    }
    let mut seen = Seen { polls: polls.len(), unnamed: nobodys.values().sum(), untold: Vec::new(), wrong: 0 };
    for line in lines.iter().filter(|line| line.event == "delivered") {
        let (Some(member), Some(partition), Some(offset)) = (&line.member, line.partition, line.offset)
        else {
            continue;
        };
        if told.contains(&(&*line.group, &**member, partition, offset)) {
            continue;
        }
        seen.untold.push(format!("{line:?}"));
        match nobodys.get_mut(&(partition, offset)).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => seen.wrong += 1,
        }
    }
    seen
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
