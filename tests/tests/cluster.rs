//! A cluster of three brokers whose partitions move from one to another, by election, as brokers
//! end and as they come back, while messages are written and read: who is refused tries again
//! elsewhere, and that is one message. Then its topic is deleted and created anew under the same
//! name, while a producer writes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::agent::Agent;
use harness::check::check;
use harness::clients::{Client, Consume, Library, Produce};
use harness::cluster::Cluster;
use harness::compare::compare;
use harness::need;
use harness::process::deadline;
use harness::refused::{self, ByPartition};
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::{Line, Truth};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 6;
/// A producer sends until it is stopped.
const ENDLESS: u32 = 1 << 30;

/// Each message is a batch. Java's idempotent producer may come to a state where it sends a message
/// again and again in vain, as one before that, refused too, is not sent again: it gives up before
/// the agent does.
const JAVA: &str = "batch.size=0,delivery.timeout.ms=20000,request.timeout.ms=15000";

/// Library, service, settings. The last is not idempotent.
const PRODUCERS: [(Library, &str, &str); 3] = [
    (Library::Java, "out-java", JAVA),
    (Library::Python, "out-python", "debug=msg"),
    (Library::Python, "out-plain", "debug=msg,enable.idempotence=false"),
];

/// Library, service, group.
const CONSUMERS: [(Library, &str, &str); 3] = [
    (Library::Java, "billing-1", "billing"),
    (Library::Java, "billing-2", "billing"),
    (Library::Python, "audit", "audit"),
];

/// Before and after the topic is another.
#[derive(Default)]
struct Generation {
    truth: Truth,
    spans: Vec<Span>,
    /// Of messages that their producer has given up.
    failed: Vec<Span>,
}

