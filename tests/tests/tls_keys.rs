//! Kafka inside TLS where keys change, are of a kind that memory does not show, come from a key
//! log, or are not Kafka's at all.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::{Agent, Ended};
use harness::broker::Settings;
use harness::check::check;
use harness::clients::{Library, Produce};
use harness::need;
use harness::ports;
use harness::process::{self, Process};
use harness::scratch::Scratch;
use harness::servers::PROTOCOLS;
use harness::tls::{Listener, PROGRAMS, Server};
use harness::tools;
use harness::truth::Truth;

const EACH: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// Java changes its keys each 4 KiB, as it would after 128 GiB. What passes with a key that was
/// gone before it was found is counted.
#[test]
fn keys_that_change() -> Result<()> {
    if !need::live("changes of keys", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::Tls13])?;
    server.broker.create_topics(1, &["orders"])?;
    let limits = dir.join("java.security");
    fs::write(&limits, "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^12\n")?;
    let options = format!("-XX:+UseSerialGC -Xmx256m -Djava.security.properties={}", limits.display());
    let party = server.party(Library::Java, Listener::Tls13).with(&["--jvm", &options]);
    let agent = observe(&server, &scratch, "observe", &["--tls", "memory"])?;
    let mut truth = Truth::default();
    let producer = party.produce(dir, "orders", |what| Produce {
        count: EACH,
        payload: 1000,
        interval_ms: 50,
        ..what
    })?;
    producer.finish(PATIENCE, &mut truth)?;
    party.consume(dir, &["orders"], EACH as usize)?.finish(PATIENCE, &mut truth)?;
    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let report = check(&truth, &ended.spans);
    eprintln!("{report}{}", ended.summary["lost"]);
    ensure!(report.is_true() && report.repeated == 0, "{report}");
    let missed = report.sent.expected + report.received.expected - report.sent.found - report.received.found;
    ensure!(missed == 0 || ended.lost() > 0, "{missed} were missed, and nothing was counted");
    // one search for each change, of some 20 messages that four changes lie between
    ensure!(report.sent.found > EACH as usize / 2, "only {} of {EACH}", report.sent.found);
    Ok(())
}

/// A connection that goes on with the session of one before has keys of its own.
#[test]
fn sessions_that_resume() -> Result<()> {
    if !need::live("resumed sessions", &[&PROGRAMS[..], &["go"]].concat()) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    // Kafka's brokers (4.3.0 on Java 17 and 25) resume nothing, not even by their own tickets: a proxy
    // does
    let [port] = ports::free()?;
    let proxy = format!("127.0.0.1:{port}");
    let settings = Settings {
        advertised: Some(proxy.clone()),
        properties: "auto.create.topics.enable=true\n".into(),
        ..Settings::default()
    };
    let server = Server::start_with(dir, [Listener::Tls13], settings)?;
    let mut ends_tls = process::command(tools::sarama()?);
    ends_tls.args(["proxy", "-listen", &proxy, "-bootstrap", &format!("127.0.0.1:{}", server.broker.port)]);
    ends_tls.arg("-identity").arg(server.authority.client());
    let mut ends_tls = Process::start("the proxy", &mut ends_tls, &dir.join("proxy.log"))?;
    ends_tls.wait_for_line("listening", PATIENCE)?;
    let agent = Agent::observe(dir, "observe", port, &["--tls", "memory", "--tls-cpu", "100%"])?;
    let mut truth = Truth::default();
    let party = server.party(Library::Sarama, Listener::Tls13).by(&proxy).with(&["-resume", "true"]);
    party.produce(dir, "orders", |what| Produce { count: EACH, ..what })?.finish(PATIENCE, &mut truth)?;
    let said = fs::read_to_string(dir.join(format!("{}-out.log", party.name)))?;
    ensure!(said.contains("resumed"), "{} resumed no session: {said}", party.name);
    agent.wait_for_hops(truth.sent.len())?;
    let ended = agent.stop()?;
    let report = check(&truth, &ended.spans);
    ensure!(report.is_perfect(), "{report}\n{}\n{}", ended.summary, ended.stderr);
    Ok(())
}

