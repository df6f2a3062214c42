//! The demonstration: a real broker, services in three languages of which one is instrumented, and
//! one trace a message.

mod tree;

use std::net::TcpListener;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::{self, Agent};
use harness::broker::{Broker, Settings};
use harness::clients::{Client, Consume, Library, Produce};
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::tls::{Authority, Listener, Listeners, Security};
use harness::truth::Truth;

const TOPICS: [&str; 2] = ["orders", "payments"];

/// Messages of each of the two producers.
const MESSAGES: u32 = 2;

/// The first of them over TLS.
const CONSUMERS: [(Library, &str); 3] =
    [(Library::Python, "billing"), (Library::Kcat, "audit"), (Library::Java, "shipping")];

pub fn demo(keep: bool) -> Result<()> {
    ensure!(
        agent::binary().exists(),
        "no agent at {}\n`./dev demo` builds it; KTRACE_BIN names another",
        agent::binary().display()
    );
    let scratch = Scratch::new()?;
    remove_when_interrupted(scratch.path())?;
    let dir = scratch.path();
    let port = free_port()?;

    let authority = Authority::new(dir)?;
    let listeners = Listeners::new(&authority, [Listener::Tls13])?;
    let tls_port = listeners.port(Listener::Tls13);
    say(&format!("Starting Apache Kafka on 127.0.0.1:{port}, and with TLS on port {tls_port}"));
    let tls = Some(listeners.clone());
    let broker = Broker::start(dir, &Settings { port, tls, outlives: keep, ..Settings::default() })?;
    let pid = broker.pid();
    let result = trace(dir, &broker, &authority, &listeners);
    match (keep, &result) {
        (true, Ok(())) => {
            let dir = scratch.leave();
            println!("The broker is still there: 127.0.0.1:{port}, topics {}.", TOPICS.join(" and "));
            println!(
                "With TLS: 127.0.0.1:{tls_port}, whose authority is {}",
                dir.join("tls/ca.pem").display()
            );
            println!("Stop it with: kill {pid}; rm -r {}", dir.display());
        }
        (true, Err(_)) => println!("The broker is still there; stop it with: kill {pid}"),
        (false, _) => drop(broker),
    }
    result
}

fn trace(dir: &Path, broker: &Broker, authority: &Authority, listeners: &Listeners) -> Result<()> {
    let (bootstrap, with_tls) = (broker.bootstrap(), listeners.bootstrap(Listener::Tls13));
    broker.create_topics(2, &TOPICS)?;
    say(
        "Starting ktrace observe --tls memory; it watches the kernel's sockets, and finds keys of TLS in Kafka's processes",
    );
    let ports = format!("{},{}", broker.port, listeners.ports());
    let agent = Agent::observe(dir, "observe", ports, &["--tls", "memory"])?;

    say("Starting three consumers: billing (Python, over TLS), audit (C), shipping (Java)");
    let expect = MESSAGES as usize * TOPICS.len();
    let security = Security::new(authority, Listener::Tls13);
    let consumers = CONSUMERS
        .iter()
        .enumerate()
        .map(|(number, &(library, name))| {
            let over_tls = number == 0;
            let arguments = if over_tls { security.arguments(library) } else { Vec::new() };
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let bootstrap = if over_tls { &with_tls } else { &bootstrap };
            Consume { library, bootstrap, topics: &TOPICS, service: name, group: name, expect }
                .start_with(dir, &arguments)
        })
        .collect::<Result<Vec<Client>>>()?;
    // a consumer that is not in its group yet would show its own start as queue time
    sleep(Duration::from_secs(4));

    say("orders-api (Python, not instrumented) sends to orders");
    let mut truth = Truth::default();
    let python = Produce::new(Library::Python, &bootstrap, TOPICS[0], "orders-api");
    // acks=1: an idempotent producer's first message would wait a second for its producer id
    Produce { count: MESSAGES, interval_ms: 100, acks: "1", ..python }.run(dir, &mut truth)?;
    say(
        "payments-api (Java with the OpenTelemetry agent, which adds a traceparent header) sends to payments",
    );
    let java = Produce::new(Library::JavaAgent, &bootstrap, TOPICS[1], "payments-api");
    Produce { count: MESSAGES, interval_ms: 100, ..java }.run(dir, &mut truth)?;
    for consumer in consumers {
        consumer.finish(Duration::from_secs(30), &mut truth)?;
    }

    let hops = expect * (1 + CONSUMERS.len());
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && tree::hops(&agent.so_far()?).count() < hops {
        sleep(Duration::from_millis(100));
    }
    let ended = agent.stop()?;
    show(&ended.spans, hops)
}

fn show(spans: &[Span], hops: usize) -> Result<()> {
    println!("\n{}", tree::render(spans));
    println!(
        "\
Each message is one trace: who sent it, who got it, and how long that was after its own timestamp (queue)
and after its producer began to send it (e2e).
ktrace changed nothing in these programs; it read what passed their sockets. What billing got was inside TLS: ktrace
opened it with keys that it found in billing's memory. Where a message has trace headers (here traceparent, from
the Java agent), ktrace's spans join the application's own trace. Where it has none, ktrace derives the trace id
from the message itself, so that every host comes to the same id without asking another.

Next:
  ktrace doctor                           what ktrace can do on this host
  ktrace observe                          messages as they pass, one line each
  ktrace run --otlp http://HOST:4317      export to any OpenTelemetry backend
  ./dev demo --keep                       this again, and the broker stays for your own trials
"
    );
    let found = tree::hops(spans).count();
    ensure!(found == hops, "saw {found} hops of messages, expected {hops}");
    Ok(())
}

fn say(what: &str) {
    println!("• {what}");
}

/// Kafka's own port, or another where that is taken.
fn free_port() -> Result<u16> {
    if TcpListener::bind(("127.0.0.1", 9092)).is_ok() {
        return Ok(9092);
    }
    let [port] = ports::free()?;
    Ok(port)
}

/// On SIGINT and SIGTERM the children end with this process; only their directory has to be
/// removed.
fn remove_when_interrupted(dir: &Path) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let dir = dir.to_owned();
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // the children may still be writing
            sleep(Duration::from_millis(500));
            let _ = std::fs::remove_dir_all(&dir);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