#[test]
fn what_moves_from_broker_to_broker() -> Result<()> {
    if !need::live("cluster", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let mut cluster = Cluster::start(dir)?;
    cluster.create_topics(PARTITIONS, &[TOPIC])?;
    let bootstrap = cluster.bootstrap();
    let observe = |side| Agent::observe(dir, side, cluster.ports(), &["--keys", "--side", side]);
    let (mut agent, of_both, of_brokers) = (observe("client")?, observe("both")?, observe("broker")?);

    let (mut first, mut second) = (Generation::default(), Generation::default());
    let consumers = consume(dir, &bootstrap)?;
    let producers = PRODUCERS
        .iter()
        .map(|&(library, service, settings)| {
            let new = Produce::new(library, &bootstrap, TOPIC, service);
            Produce { count: ENDLESS, interval_ms: 10, ..new }.start_with(dir, &["--set", settings])
        })
        .collect::<Result<Vec<Client>>>()?;
    for (_, service, _) in PRODUCERS {
        agent.wait_for_sends(service, 100)?;
    }
    move_about(&mut cluster, dir)?;
    producers.into_iter().try_for_each(|producer| producer.stop(&mut first.truth))?;
    let mut refusals = refusals(dir)?;
    finish(dir, consumers, &mut first.truth)?;

    let late = Produce::new(Library::Java, &bootstrap, TOPIC, "late");
    let late = Produce { count: ENDLESS, interval_ms: 10, ..late }.start_with(dir, &["--set", JAVA])?;
    agent.wait_for_sends("late", 100)?;
    cluster.create_topics(PARTITIONS, &[TOPIC])?;
    let by_then = agent.so_far()?.iter().filter(|span| span.service() == "late").count();
    agent.wait_for_sends("late", by_then + 200)?;
    let mut over_both = Truth::default();
    late.stop(&mut over_both)?;
    refusals.insert("late", refused::java(&fs::read_to_string(dir.join("late.log"))?)?);
    divide(over_both, &mut first.truth, &mut second.truth);
    let has_late = |of: &Generation| of.truth.sent.iter().any(|line| line.service == "late");
    ensure!(has_late(&first) && has_late(&second), "it did not write to both");
    let latest = Produce::new(Library::Python, &bootstrap, TOPIC, "latest");
    Produce { count: 200, interval_ms: 2, ..latest }.run(dir, &mut second.truth)?;
    finish(dir, consume(dir, &bootstrap)?, &mut second.truth)?;

    let hops = [&first, &second].map(|of| of.truth.sent.len() + of.truth.received.len());
    agent.wait_for_hops(hops.iter().sum())?;
    drop(cluster);
    let [ended, at_both, at_brokers] = [agent.stop()?, of_both.stop()?, of_brokers.stop()?];
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    for (at, of) in [("both ends", &at_both), ("the brokers' ends", &at_brokers)] {
        // What a broker had begun when it ended has no answer, and is counted.
        let begun = of.summary["lost"]["unanswered"].as_u64().unwrap_or_default();
        eprintln!("at {at}: {begun} requests without an answer");
        ensure!(of.lost() == begun, "lost at {at}: {}", of.summary["lost"]);
    }
    the_same(&ended.spans, &at_both.spans, &[]).context("at both ends")?;
    the_same(&ended.spans, &at_brokers.spans, &["client.address", "client.port", "ktrace.side"])
        .context("at the brokers' ends")?;
    spans_of(ended.spans, &mut first, &mut second)?;
    for (name, generation) in [("first", &first), ("second", &second)] {
        judge(name, generation).with_context(|| format!("of the {name} topic"))?;
    }
    let traces = |of: &Generation| of.spans.iter().map(|span| span.trace_id.clone()).collect::<BTreeSet<_>>();
    ensure!(traces(&first).is_disjoint(&traces(&second)), "one trace has messages of both topics");
    let all: Vec<_> = first.spans.iter().chain(&first.failed).chain(&second.spans).collect();
    refusals.iter().try_for_each(|(service, refused)| refused::check(service, refused, &all))
}

/// Other ends of the same connections give the same spans, but for what is known there alone.
fn the_same(spans: &[Span], others: &[Span], beside: &[&str]) -> Result<()> {
    let without = |spans: &[Span]| -> Vec<Span> {
        let mut spans = spans.to_vec();
        spans.iter_mut().for_each(|span| span.attributes.retain(|name, _| !beside.contains(&&**name)));
        spans
    };
    let differences = compare(&without(spans), &without(others));
    ensure!(differences.is_none(), "{differences}");
    Ok(())
}

fn consume(dir: &Path, bootstrap: &str) -> Result<Vec<Client>> {
    let consumers = CONSUMERS.iter().map(|&(library, service, group)| {
        let expect = i64::MAX as usize;
        Consume { library, bootstrap, topics: &[TOPIC], service, group, expect }.start(dir)
    });
    consumers.collect()
}

/// Partitions move, in each way that there is, and on until a broker has refused something to each
/// producer: whether it still takes another broker for the leader when a partition has moved is a
/// matter of chance.
fn move_about(cluster: &mut Cluster, dir: &Path) -> Result<()> {
    type Step = fn(&mut Cluster) -> Result<()>;
    let mut steps: Vec<(&str, Step)> = vec![
        ("leaders move", |cluster| cluster.move_leaders(TOPIC, 1)),
        ("leaders move", |cluster| cluster.move_leaders(TOPIC, 2)),
        ("a broker ends", |cluster| cluster.stop(1)),
        ("it comes back", |cluster| cluster.start_again(1)),
        ("leaders move", |cluster| cluster.move_leaders(TOPIC, 0)),
    ];
    if need::is_full() {
        let killed: [(&str, Step); 3] = [
            ("a broker is killed", |cluster| cluster.kill(2)),
            ("it comes back", |cluster| cluster.start_again(2)),
            ("leaders move", |cluster| cluster.move_leaders(TOPIC, 1)),
        ];
        steps.extend(killed);
    }
    let since = Instant::now();
    let deadline = deadline(Duration::from_secs(120));
    let rounds = if need::is_full() { 4 } else { 1 };
    for round in 1.. {
        for (what, step) in &steps {
            step(cluster).context(*what)?;
            eprintln!("{:.1} s: {what}", since.elapsed().as_secs_f32());
            std::thread::sleep(Duration::from_secs(1));
        }
        let refusals = refusals(dir)?;
        let never = refusals.iter().find(|(_, refused)| !refused.values().any(|of| of.by_broker > 0));
        match never {
            None if round >= rounds => break,
            Some((service, _)) => ensure!(Instant::now() < deadline, "{service} was never refused"),
            None => {}
        }
    }
    Ok(())
}

fn refusals(dir: &Path) -> Result<BTreeMap<&'static str, ByPartition>> {
    PRODUCERS
        .iter()
        .map(|&(library, service, _)| {
            let log = fs::read_to_string(dir.join(format!("{service}.log")))?;
            // the last line may be in the making
            let whole = &log[..log.rfind('\n').map_or(0, |at| at + 1)];
            let refused =
                if library == Library::Java { refused::java(whole) } else { refused::librdkafka(whole) }?;
            Ok((service, refused))
        })
        .collect()
}

