//! Golden captures of real clients and brokers: what is read is exactly what the clients knew,
//! however the bytes are cut.

mod capture;
mod cuts;
mod reported;
mod truth;

use std::path::{Path, PathBuf};

use capture::Segment;
use reported::{Messages, report};
use truth::{Message, Truth};

pub struct Golden {
    pub name: String,
    pub connections: Vec<Vec<Segment>>,
    pub truth: Truth,
}

/// All goldens of a broker's version.
pub fn goldens(version: &str) -> impl Iterator<Item = Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version);
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pcap"));
    files.sort();
    assert!(!files.is_empty());
    files.into_iter().map(|file| Golden {
        name: file.display().to_string(),
        connections: capture::connections(&file),
        truth: truth::read(&file.with_extension("truth.jsonl")),
    })
}

fn check(golden: Golden) {
    let Golden { name, connections, mut truth } = golden;
    let mut messages = Messages::new(&truth.topics);
    let counters =
        report(connections.iter().map(|one| one.iter().map(|segment| segment.push(0))), &mut messages);
    compare(&name, "sent", &mut truth.sent, &mut messages.truth.sent);
    compare(&name, "received", &mut truth.received, &mut messages.truth.received);
    let bad: Vec<_> = counters.lost().map(|(reason, count)| (reason.name(), count)).collect();
    let refused = counters.malformed().map(|(reason, count)| (reason.name(), count));
    for (reason, count) in bad.into_iter().chain(refused) {
        assert_eq!(count, 0, "{name}: {reason}");
    }
    assert!(counters.exchanges > 0 && counters.gap_bytes == 0, "{name}: {counters:?}");
}

fn compare(name: &str, what: &str, truth: &mut Vec<Message>, reported: &mut Vec<Message>) {
    truth.sort();
    reported.sort();
    if truth != reported {
        let only = |mine: &[Message], others: &[Message]| -> Vec<Message> {
            mine.iter().filter(|message| !others.contains(message)).cloned().collect()
        };
        panic!(
            "{name}: {} {what} in truth, {} reported\nnot reported: {:#?}\nnot true: {:#?}",
            truth.len(),
            reported.len(),
            only(truth, reported),
            only(reported, truth)
        );
    }
}

#[test]
fn kafka_4_3_0() {
    goldens("4.3.0").for_each(check);
}

#[test]
fn kafka_3_9_1() {
    goldens("3.9.1").for_each(check);
}
