//! Kafka inside TLS, with keys from the memory of the processes: every client library over TLS 1.3
//! and 1.2, each message seen once and shown truly, by the same span ids at both ends.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::agent::{Agent, Ended};
use harness::broker::Settings;
use harness::check::check;
use harness::clients::{Client, Library, Produce};
use harness::need;
use harness::process::deadline;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::tls::{Listener, Mechanism, PROGRAMS, Party, Server};
use harness::tools::{self, Jre};
use harness::truth::{Line, Place, Truth};

/// Messages of each client.
const EACH: u32 = 40;
/// Clients that run at once.
const AT_ONCE: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Each with a codec that it knows.
const LIBRARIES: [(Library, &str); 10] = [
    (Library::Java, "lz4"),
    (Library::JavaAgent, "none"),
    (Library::Python, "zstd"),
    (Library::KafkaPython, "gzip"),
    (Library::Aiokafka, "snappy"),
    (Library::Sarama, "zstd"),
    (Library::Kafkajs, "gzip"),
    (Library::Kcat, "lz4"),
    (Library::Rdkafka, "snappy"),
    (Library::Rustls, "none"),
];

/// Java asks for the names of topics that often: it sends their ids alone, and an agent that comes
/// later learns the names from it.
const NAMES: [&str; 2] = ["--metadata-max-age-ms", "1000"];

/// What one producer writes and one consumer of the same library reads.
struct Cell {
    party: Party,
    codec: &'static str,
}

#[test]
fn every_client_at_both_ends() -> Result<()> {
    if !need::live("clients over TLS", &[&PROGRAMS[..], &["node", "go"]].concat()) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, Listener::ALL)?;
    let cells = cells(&server)?;
    let topics: Vec<&str> = cells.iter().map(|cell| cell.party.name.as_str()).collect();
    server.broker.create_topics(2, &topics)?;
    let agents = ["client", "broker", "both"].map(|side| observe(&server, &scratch, side, &["--side", side]));
    let agents = agents.into_iter().collect::<Result<Vec<_>>>()?;
    let mut truth = Truth::default();
    for some in cells.chunks(AT_ONCE) {
        run(some, &mut truth, |cell| {
            let Cell { party, codec } = cell;
            party.produce(dir, &party.name, |what| Produce { count: EACH, codec, ..what })
        })?;
        run(some, &mut truth, |Cell { party, .. }| party.consume(dir, &[&party.name], EACH as usize))?;
    }
    truth.resolve();
    agree(&truth, cells.len() * EACH as usize)?;

    // all have ended, and said what they saw, before the first that failed is looked at
    let ended = agents.into_iter().zip(["client", "broker", "both"]);
    let ended: Vec<_> = ended.map(|(agent, side)| perfect(agent, side, &truth)).collect();
    let ended = ended.into_iter().collect::<Result<Vec<_>>>()?;
    let told: Vec<_> = ended.iter().map(|ended| hops(&ended.spans)).collect();
    let [client, broker, both] = [&told[0], &told[1], &told[2]];
    ensure!(ids(client) == ids(broker), "the two ends name spans differently");
    ensure!(ids(client) == ids(both), "both ends together name other spans");
    let mut times = BTreeMap::<_, u32>::new();
    for span in both {
        *times.entry((&span.trace_id, &span.span_id)).or_default() += 1;
    }
    ensure!(times.values().all(|times| *times == 1), "told twice");
    Ok(())
}

