//! The messages of the ground truth: four client libraries, all codecs, several header formats, and
//! groups that read them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clients::{Client, Consume, Library, Produce};
use crate::truth::Truth;

/// A topic for each library.
const LIBRARIES: [(Library, &str); 4] = [
    (Library::Java, "orders"),
    (Library::JavaAgent, "payments"),
    (Library::Python, "shipments"),
    (Library::Kcat, "clicks"),
];

/// Codec, and the header style of those libraries that write their own.
const KINDS: [(&str, &str); 5] =
    [("none", "none"), ("gzip", "traceparent"), ("snappy", "trace_id"), ("lz4", "b3-multi"), ("zstd", "b3")];

/// Two groups that get everything, and a third of the C library that gets one topic.
const CONSUMERS: [(Library, &str, usize); 3] =
    [(Library::Java, "billing", 4), (Library::Python, "audit", 4), (Library::Kcat, "search", 1)];

/// Those that it needs.
#[must_use]
pub fn topics() -> [&'static str; 4] {
    LIBRARIES.map(|(_, topic)| topic)
}

/// All clients' work, one producer after the other, while the consumers read: `each` messages of
/// each library with each codec, of `payload` bytes.
pub fn run(dir: &Path, bootstrap: &str, each: u32, payload: u32) -> Result<Truth> {
    let topics = topics();
    let of_topic = each as usize * KINDS.len();
    let consumers = CONSUMERS
        .iter()
        .map(|&(library, group, count)| {
            let topics = &topics[..count];
            Consume { library, bootstrap, topics, service: group, group, expect: of_topic * count }.start(dir)
        })
        .collect::<Result<Vec<Client>>>()?;
    let mut truth = Truth::default();
    for (library, topic) in LIBRARIES {
        for (codec, header_style) in KINDS {
            let header_style = if library == Library::JavaAgent { "none" } else { header_style };
            let service = format!("{topic}-{codec}");
            let new = Produce::new(library, bootstrap, topic, &service);
            Produce { count: each, codec, payload, header_style, ..new }.run(dir, &mut truth)?;
        }
    }
    for consumer in consumers {
        consumer.finish(Duration::from_secs(60), &mut truth)?;
    }
    truth.resolve();
    let wrong = truth.disagreements();
    ensure!(
        wrong.is_empty() && truth.errors.is_empty(),
        "the clients disagree: {wrong:.3?} {:?}",
        truth.errors
    );
    ensure!(truth.sent.len() == 4 * of_topic, "{} sent", truth.sent.len());
    Ok(truth)
}
