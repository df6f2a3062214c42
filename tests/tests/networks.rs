//! The ground truth over networks that are not loopback: through loss and reordering, through
//! address translation as Kubernetes' services do it, and on a port that was not named.

use anyhow::{Result, ensure};
use harness::agent::{Agent, Ended};
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::hosts::Hosts;
use harness::lossy::{Badness, Link};
use harness::namespace::{End, Namespace, wire};
use harness::need;
use harness::scratch::Scratch;
use harness::traffic;
use harness::truth::Truth;

/// Of each client with each codec; 20 such runs are the whole.
fn each() -> u32 {
    if need::is_full() { 500 } else { 25 }
}

/// A batch of these is several packets.
const PAYLOAD: u32 = 1000;

const PROGRAMS: [&str; 5] = ["java", "kcat", "ip", "nft", "unshare"];

/// A packet in twenty is lost and one in five comes late, in both directions.
#[test]
fn loss_and_reordering() -> Result<()> {
    if !need::live("loss and reordering", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let (clients, brokers) = (Namespace::new(dir, "clients")?, Namespace::new(dir, "brokers")?);
    let link = Link::new(
        End { namespace: &clients, link: "lossy", address: "10.77.0.1/24" },
        End { namespace: &brokers, link: "lossy", address: "10.77.0.2/24" },
        Badness { dropped: 0.05, reordered: 0.20, seed: 5 },
    )?;
    let broker = brokers.within(|| {
        let broker = Broker::start(dir, &Settings { host: "10.77.0.2", ..Settings::default() })?;
        broker.create_topics(3, &traffic::topics())?;
        Ok(broker)
    })?;
    let agent = Agent::observe(dir, "observe", broker.port, &[])?;
    let truth = clients.within(|| traffic::run(dir, &broker.bootstrap(), each(), PAYLOAD))?;
    let ended = perfect(agent, &truth)?;
    let counts = link.counts();
    eprintln!("link: {counts:?}");
    // it did what it was made for
    ensure!(
        counts.dropped * 100 > counts.packets * 3 && counts.reordered * 100 > counts.packets,
        "{counts:?}"
    );
    ensure!(ended.lost() == 0, "lost: {}\n{}", ended.summary, ended.stderr);
    Ok(())
}

/// A service's address and port stand for the broker's, for clients on a node and for clients in a
/// container on it.
#[test]
fn through_a_service_address() -> Result<()> {
    if !need::live("service address", &PROGRAMS) {
        return Ok(());
    }
    /// What is advertised to clients, and what is there.
    const SERVICE: (&str, u16) = ("10.96.0.10", 9092);
    const ENDPOINT: (&str, u16) = ("10.78.2.2", 29092);
    for place in ["container", "node"] {
        let scratch = Scratch::new()?;
        let dir = scratch.path();
        let container = Namespace::new(dir, "container")?;
        let node = Namespace::new(dir, "node")?;
        let brokers = Namespace::new(dir, "brokers")?;
        wire(
            End { namespace: &container, link: "eth0", address: "10.78.1.2/24" },
            End { namespace: &node, link: "container", address: "10.78.1.1/24" },
        )?;
        wire(
            End { namespace: &brokers, link: "eth0", address: "10.78.2.2/24" },
            End { namespace: &node, link: "brokers", address: "10.78.2.1/24" },
        )?;
        container.ip("route add default via 10.78.1.1")?;
        brokers.ip("route add default via 10.78.2.1")?;
        // a service's address is routed like any other before it is translated
        node.ip("route add default via 10.78.2.2")?;
        node.forward()?;
        node.serve(SERVICE, ENDPOINT)?;
        let settings = Settings {
            host: ENDPOINT.0,
            port: ENDPOINT.1,
            advertised: Some(format!("{}:{}", SERVICE.0, SERVICE.1)),
            ..Settings::default()
        };
        let broker = brokers.within(|| Broker::start(dir, &settings))?;
        let clients = if place == "node" { &node } else { &container };
        let agent = Agent::observe(dir, "observe", SERVICE.1, &[])?;
        let truth = clients.within(|| {
            broker.create_topics(3, &traffic::topics())?;
            traffic::run(dir, &broker.bootstrap(), each(), PAYLOAD)
        })?;
        eprintln!("from the {place}:");
        let ended = perfect(agent, &truth)?;
        ensure!(ended.lost() == 0, "lost: {}\n{}", ended.summary, ended.stderr);
        for span in &ended.spans {
            let server = (span.text("server.address"), span.attributes["server.port"].as_u64());
            ensure!(
                server == (Some(SERVICE.0), Some(SERVICE.1.into())),
                "the client in the {place} called another server: {span:?}"
            );
        }
    }
    Ok(())
}

/// The port is not named: that it is Kafka is seen by what is spoken there.
#[test]
fn on_a_port_that_nobody_named() -> Result<()> {
    if !need::live("auto", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    // in a network of their own, so that Kafka that is spoken elsewhere on the host meanwhile does not
    // count
    let network = Namespace::new(dir, "unnamed")?;
    let broker = network.within(|| Broker::start(dir, &Settings { port: 19092, ..Settings::default() }))?;
    network.within(|| broker.create_topics(3, &traffic::topics()))?;
    let netns = network.path().display().to_string();
    let agent = Agent::observe(dir, "observe", "auto", &["--rings", "4", "--netns", &netns])?;
    let truth = network.within(|| traffic::run(dir, &broker.bootstrap(), each(), PAYLOAD))?;
    let ended = perfect(agent, &truth)?;
    ensure!(ended.lost() == 0, "lost: {}\n{}", ended.summary, ended.stderr);
    Ok(())
}

/// Producers on one host, a consumer on another, the broker on a third, and on each of the first
/// two an agent that sees its own host alone: what the one calls a message, the other does too.
#[test]
fn two_hosts_without_a_word_between_them() -> Result<()> {
    if !need::live("two hosts", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let hosts = Hosts::new(dir)?;
    let observe = |name, host: &Namespace| {
        Agent::observe(dir, name, hosts.broker.port, &["--netns", &host.path().display().to_string()])
    };
    let (sending, receiving) =
        (observe("sending", &hosts.producers)?, observe("receiving", &hosts.consumers)?);
    let truth = hosts.talk(dir, 4 * each())?;
    sending.wait_for_hops(truth.sent.len())?;
    receiving.wait_for_hops(truth.received.len())?;
    let (mut sent, received) = (sending.stop()?, receiving.stop()?);
    ensure!(sent.lost() == 0 && received.lost() == 0, "{} {}", sent.summary, received.summary);
    ensure!(sent.spans.iter().all(|span| span.operation() == "send"), "the one has seen the other's");
    ensure!(received.spans.iter().all(|span| span.operation() != "send"), "the other has seen the one's");
    sent.spans.extend(received.spans);
    let report = check(&truth, &sent.spans);
    eprintln!("two hosts: {report}");
    ensure!(report.is_perfect(), "the spans do not join");
    Ok(())
}

/// Ends the agent, which has to have seen each hop once and shown it truly.
fn perfect(agent: Agent, truth: &Truth) -> Result<Ended> {
    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let report = check(truth, &ended.spans);
    eprintln!("{report}");
    ensure!(report.is_perfect(), "the spans do not hold; summary {}", ended.summary);
    Ok(ended)
}