/// In the short form each library once, and each way of a listener; in the whole form each library
/// with TLS 1.3 and 1.2, client certificates and SASL, and Java of three versions.
fn cells(server: &Server) -> Result<Vec<Cell>> {
    const SOME: [Listener; 4] = [Listener::Tls13, Listener::Tls12, Listener::Sasl, Listener::Mutual];
    let mut cells = Vec::new();
    for (number, (library, codec)) in LIBRARIES.into_iter().enumerate() {
        let listeners = if need::is_full() {
            vec![SOME[0], SOME[1], SOME[2], SOME[3], Listener::Aes128]
        } else {
            vec![SOME[number % SOME.len()]]
        };
        for listener in listeners {
            let party = server.party(library, listener);
            // the client over rustls knows PLAIN alone; of the librdkafka that Debian's kcat has, the broker
            // refuses the proof
            let scram = listener == Listener::Sasl && !matches!(library, Library::Rustls | Library::Kcat);
            let how = Mechanism::ALL[number % Mechanism::ALL.len()];
            let party = if scram { party.with_sasl(how) } else { party };
            cells.push(Cell { party, codec });
        }
    }
    for (name, which) in [("java21", Jre::Java21), ("java25", Jre::Java25)] {
        for listener in if need::is_full() { &SOME[..2] } else { &SOME[..1] } {
            let java = tools::jre(which)?;
            let party = server.party(Library::Java, *listener).with(&["--java", &java.display().to_string()]);
            let party = party.named(&format!("{name}-{}", listener.name().to_lowercase()));
            cells.push(Cell { party, codec: "none" });
        }
    }
    if need::is_full() {
        cells.push(Cell { party: server.party(Library::RustlsAwsLc, Listener::Tls13), codec: "none" });
        cells.push(Cell { party: server.party(Library::RustlsAwsLc, Listener::Tls12), codec: "none" });
    }
    Ok(cells)
}

/// Connections that are older than the agent: from the first message that it shows, it shows all.
#[test]
fn connections_older_than_the_agent() -> Result<()> {
    if !need::live("older connections over TLS", &PROGRAMS) {
        return Ok(());
    }
    let age = Duration::from_secs(if need::is_full() { 60 } else { 5 });
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::Tls13, Listener::Tls12])?;
    // kafkajs sends all at once, and kcat what is in its file
    let steady = [
        Library::Java,
        Library::Python,
        Library::KafkaPython,
        Library::Aiokafka,
        Library::Sarama,
        Library::Rdkafka,
        Library::Rustls,
    ];
    let listeners =
        if need::is_full() { &[Listener::Tls13, Listener::Tls12][..] } else { &[Listener::Tls12][..] };
    let party = |library, listener| {
        let party = server.party(library, listener);
        if library == Library::Java { party.with(&NAMES) } else { party }
    };
    let parties: Vec<Party> =
        listeners.iter().flat_map(|listener| steady.map(|library| party(library, *listener))).collect();
    let topics: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
    server.broker.create_topics(1, &topics)?;
    // as long again for the agent to begin and to look
    let count = (age.as_millis() as u32 / 50) + 300;
    let started = parties
        .iter()
        .map(|party| party.produce(dir, &party.name, |what| Produce { count, interval_ms: 50, ..what }))
        .collect::<Result<Vec<_>>>()?;
    sleep(age);
    let mut agent = observe(&server, &scratch, "late", &[])?;
    for party in &parties {
        agent.wait_for_sends(&format!("{}-out", party.name), 20)?;
    }
    let mut truth = Truth::default();
    started.into_iter().try_for_each(|client| client.finish(PATIENCE, &mut truth))?;
    let last = |party: &Party| {
        let own = truth.sent.iter().filter(|line| line.topic == party.name);
        own.max_by_key(|line| line.offset).and_then(Line::place)
    };
    let last: Vec<Option<Place>> = parties.iter().map(last).collect();
    agent.wait_until("the last message of each", |spans| {
        let seen: Vec<Option<Place>> = spans.iter().map(Span::place).collect();
        last.iter().all(|place| seen.contains(place))
    })?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let seen: BTreeSet<Place> = ended.spans.iter().filter_map(Span::place).collect();
    let mut later = Truth::default();
    for party in &parties {
        let own = truth.sent.iter().filter(|line| line.topic == party.name);
        let mut own: Vec<Line> = own.cloned().collect();
        own.sort_by_key(|line| line.offset);
        let first = own.iter().position(|line| line.place().is_some_and(|place| seen.contains(&place)));
        let first = first.with_context(|| format!("nothing of {} was seen", party.name))?;
        eprintln!("{}: seen from message {first} of {} on", party.name, own.len());
        later.sent.extend(own.split_off(first));
    }
    let report = check(&later, &hops(&ended.spans));
    ensure!(report.is_perfect(), "{report}\n{}", ended.summary);
    Ok(())
}

