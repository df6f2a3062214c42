//! The agent comes and goes in the middle of two hundred busy connections: it is stopped, started
//! and killed again and again. What it shows is true, it is in step with each connection at once,
//! clients do not notice, and nothing stays in the kernel.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::clients::{Client, Consume, Library, Produce};
use harness::crowd::{self, Crowd, Timed, now_us};
use harness::kernel_objects::{self, Objects};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::{Event, Truth};

const PRODUCERS: u32 = 100;
const CONSUMERS: u32 = 100;
/// Times that the agent is started; every second time it is killed.
fn starts() -> usize {
    if need::is_full() { 50 } else { 10 }
}
/// How long an agent watches, and how long there is none between two groups of starts.
const WATCHES: Duration = Duration::from_millis(1000);
/// Starts between two pauses, in which clients are as they are without an agent.
const GROUP: usize = 5;
/// Beside the crowd: clients that name topics by id, and ask for the names once a second.
const NAMES: [&str; 2] = ["--metadata-max-age-ms", "1000"];

/// A life of the agent.
struct Life {
    killed: bool,
    /// Microseconds since 1970: when it was ready, and when it was asked to end.
    from_us: u64,
    to_us: u64,
    spans: Vec<Span>,
}

#[test]
fn in_the_middle_of_busy_connections() -> Result<()> {
    if !need::live("restarts", &["java", "go", "bpftool"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(50, &["busy"])?;
    broker.create_topics(3, &["named"])?;
    let before: Objects = kernel_objects::all()?.into_iter().map(|(kind, id, _)| (kind, id)).collect();
    let settings = crowd::Settings {
        bootstrap: &bootstrap,
        topic: "busy",
        partitions: 50,
        producers: PRODUCERS,
        consumers: CONSUMERS,
        interval_ms: 250,
    };
    let crowd = Crowd::start(dir, &settings)?;
    let (reader, writer) = by_topic_id(dir, &bootstrap)?;

    // the broker and the clients get faster in their first seconds, which would count for the first
    // pause
    sleep(5 * WATCHES);
    let (mut lives, mut pauses) = (Vec::new(), Vec::new());
    for number in 0..starts() {
        if number % GROUP == 0 {
            let since = now_us();
            sleep(WATCHES * GROUP as u32);
            pauses.push((since, now_us()));
        }
        let life = live(dir, number, port)?;
        lives.push(life);
    }
    let left: Objects = kernel_objects::all()?
        .into_iter()
        .map(|(kind, id, _)| (kind, id))
        .filter(|object| !before.contains(object))
        .collect();
    kernel_objects::wait_until_gone(&left)?;

    // the last one stays to the end, so that all who wait for a topic's name get it
    let mut agent = Agent::observe(dir, "last", port, &[])?;
    let from_us = now_us();
    sleep(3 * WATCHES);
    agent.wait_until("sends, and a consumer with several messages", are_enough)?;
    let mut truth = crowd.stop()?;
    let mut by_id = Truth::default();
    writer.stop(&mut by_id)?;
    reader.stop(&mut by_id)?;
    for service in ["writer", "reader"] {
        truth.extend(crowd::timed(&dir.join(format!("{service}.truth")))?);
    }
    // what consumers had got before the end has come by then; a hop may be held for its topic's name
    let to_us = now_us();
    let watched = Life { killed: false, from_us, to_us, spans: vec![] };
    agent.wait_for_hops(within(&truth, &watched).count())?;
    let ended = agent.stop()?;
    let connections = ended.summary["connections"].as_u64().unwrap_or_default();
    ensure!(
        connections >= u64::from(PRODUCERS + CONSUMERS),
        "only {connections} connections: {}",
        ended.summary
    );
    lives.push(Life { killed: false, from_us, to_us, spans: ended.spans });

    let errors: Vec<_> = truth.iter().filter(|timed| timed.line.event == Event::Error).collect();
    ensure!(errors.is_empty(), "clients saw errors: {errors:?}");
    tell_latencies(&truth, &pauses);
    judge(&truth, &lives)
}

/// A producer and a consumer of Java.
fn by_topic_id(dir: &Path, bootstrap: &str) -> Result<(Client, Client)> {
    let reader = Consume {
        library: Library::Java,
        bootstrap,
        topics: &["named"],
        service: "reader",
        group: "reader",
        expect: usize::MAX >> 1,
    }
    .start_with(dir, &NAMES)?;
    let new = Produce::new(Library::Java, bootstrap, "named", "writer");
    let writer = Produce { count: 1 << 30, interval_ms: 20, ..new }.start_with(dir, &NAMES)?;
    Ok((reader, writer))
}

/// Starts an agent, lets it watch, and ends it.
fn live(dir: &Path, number: usize, port: u16) -> Result<Life> {
    let mut agent = Agent::observe(dir, &format!("agent-{number}"), port, &[])?;
    let from_us = now_us();
    let objects = kernel_objects::of_process(agent.pid())?;
    let kinds: BTreeSet<&str> = objects.iter().map(|(kind, _)| *kind).collect();
    ensure!(
        kinds.len() == 3,
        "the agent holds no programs, maps or links, so the test is blind: {objects:?}"
    );
    sleep(WATCHES);
    agent.wait_until("sends, and a consumer with several messages", are_enough)?;
    let to_us = now_us();
    let killed = number % 2 == 1;
    let spans = if killed {
        agent.kill()?;
        agent.so_far()?
    } else {
        let ended = agent.stop()?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        ended.spans
    };
    kernel_objects::wait_until_gone(&objects)?;
    Ok(Life { killed, from_us, to_us, spans })
}

/// Whether it is certain that an agent which has shown these was to see messages sent, and messages
/// delivered: see [`within`].
fn are_enough(spans: &[Span]) -> bool {
    let mut polls: HashMap<_, usize> = HashMap::new();
    let mut sends = 0;
    for span in spans.iter().filter(|span| span.service() == crowd::SERVICE) {
        match span.operation() {
            "send" => sends += 1,
            "poll" => *polls.entry(span.text("messaging.client.id")).or_default() += 1,
            _ => {}
        }
    }
    sends >= 100 && polls.values().any(|count| *count >= 4)
}

/// How long a send took, with an agent that comes and goes and without. It is printed, not judged:
/// what else runs on the machine is in both.
fn tell_latencies(truth: &[Timed], pauses: &[(u64, u64)]) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let until =
        pauses.last().map_or(0, |pause| pause.1) + pauses.first().map_or(0, |pause| pause.1 - pause.0);
    for timed in truth.iter().filter(|timed| timed.line.event == Event::Sent && timed.end_us > 0) {
        let (start, took) = (timed.start_us, timed.end_us.saturating_sub(timed.start_us));
        if pauses.iter().any(|(from, to)| (*from..*to).contains(&start)) {
            without.push(took);
        } else if (pauses[0].0..until).contains(&start) {
            with.push(took);
        }
    }
    for (what, took) in [("with restarts", &mut with), ("without agent", &mut without)] {
        took.sort_unstable();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
        let long = took.iter().filter(|took| **took > 10_000).count();
        eprintln!(
            "{what}: {} sends, median {} us, p99 {} us, p99.9 {} us, longest {} us, {long} over 10 ms",
            took.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            took.last().copied().unwrap_or_default(),
        );
    }
}

/// What each agent showed is true; and those that ended well have shown all of which both request
/// and response passed while they watched.
fn judge(truth: &[Timed], lives: &[Life]) -> Result<()> {
    let whole = as_truth(truth.iter());
    let mut found = [0, 0];
    for (number, life) in lives.iter().enumerate() {
        // one that ends before the name of a topic has passed shows its id instead
        let (named, unnamed): (Vec<_>, Vec<_>) =
            life.spans.iter().cloned().partition(|span| span.topic().is_some());
        let report = check(&whole, &named);
        ensure!(report.is_true() && report.repeated == 0, "start {number}: {report}");
        if life.killed {
            ensure!(report.sent.found > 0 && report.received.found > 0, "start {number}: {report}");
            continue;
        }
        let seen = as_truth(within(truth, life));
        let report = check(&seen, &named);
        let missed = report.missed.iter().filter(|missed| !missed.contains("named[")).count();
        ensure!(
            missed == 0 && report.received.expected > 0 && report.sent.expected > 0,
            "start {number}: {} without topic; {report}",
            unnamed.len()
        );
        if number + 1 == lives.len() {
            ensure!(unnamed.is_empty() && report.missed.is_empty(), "the last: {report}");
        }
        for (sum, recall) in found.iter_mut().zip([report.sent, report.received]) {
            *sum += recall.found;
        }
    }
    eprintln!(
        "{} starts: {} sent and {} delivered were to be seen, and all were",
        lives.len(),
        found[0],
        found[1]
    );
    Ok(())
}

fn as_truth<'a>(lines: impl Iterator<Item = &'a Timed>) -> Truth {
    let mut truth = Truth::default();
    lines.for_each(|timed| truth.add(timed.line.clone()));
    truth
}

