//! Kafka inside TLS, with secrets that probes see where libraries derive them: what memory does not
//! show, and programs that end at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::check::check;
use harness::clients::{Library, Produce};
use harness::need;
use harness::process::deadline;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::tls::{Listener, PROGRAMS, Server};
use harness::truth::Truth;

/// Messages of each client.
const EACH: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// OpenSSL as a library, within a wheel, and within Node; and Go.
const LIBRARIES: [Library; 6] = [
    Library::Kcat,
    Library::Python,
    Library::KafkaPython,
    Library::Aiokafka,
    Library::Kafkajs,
    Library::Sarama,
];

/// `ChaCha20` leaves no key that can be found in memory. Each library's first process has its files
/// probed; from then on all is seen.
#[test]
fn chacha20_and_programs_that_end_at_once() -> Result<()> {
    if !need::live("probes for secrets of TLS", &[&PROGRAMS[..], &["node", "go"]].concat()) {
        return Ok(());
    }
    let short_lived: usize = if need::is_full() { 100 } else { 20 };
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, [Listener::ChaCha20, Listener::Tls12])?;
    server.broker.create_topics(1, &["first", "orders"])?;
    let ports = server.listeners.ports();
    let agent = Agent::observe(dir, "observe", ports, &["--tls", "memory", "--tls-uprobes"])?;
    let mut firsts = Truth::default();
    for library in LIBRARIES {
        let party = server.party(library, Listener::ChaCha20);
        party.produce(dir, "first", |what| what)?.finish(PATIENCE, &mut firsts)?;
    }
    let mut truth = Truth::default();
    for library in LIBRARIES {
        let party = server.party(library, Listener::ChaCha20);
        party.produce(dir, "orders", |what| Produce { count: EACH, ..what })?.finish(PATIENCE, &mut truth)?;
    }
    for number in 0..short_lived {
        let listener = if number % 4 == 0 { Listener::Tls12 } else { Listener::ChaCha20 };
        let party = server.party(Library::Kcat, listener).named(&format!("kcat-{number}"));
        party.produce(dir, "orders", |what| what)?.finish(PATIENCE, &mut truth)?;
    }
    let sent = truth.sent.len();
    let reader = server.party(Library::KafkaPython, Listener::ChaCha20);
    reader.consume(dir, &["orders"], sent)?.finish(PATIENCE, &mut truth)?;
    truth.resolve();
    let orders = |spans: &[Span]| -> Vec<Span> {
        let is_hop = |span: &&Span| matches!(span.operation(), "send" | "poll");
        let of = |span: &&Span| span.place().is_some_and(|place| place.topic == "orders");
        spans.iter().filter(is_hop).filter(of).cloned().collect()
    };
    let deadline = deadline(Duration::from_secs(10));
    while Instant::now() < deadline && orders(&agent.so_far()?).len() < 2 * sent {
        sleep(Duration::from_millis(200));
    }
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let report = check(&truth, &orders(&ended.spans));
    eprintln!("{report}; lost {}", ended.summary["lost"]);
    ensure!(report.is_perfect(), "{report}\nsummary {}\n{}", ended.summary, ended.stderr);
    ensure!(ended.summary["lost"]["secret_lost"].as_u64().unwrap_or(0) == 0, "{}", ended.summary["lost"]);
    Ok(())
}