/// The end of the broker alone, as where clients are on hosts without an agent: one process has the
/// keys of all its clients.
#[test]
fn a_crowd_at_the_brokers_end() -> Result<()> {
    if !need::live("a crowd over TLS", &PROGRAMS) {
        return Ok(());
    }
    let each = if need::is_full() { 10 } else { 2 };
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::Tls13, Listener::Tls12])?;
    let libraries =
        [Library::Python, Library::KafkaPython, Library::Sarama, Library::Rdkafka, Library::Rustls];
    let mut parties = Vec::new();
    for library in libraries {
        for number in 0..each {
            let listener = if number % 2 == 0 { Listener::Tls13 } else { Listener::Tls12 };
            parties.push(server.party(library, listener).named(&format!("{}-{number}", library.name())));
        }
    }
    let topics: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
    server.broker.create_topics(1, &topics)?;
    let agent = observe(&server, &scratch, "broker", &["--side", "broker"])?;
    let started = parties
        .iter()
        .map(|party| party.produce(dir, &party.name, |what| Produce { count: EACH, interval_ms: 20, ..what }))
        .collect::<Result<Vec<_>>>()?;
    let mut truth = Truth::default();
    started.into_iter().try_for_each(|client| client.finish(PATIENCE, &mut truth))?;
    ensure!(truth.sent.len() == parties.len() * EACH as usize && truth.errors.is_empty());
    perfect(agent, "broker", &truth)?;
    Ok(())
}

/// Programs that end at once: what is not read is counted.
#[test]
fn short_lived() -> Result<()> {
    if !need::live("short-lived clients over TLS", &PROGRAMS) {
        return Ok(());
    }
    let times = if need::is_full() { 100 } else { 20 };
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::Tls13])?;
    server.broker.create_topics(1, &["orders"])?;
    let agent = observe(&server, &scratch, "observe", &[])?;
    let mut truth = Truth::default();
    for number in 0..times {
        let party = server.party(Library::Kcat, Listener::Tls13).named(&format!("kcat-{number}"));
        party.produce(dir, "orders", |what| what)?.finish(PATIENCE, &mut truth)?;
    }
    // one that reads them says where they are
    let reader = server.party(Library::Python, Listener::Tls13);
    reader.consume(dir, &["orders"], times)?.finish(PATIENCE, &mut truth)?;
    truth.resolve();
    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    let report = check(&truth, &ended.spans);
    let counted: u64 =
        ["tls_ended", "tls_no_key", "tls_record"].iter().map(|reason| lost(&ended, reason)).sum();
    eprintln!("{} of {times} seen, {counted} counted: {}", report.sent.found, ended.summary["lost"]);
    ensure!(report.is_true() && report.repeated == 0, "{report}");
    ensure!(report.received.is_full(), "the one that lives was not read: {report}");
    let missed = (times - report.sent.found) as u64;
    ensure!(counted >= missed, "{missed} were missed, and {counted} counted: {}", ended.summary["lost"]);
    ensure!(report.sent.found * 100 >= times * 90, "{} of {times}", report.sent.found);
    Ok(())
}