/// Waits until each group has got all that was sent, and ends the consumers.
fn finish(dir: &Path, consumers: Vec<Client>, truth: &mut Truth) -> Result<()> {
    let groups: BTreeSet<_> = CONSUMERS.iter().map(|(.., group)| *group).collect();
    let sent = keys(&truth.sent);
    let missing = |group| -> Result<usize> {
        let mut got = Truth::default();
        for (_, service, _) in CONSUMERS.iter().filter(|(.., of)| *of == group) {
            let log = dir.join(format!("{service}.truth"));
            let text = fs::read_to_string(&log).unwrap_or_default();
            let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            for line in whole.lines() {
                got.add(serde_json::from_str(line).with_context(|| format!("{service}: {line}"))?);
            }
        }
        Ok(sent.difference(&keys(&got.received)).count())
    };
    let deadline = deadline(Duration::from_secs(60));
    for group in groups {
        while missing(group)? > 0 {
            ensure!(Instant::now() < deadline, "{group} still lacks {} messages", missing(group)?);
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    consumers.into_iter().try_for_each(|consumer| consumer.stop(truth))
}

/// What one producer sent before its topic was another, and after: from there on offsets begin
/// anew.
fn divide(over_both: Truth, first: &mut Truth, second: &mut Truth) {
    let place = |line: &Line| (line.partition.unwrap_or(-1), line.offset.unwrap_or(-1));
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for (partition, offset) in first.sent.iter().map(place) {
        let end = ends.entry(partition).or_insert(offset);
        *end = offset.max(*end);
    }
    for line in over_both.sent {
        let (partition, offset) = place(&line);
        let end = ends.entry(partition).or_insert(i64::MAX);
        if offset > *end {
            *end = offset;
            first.add(line);
        } else {
            *end = i64::MAX;
            second.add(line);
        }
    }
    first.errors.extend(over_both.errors);
}

/// Gives each generation its spans, by the messages' keys, and looks for spans of what was never
/// done.
fn spans_of(spans: Vec<Span>, first: &mut Generation, second: &mut Generation) -> Result<()> {
    let sent = &keys(&first.truth.sent) | &keys(&second.truth.sent);
    // what a producer has given up may have come all the same
    let [of_first, of_second] = [&first.truth, &second.truth].map(|of| &keys(&of.sent) | &keys(&of.received));
    ensure!(of_first.is_disjoint(&of_second));
    let mut commits = 0;
    for span in spans {
        if span.operation() == "commit" {
            let who = CONSUMERS.iter().find(|(_, service, _)| *service == span.service());
            let group = who.map(|(.., group)| *group);
            ensure!(group.is_some() && span.text("messaging.consumer.group.name") == group, "{span:?}");
            commits += 1;
            continue;
        }
        let key = key(&span);
        if span.operation() == "send" && span.status == "error" {
            ensure!(key.starts_with(span.service()) && span.place().is_none(), "{span:?}");
            ensure!(!sent.contains(key), "its producer says that it was sent: {span:?}");
            first.failed.push(span);
        } else if of_first.contains(key) {
            first.spans.push(span);
        } else {
            ensure!(of_second.contains(key), "nobody sent that: {span:?}");
            second.spans.push(span);
        }
    }
    eprintln!("{commits} commits");
    Ok(())
}

fn keys(lines: &[Line]) -> BTreeSet<String> {
    lines.iter().filter_map(|line| line.key.clone()).collect()
}

fn key(span: &Span) -> &str {
    span.text("messaging.kafka.message.key").unwrap_or_default()
}

/// Each hop is shown, and truly; what was delivered again is shown as such.
fn judge(name: &str, of: &Generation) -> Result<()> {
    for service in PRODUCERS.map(|(_, service, _)| service).into_iter().chain(["late"]) {
        let given_up = of.truth.errors.iter().filter(|line| line.service == service).count();
        let told: BTreeSet<_> = of.failed.iter().filter(|span| span.service() == service).map(key).collect();
        // it may have given up some that it had never sent
        ensure!(told.len() <= given_up, "{service} has given up {given_up} messages, not {told:?}");
        if given_up > 0 {
            eprintln!("{service} gave up {given_up} messages, {} of them are told", told.len());
        }
    }
    let report = check(&of.truth, &of.spans);
    eprintln!("{name}: {report}");
    ensure!(report.is_true() && report.sent.is_full() && report.received.is_full(), "the spans do not hold");
    let mut hops: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
    for span in &of.spans {
        let group = span.text("messaging.consumer.group.name");
        if span.operation() == "send" {
            ensure!(group.is_none() && span.status == "unset", "{span:?}");
            ensure!(span.text("ktrace.status") == Some("acked"), "{span:?}");
        } else {
            let who = CONSUMERS.iter().find(|(_, service, _)| *service == span.service());
            ensure!(group.is_some() && group == who.map(|(.., group)| *group), "not its group: {span:?}");
        }
        hops.entry((span.operation(), group, span.place())).or_default().push(span);
    }
    let again = hops.values().filter(|spans| spans.len() > 1).count();
    for ((operation, ..), spans) in &hops {
        ensure!(*operation == "poll" || spans.len() == 1, "sent twice: {spans:?}");
        let count = |span: &&Span| {
            span.attributes.get("ktrace.delivery.count").map_or(Some(1), serde_json::Value::as_u64)
        };
        let counts: BTreeSet<_> = spans.iter().map(count).collect();
        ensure!(counts.into_iter().eq((1..).map(Some).take(spans.len())), "deliveries miscounted: {spans:?}");
    }
    eprintln!("{name}: {again} messages came to a group again");
    Ok(())
}