/// The sends that were begun and done while the agent watched. And the deliveries that it must have
/// seen: a consumer's first one after the start may answer a request of before it; but what was
/// sent after that first one had come was asked for while the agent watched.
fn within<'a>(truth: &'a [Timed], life: &Life) -> impl Iterator<Item = &'a Timed> {
    let (from, to) = (life.from_us, life.to_us);
    let sent = |timed: &Timed| {
        timed.line.event == Event::Sent && timed.start_us >= from && timed.end_us < to && timed.start_us < to
    };
    let begun: HashMap<_, _> = truth
        .iter()
        .filter(|timed| timed.line.event == Event::Sent)
        .filter_map(|timed| Some((timed.line.place()?, timed.start_us)))
        .collect();
    let mut first: HashMap<&str, u64> = HashMap::new();
    for timed in truth.iter().filter(|timed| timed.line.event == Event::Received && timed.end_us >= from) {
        let at = first.entry(timed.line.client_id.as_str()).or_insert(timed.end_us);
        *at = (*at).min(timed.end_us);
    }
    truth
        .iter()
        .filter(move |timed| match timed.line.event {
            Event::Sent => sent(timed),
            Event::Received => {
                timed.end_us < to
                    && first.get(timed.line.client_id.as_str()).is_some_and(|first| {
                        timed
                            .line
                            .place()
                            .and_then(|place| begun.get(&place))
                            .is_some_and(|begun| begun > first)
                    })
            }
            Event::Error | Event::Acknowledged | Event::Committed | Event::Aborted => false,
        })
        .collect::<Vec<_>>()
        .into_iter()
}
