//! Chains of services in four languages: a Java program writes, a Python service reads that and
//! writes because of it, a Node service reads that in turn, and a Go program what comes of it. Each
//! logs what it got, what it wrote, and why.

mod claims;
mod plan;
#[cfg(test)]
mod tests;
mod way;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

pub use claims::{Claims, Share, inferred};
pub use plan::{Case, Message, made_of, messages};
pub use way::Ways;

use crate::clients::{Client, Consume, Forward, Library, Produce};
use crate::truth::{Line, Place, Truth};

/// Who is in a chain, from its beginning to its end.
pub const SERVICES: [&str; 4] = ["intake", "pricing", "packing", "archive"];

/// The first messages of a service to a topic: nothing is claimed before there were some.
pub const WARM_UP: usize = 20;

/// A topic to which the second service writes of its own accord, and no other service.
const BEATS: &str = "beats";
/// How many it writes to that, and to [`Case::Timed`]'s.
const OWN: usize = 20;

/// Whose libraries put trace context into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Instrumented,
    /// The first and the third.
    Half,
    Bare,
}

impl Mode {
    const fn libraries(self) -> [Library; 4] {
        match self {
            Self::Instrumented => [
                Library::JavaAgent,
                Library::PythonInstrumented,
                Library::KafkajsInstrumented,
                Library::SaramaInstrumented,
            ],
            Self::Half => {
                [Library::JavaAgent, Library::Python, Library::KafkajsInstrumented, Library::Sarama]
            }
            Self::Bare => [Library::Java, Library::Python, Library::Kafkajs, Library::Sarama],
        }
    }
}

/// All topics of a chain.
#[must_use]
pub fn topics() -> Vec<String> {
    let mut all: Vec<String> = ["a", "b", "c"].into_iter().flat_map(stage).collect();
    all.push(BEATS.into());
    all
}

fn stage(stage: &str) -> Vec<String> {
    Case::ALL.iter().map(|case| case.topic(stage)).collect()
}

/// Sends messages through all services; returns when the last has got what came of them.
pub fn run(dir: &Path, bootstrap: &str, mode: Mode, messages: &[Message]) -> Result<Truth> {
    let [java, python, node, go] = mode.libraries();
    let [intake, pricing, packing, archive] = SERVICES;
    let made = made_of(messages) + OWN;
    let [a, b, c] = ["a", "b", "c"].map(stage);
    let [a, b, c] = [&a, &b, &c].map(|topics| topics.iter().map(String::as_str).collect::<Vec<_>>());

    let last = Consume { library: go, bootstrap, topics: &c, service: archive, group: archive, expect: made };
    let third = Forward { library: node, bootstrap, topics: &b, into: "c", service: packing, expect: made };
    let second = Forward {
        library: python,
        bootstrap,
        topics: &a,
        into: "b",
        service: pricing,
        expect: messages.len(),
    };
    let own = [format!("{}", OWN), format!("{},{BEATS}", Case::Timed.topic("b"))];
    let list = list(dir, messages)?;
    let first = Produce { interval_ms: 3, ..Produce::new(java, bootstrap, "", intake) };
    let last = last.start(dir)?;
    let mut third = third.start_with(dir, &[])?;
    let mut second =
        second.start_with(dir, &["--own", &own[0], "--own-ms", "100", "--own-topics", &own[1]])?;
    // Else, on a busy machine, all may be sent before the first of them reads, and of nothing that it
    // got before it had sent anything a cause can be claimed.
    for service in [&mut third, &mut second] {
        service.wait_until_assigned()?;
    }
    let clients: [Client; 4] = [last, third, second, first.start_with(dir, &["--messages", &list])?];
    let mut truth = Truth::default();
    for client in clients.into_iter().rev() {
        client.finish(Duration::from_secs(120), &mut truth)?;
    }
    holds(&truth, mode, messages)?;
    Ok(truth)
}

/// The file that the first service sends.
fn list(dir: &Path, messages: &[Message]) -> Result<String> {
    let mut lines = String::new();
    for Message { case, key, value } in messages {
        writeln!(lines, "{}\t{key}\t{value}", case.topic("a"))?;
        // and its echo at once
        if *case != Case::Twins {
            writeln!(lines)?;
        }
    }
    let file = dir.join("messages");
    fs::write(&file, lines)?;
    Ok(file.to_string_lossy().into_owned())
}

/// The services' logs are a truth: each got all that the one before it had sent, as it was sent,
/// and says why it sent what it sent.
fn holds(truth: &Truth, mode: Mode, messages: &[Message]) -> Result<()> {
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);
    // otelsarama puts its own span into what it hands over
    let wrong = truth.disagreements_where(|line| mode != Mode::Instrumented || line.service != SERVICES[3]);
    ensure!(wrong.is_empty(), "{} disagreements, the first: {}", wrong.len(), wrong[0]);
    let made = made_of(messages) + OWN;
    let [a, b, c, d] = SERVICES;
    let count = |lines: &[Line], of| lines.iter().filter(|line| line.service == of).count();
    let sent = [a, b, c, d].map(|of| count(&truth.sent, of));
    let received = [a, b, c, d].map(|of| count(&truth.received, of));
    ensure!(sent == [messages.len(), made + OWN, made, 0], "sent: {sent:?}");
    ensure!(received == [0, messages.len(), made, made], "received: {received:?}");
    let own = truth.sent.iter().filter(|line| line.service != a && line.because.is_empty()).count();
    ensure!(own == 2 * OWN, "{own} sent of their own accord");
    let instrumented = mode.libraries();
    for (service, library) in SERVICES.into_iter().zip(instrumented).take(3) {
        let mut of = truth.sent.iter().filter(|line| line.service == service);
        ensure!(
            of.all(|line| line.header("traceparent").is_some() == library.is_instrumented()),
            "{service} has messages with or without a traceparent that should not be"
        );
    }
    Ok(())
}

/// What each message was sent because of.
#[derive(Debug)]
pub struct Causes<'a> {
    sent: HashMap<Place, &'a Line>,
}

impl<'a> Causes<'a> {
    #[must_use]
    pub fn new(truth: &'a Truth) -> Self {
        Self { sent: truth.sent.iter().filter_map(|line| Some((line.place()?, line))).collect() }
    }

    /// The messages at the beginning of its chain, with itself where it was sent of its sender's
    /// own accord.
    #[must_use]
    pub fn origins(&self, place: &Place) -> Vec<Place> {
        match self.sent.get(place) {
            Some(line) if !line.because.is_empty() => {
                line.because.iter().flat_map(|cause| self.origins(cause)).collect()
            }
            _ => vec![place.clone()],
        }
    }
}

/// The case that a topic is of.
fn case(topic: &str) -> Option<Case> {
    Case::ALL.into_iter().find(|case| topic.strip_prefix(case.name()).is_some_and(|end| end.starts_with('-')))
}
