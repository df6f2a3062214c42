//! Three groups of three members and more, several of each in one process: while members come, go
//! and are killed, each delivery is named by its group and its member, with how often its group got
//! the message. Where all of them have one client id, too, none is named wrongly, and few are not
//! named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Library, Produce, python};
use harness::need;
use harness::ports;
use harness::process::{Process, deadline};
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;
use serde::Deserialize;

/// Each kind of members is there this number of times.
const GROUPS: usize = 3;

/// KIP-848 members that were killed keep what they are assigned for the broker's time, which is 45
/// s else.
const QUICK_SESSIONS: &str = "\
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000
";

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
    // Who comes at the same time and reads the same cannot be distinguished by what is seen: such spans
    // name no member. So that they are few, the groups begin one after the other.
    let Some(seen) = storm("groups of one client id", &["--in-turn", "true"])? else { return Ok(()) };
    ensure!(seen.wrong == 0 && seen.unnamed * 4 < seen.polls, "{seen:?}");
    Ok(())
}

/// What the agent showed of it.
#[derive(Debug)]
struct Seen {
    polls: usize,
    unnamed: usize,
    /// What members got and no span shows.
    untold: Vec<String>,
    /// Of these, those for which there is no span without a member: another member is named in
    /// their place, or there is none.
    wrong: usize,
}

fn storm(name: &str, more: &[&str]) -> Result<Option<Seen>> {
    if !need::live(name, &["java"]) {
        return Ok(None);
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let properties = QUICK_SESSIONS.to_owned();
    let broker = Broker::start(dir, &Settings { port, properties, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(6, &["orders"])?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    let producer = Produce::new(Library::Python, &bootstrap, "orders", "orders-out");
    let producer = Produce { count: 1 << 30, interval_ms: 5, ..producer }.start(dir)?;
    // Two groups by the classic protocol and one by KIP-848's.
    let start = |name: &str, own: &[&str]| members(dir, name, &bootstrap, &[own, more].concat());
    let mut steady = start("steady", &["--leavers", "1", "--joiners", "2"])?;
    let mut killed = start("killed", &["--members", "2"])?;
    have_got(dir, "killed", GROUPS * 2)?;
    killed.kill()?;
    let mut late = start("late", &["--members", "2"])?;
    have_got(dir, "late", GROUPS * 2)?;
    have_got(dir, "steady", GROUPS * 3)?;
    producer.stop(&mut Truth::default())?;
    for members in [&mut steady, &mut late] {
        let status = members.terminate(Duration::from_secs(60))?;
        ensure!(status.success(), "{status}: {}", members.said());
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
    ensure!(
        groups == 3 && members >= 15 && again > 0,
        "{groups} groups, {members} members, {again} redelivered"
    );
    Ok(Some(named))
}

/// Waits until this number of members that run under this name have got a message.
fn have_got(dir: &Path, name: &str, members: usize) -> Result<()> {
    let deadline = deadline(Duration::from_secs(60));
    loop {
        let lines = if dir.join(format!("{name}.truth")).exists() { read(dir, name)? } else { vec![] };
        let got: BTreeSet<_> = lines
            .iter()
            .filter(|line| line.event == "delivered")
            .filter_map(|line| Some((&line.group, line.member.as_ref()?)))
            .collect();
        if got.len() >= members {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "of {name}, {} of {members} members have got any", got.len());
        std::thread::sleep(Duration::from_millis(200));
    }
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
    // By message: how many spans of it name no member.
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