/// Java with every collector, which move or map the heap in ways of their own.
#[test]
fn collectors_of_java() -> Result<()> {
    const COLLECTORS: [&str; 5] = [
        "-XX:+UseG1GC",
        "-XX:+UseZGC",
        "-XX:+UseShenandoahGC",
        "-XX:+UseParallelGC",
        "-XX:+UseG1GC -XX:+UseCompactObjectHeaders",
    ];
    if !need::is_full() {
        // the rows of each version in the matrix are of Serial
        return Ok(());
    }
    if !need::live("collectors over TLS", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let java25 = tools::jre(Jre::Java25)?.display().to_string();
    let settings = Settings { jvm: &harness::broker::AS_SHIPPED, ..Settings::default() };
    let server = Server::start_with(dir, [Listener::Tls13], settings)?;
    let mut parties = Vec::new();
    for (version, java) in [("17", "java"), ("25", java25.as_str())] {
        for (number, options) in COLLECTORS.into_iter().enumerate() {
            // compact headers came with 24
            if version == "17" && options.contains("Compact") {
                continue;
            }
            let options = format!("{options} -Xmx512m");
            let party = server.party(Library::Java, Listener::Tls13);
            let party = party.with(&["--java", java, "--jvm", &options]).with(&NAMES);
            parties.push(party.named(&format!("java{version}-{number}")));
        }
    }
    let topics: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
    server.broker.create_topics(1, &topics)?;
    let mut truth = Truth::default();
    for (number, party) in parties.iter().enumerate() {
        // the keys have been moved by a whole collection before the agent looks for them
        let client =
            party.produce(dir, &party.name, |what| Produce { count: 400, interval_ms: 20, ..what })?;
        sleep(Duration::from_secs(3));
        let collected = Command::new("jcmd").args([&client.pid().to_string(), "GC.run"]).status()?;
        ensure!(collected.success(), "{}: jcmd ended with {collected}", party.name);
        let mut agent = observe(&server, &scratch, &format!("collected-{number}"), &[])?;
        agent.wait_for_sends(&format!("{}-out", party.name), 20)?;
        client.finish(PATIENCE, &mut truth)?;
        let ended = agent.stop()?;
        let seen: BTreeSet<Place> = ended.spans.iter().filter_map(Span::place).collect();
        let own = truth.sent.iter().filter(|line| line.topic == party.name).cloned();
        let from = own.clone().position(|line| line.place().is_some_and(|place| seen.contains(&place)));
        let later = Truth { sent: own.skip(from.unwrap_or(0)).collect(), ..Truth::default() };
        let report = check(&later, &hops(&ended.spans));
        ensure!(report.is_perfect(), "{}: {report}\n{}", party.name, ended.summary);
    }
    Ok(())
}

/// An agent with keys from memory, at all listeners of the broker. Clients of a test live for a
/// second or two, so its searches do not wait for their share of the processor.
fn observe(server: &Server, scratch: &Scratch, name: &str, more: &[&str]) -> Result<Agent> {
    let arguments = [&["--tls", "memory", "--tls-cpu", "100%"], more].concat();
    Agent::observe(scratch.path(), name, server.listeners.ports(), &arguments)
}

fn run(cells: &[Cell], truth: &mut Truth, start: impl Fn(&Cell) -> Result<Client>) -> Result<()> {
    let started = cells.iter().map(start).collect::<Result<Vec<_>>>()?;
    started.into_iter().try_for_each(|client| client.finish(PATIENCE, truth))
}

/// The clients' logs are a truth.
fn agree(truth: &Truth, sent: usize) -> Result<()> {
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);
    let wrong = truth.disagreements();
    ensure!(wrong.is_empty(), "{} disagreements, the first: {}", wrong.len(), wrong[0]);
    ensure!((truth.sent.len(), truth.received.len()) == (sent, sent), "{} were sent", truth.sent.len());
    Ok(())
}

/// It has seen all, truly, and lost nothing.
fn perfect(agent: Agent, side: &str, truth: &Truth) -> Result<Ended> {
    let deadline = deadline(Duration::from_secs(10));
    let all = truth.sent.len() + truth.received.len();
    while Instant::now() < deadline && hops(&agent.so_far()?).len() < all {
        sleep(Duration::from_millis(200));
    }
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{side}: {}", ended.stderr);
    let report = check(truth, &ended.spans);
    eprintln!("{side}: {report}");
    if !report.is_perfect() || ended.lost() > 0 {
        eprintln!("summary {}\n{}", ended.summary, ended.stderr);
    }
    ensure!(report.is_perfect(), "{side}: the spans do not hold");
    // A client's first connection may last for a few milliseconds and carry no message: there its keys
    // may be gone before they are found.
    let ended_at_once =
        ["tls_ended", "tls_no_key", "tls_record", "gap", "gap_bytes", "response_without_request"];
    let of_broker = side == "broker";
    let others = ended.summary["lost"].as_object().into_iter().flatten();
    let others: Vec<_> =
        others.filter(|(reason, _)| of_broker || !ended_at_once.contains(&reason.as_str())).collect();
    ensure!(others.is_empty(), "{side} lost: {others:?}");
    Ok(ended)
}

fn hops(spans: &[Span]) -> Vec<Span> {
    spans.iter().filter(|span| matches!(span.operation(), "send" | "poll")).cloned().collect()
}

fn ids(spans: &[Span]) -> BTreeSet<(&str, &str, Option<&str>, &str)> {
    spans
        .iter()
        .map(|span| (&*span.trace_id, &*span.span_id, span.parent_span_id.as_deref(), &*span.name))
        .collect()
}

/// How often it was lost for this reason, whoever's it was.
fn lost(ended: &Ended, reason: &str) -> u64 {
    match &ended.summary["lost"][reason] {
        serde_json::Value::Object(counts) => counts.values().filter_map(serde_json::Value::as_u64).sum(),
        count => count.as_u64().unwrap_or_default(),
    }
}