/// What has no AES-GCM key: not searched for ever, and counted by its cipher.
#[test]
fn ciphers_that_memory_does_not_show() -> Result<()> {
    if !need::live("other ciphers", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::ChaCha20, Listener::Cbc])?;
    server.broker.create_topics(1, &["orders"])?;
    let agent = observe(&server, &scratch, "observe", &["--tls", "memory"])?;
    let mut truth = Truth::default();
    for (library, listener) in [(Library::Python, Listener::ChaCha20), (Library::Java, Listener::Cbc)] {
        let party = server.party(library, listener);
        let producer =
            party.produce(dir, "orders", |what| Produce { count: EACH, interval_ms: 50, ..what })?;
        producer.finish(PATIENCE, &mut truth)?;
    }
    sleep(Duration::from_secs(1));
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    ensure!(ended.spans.is_empty(), "{:?}", ended.spans.first());
    ensure!(lost(&ended, "tls_no_key") >= 2, "{}", ended.summary);
    let unread = ended.summary["tls_unread"].to_string();
    ensure!(unread.contains("chacha20") && unread.contains("cbc"), "{}", ended.summary);
    Ok(())
}

/// By a key log that two clients write while the agent follows it, all ciphers are read.
#[test]
fn a_key_log() -> Result<()> {
    if !need::live("a key log", &[&PROGRAMS[..], &["go"]].concat()) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let listeners = [Listener::Tls13, Listener::Tls12, Listener::ChaCha20, Listener::Cbc];
    let server = Server::start(dir, listeners)?;
    server.broker.create_topics(1, &["orders"])?;
    let file = dir.join("keys.log");
    fs::write(&file, "")?;
    let agent = observe(&server, &scratch, "observe", &["--tls", &format!("keylog:{}", file.display())])?;
    let mut truth = Truth::default();
    let mut expect = 0;
    for (number, listener) in listeners.into_iter().enumerate() {
        let libraries = [Library::KafkaPython, Library::Aiokafka, Library::Sarama];
        let library = libraries[number % libraries.len()];
        let party = server.party(library, listener).with_key_log(&file);
        party.produce(dir, "orders", |what| Produce { count: EACH, ..what })?.finish(PATIENCE, &mut truth)?;
        expect += EACH as usize;
        party.consume(dir, &["orders"], expect)?.finish(PATIENCE, &mut truth)?;
    }
    perfect(agent, &truth)?;
    Ok(())
}

/// A web server and its clients beside, on a port that is none of Kafka's: with `auto` no process's
/// memory is read for them.
#[test]
fn others_are_not_searched() -> Result<()> {
    if !need::live("others' TLS", &[&PROGRAMS[..], &["nginx", "curl"]].concat()) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let https = PROTOCOLS.iter().find(|protocol| protocol.name == "https").context("no HTTPS")?;
    let [port] = ports::free()?;
    let web = https.serve(dir, port)?;
    let server = Server::start(dir, [Listener::Tls13])?;
    server.broker.create_topics(1, &["orders"])?;
    let ports = format!("auto,{}", server.listeners.ports());
    let agent = Agent::observe(dir, "observe", ports, &["--tls", "memory"])?;
    let mut truth = Truth::default();
    let party = server.party(Library::Python, Listener::Tls13);
    let client = party.produce(dir, "orders", |what| Produce { count: EACH, interval_ms: 50, ..what })?;
    for _ in 0..5 {
        web.talk()?;
    }
    client.finish(PATIENCE, &mut truth)?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    ensure!(ended.spans.iter().any(|span| span.topic() == Some("orders")), "not even Kafka was read");
    ensure!(ended.stderr.contains("memory of python-tls13-out"), "{}", ended.stderr);
    for line in ended.stderr.lines().filter(|line| line.contains("memory of")) {
        ensure!(!line.contains("nginx") && !line.contains("curl"), "{line}");
        ensure!(!line.contains(&format!(":{port}")), "{line}");
    }
    Ok(())
}

/// Clients of a test live for some seconds, so searches do not wait for their share of the
/// processor.
fn observe(server: &Server, scratch: &Scratch, name: &str, arguments: &[&str]) -> Result<Agent> {
    let arguments = [arguments, &["--tls-cpu", "100%"]].concat();
    Agent::observe(scratch.path(), name, server.listeners.ports(), &arguments)
}

fn perfect(agent: Agent, truth: &Truth) -> Result<Ended> {
    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let report = check(truth, &ended.spans);
    ensure!(report.is_perfect(), "{report}\n{}\n{}", ended.summary, ended.stderr);
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    Ok(ended)
}

/// How often it was lost for this reason, whoever's it was.
fn lost(ended: &Ended, reason: &str) -> u64 {
    match &ended.summary["lost"][reason] {
        serde_json::Value::Object(counts) => counts.values().filter_map(serde_json::Value::as_u64).sum(),
        count => count.as_u64().unwrap_or_default(),
    }
}
