//! Records the golden captures of `ktrace-kafka/tests/golden`: for each case a broker of its own,
//! its clients under tcpdump, and beside the capture the truth as the clients logged it.

mod cases;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Produce};
use harness::scratch::Scratch;
use harness::tcpdump::Capture;
use harness::truth::{Line, Truth};
use harness::{ports, tools};

use cases::{CASES, Case, In, Out};

const TOPIC: &str = "orders";

/// Messages of each producer; two of each kind of edge.
const COUNT: u32 = 8;

pub fn record(names: &[String]) -> Result<()> {
    for name in names {
        ensure!(CASES.iter().any(|case| case.name == name), "no such golden: {name}");
    }
    let mut failed = 0;
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.name)) {
        match record_one(case) {
            Ok(size) => println!("{:<32} {size:>6} bytes", case.name),
            Err(error) => {
                failed += 1;
                println!("{:<32} FAILED: {error:#}", case.name);
            }
        }
    }
    ensure!(failed == 0, "{failed} could not be recorded");
    Ok(())
}

fn record_one(case: &Case) -> Result<u64> {
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let version = case.name.split('/').next().unwrap_or_default();
    let version = [tools::KAFKA_OLD_VERSION, tools::KAFKA_VERSION]
        .into_iter()
        .find(|known| *known == version)
        .context("the name begins with no broker version")?;
    let properties = case.properties.to_owned();
    let broker = Broker::start(dir, &Settings { version, port, properties, ..Settings::default() })?;
    broker.create_topics(2, &[TOPIC])?;
    let topic_id = topic_id(&broker)?;

    let capture = Capture::start(dir, "golden", port)?;
    let file = capture.file.clone();
    let truth = traffic(case, dir, &broker.bootstrap())?;
    ensure!(capture.stop()? == 0, "tcpdump lost packets");

    let mut lines = format!(r#"{{"event":"topic","topic":"{TOPIC}","id":"{topic_id}"}}"#);
    lines.push('\n');
    for line in truth.sent.iter().chain(&truth.received) {
        writeln!(lines, "{}", serde_json::to_string(line)?)?;
    }
    let to = goldens().join(case.name);
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::write(to.with_added_extension("truth.jsonl"), lines)?;
    Ok(fs::copy(file, to.with_added_extension("pcap"))?)
}

/// The producers one after the other, then the consumers.
fn traffic(case: &Case, dir: &Path, bootstrap: &str) -> Result<Truth> {
    let mut truth = Truth::default();
    for (number, Out { library, codec, headers, acks, extra }) in case.produce.iter().enumerate() {
        let service = format!("out-{number}");
        let new = Produce::new(*library, bootstrap, TOPIC, &service);
        let payload = 60;
        Produce { count: COUNT, codec, header_style: headers, acks, payload, ..new }
            .start_with(dir, extra)?
            .finish(Duration::from_secs(60), &mut truth)?;
    }
    let sent = truth.sent.len();
    for (number, In { library, but, extra }) in case.consume.iter().enumerate() {
        let service = format!("in-{number}");
        let expect = sent - but;
        let new = Consume {
            library: *library,
            bootstrap,
            topics: &[TOPIC],
            service: &service,
            group: &service,
            expect,
        };
        new.start_with(dir, extra)?.finish(Duration::from_secs(60), &mut truth)?;
    }
    ensure!(truth.errors.is_empty(), "{:?}", truth.errors);
    // with acks=0 no client learns it
    if case.produce.iter().all(|out| out.acks != "0") {
        truth.resolve();
        forget_unsent_times(&mut truth);
        let wrong = truth.disagreements();
        ensure!(wrong.is_empty(), "the clients disagree: {wrong:#?}");
    }
    Ok(truth)
}

/// Librdkafka knows a time of its own also for messages of before Kafka 0.10, which have no place
/// for it.
fn forget_unsent_times(truth: &mut Truth) {
    let timeless: HashSet<_> =
        truth.received.iter().filter(|line| line.timestamp.is_none()).map(Line::place).collect();
    for line in truth.sent.iter_mut().filter(|line| timeless.contains(&line.place())) {
        line.timestamp = None;
    }
}

fn topic_id(broker: &Broker) -> Result<String> {
    let script = sources().join("tests/clients/python/topic_ids.py");
    let said = Command::new(tools::python()?).arg(script).args([&broker.bootstrap(), TOPIC]).output()?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout)?;
    let id = said.trim().strip_prefix(TOPIC).with_context(|| format!("no topic id in {said:?}"))?;
    Ok(id.trim().to_owned())
}

fn goldens() -> PathBuf {
    sources().join("ktrace-kafka/tests/golden")
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
