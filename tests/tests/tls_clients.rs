//! The harness against itself, without the agent: every client library over TLS sends and receives,
//! as the listener asks for it, and the truths of both sides agree.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::clients::{Client, Library, Produce};
use harness::need::{self, Need};
use harness::scratch::Scratch;
use harness::tls::{Listener, Mechanism, Party, Server};
use harness::truth::Truth;

const EACH: u32 = 20;
const AT_ONCE: usize = 3;

#[test]
fn truths_of_all_clients_agree_over_tls() -> Result<()> {
    if !need::is_full() {
        // tls.rs has each client at one listener
        return Ok(());
    }
    let needs = [Need::Program("java"), Need::Program("kcat"), Need::Program("node"), Need::Program("go")];
    if !need::met("clients over TLS", &needs) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let server = Server::start(dir, Listener::ALL)?;
    server.broker.create_topics(2, &["orders"])?;
    let parties = parties(&server);
    let mut truth = Truth::default();
    run(&parties, &mut truth, |party| party.produce(dir, "orders", |what| Produce { count: EACH, ..what }))?;
    let sent = truth.sent.len();
    ensure!(sent == parties.len() * EACH as usize, "{sent} were sent");
    run(&parties, &mut truth, |party| party.consume(dir, &["orders"], sent))?;
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);
    truth.resolve();
    let wrong = truth.disagreements();
    ensure!(wrong.is_empty(), "{} disagreements, the first: {}", wrong.len(), wrong[0]);
    ensure!(truth.received.len() == sent * parties.len(), "{} were received", truth.received.len());
    Ok(())
}

fn run(parties: &[Party], truth: &mut Truth, start: impl Fn(&Party) -> Result<Client>) -> Result<()> {
    let mut failures = Vec::new();
    for some in parties.chunks(AT_ONCE) {
        let started = some.iter().map(&start).collect::<Result<Vec<_>>>()?;
        let ends = started.into_iter().map(|client| client.finish(Duration::from_secs(10), truth));
        // all that fail at once are reported
        failures.extend(ends.filter_map(Result::err).map(|error| format!("{error:#}")));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Each client at each listener.
fn parties(server: &Server) -> Vec<Party> {
    use Listener::{Cbc, Sasl};
    use Mechanism::{ScramSha256, ScramSha512};
    let libraries = [
        Library::Java,
        Library::JavaAgent,
        Library::Python,
        Library::KafkaPython,
        Library::Aiokafka,
        Library::Sarama,
        Library::Kafkajs,
        Library::Kcat,
        Library::Rdkafka,
        Library::Rustls,
    ];
    let mut all = Vec::new();
    for library in libraries {
        for listener in Listener::ALL {
            // rustls has no CBC
            if library != Library::Rustls || listener != Cbc {
                all.push(server.party(library, listener));
            }
        }
        let sasl = |how: Mechanism| {
            server.party(library, Sasl).with_sasl(how).named(&format!("{}-{}", library.name(), how.name()))
        };
        if knows_scram(library) {
            all.extend([sasl(ScramSha256), sasl(ScramSha512)]);
        }
    }
    all
}

/// The client over rustls knows PLAIN alone; of the librdkafka that Debian's kcat has, the broker
/// refuses the proof.
fn knows_scram(library: Library) -> bool {
    !matches!(library, Library::Rustls | Library::Kcat)
}
