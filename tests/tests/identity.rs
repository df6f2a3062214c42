//! The same message has the same ids at both ends, whatever the broker makes of it on the way; two
//! messages that look alike have spans of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::truth::Truth;

const COUNT: u32 = 60;

/// Topics in which the broker changes what it was sent, or is likely to.
const TOPICS: [&str; 4] = [
    "plain",
    "appended:message.timestamp.type=LogAppendTime",
    "squeezed:compression.type=zstd",
    "both:message.timestamp.type=LogAppendTime:compression.type=gzip",
];

/// Written with the same keys, values, times, partitions and offsets.
const TWINS: [&str; 2] = ["left", "right"];

#[test]
fn a_message_is_the_same_at_both_ends() -> Result<()> {
    if !need::live("identity", &["java", "node", "go"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &TOPICS)?;
    broker.create_topics(1, &TWINS)?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    let mut truth = Truth::default();
    let mut topics: Vec<&str> = TOPICS.iter().map(|topic| topic.split(':').next().unwrap_or(topic)).collect();
    // Protocols of several generations: by topic id and by name, by sequence and not; some of it has
    // contexts.
    let producers = [
        (Library::Java, "lz4", "none"),
        (Library::Python, "none", "none"),
        (Library::KafkaPython, "gzip", "traceparent"),
        (Library::Kafkajs, "gzip", "none"),
        (Library::Sarama, "snappy", "none"),
    ];
    for (library, codec, header_style) in producers {
        for topic in &topics {
            let service = format!("{}-{topic}", library.name());
            let new = Produce::new(library, &bootstrap, topic, &service);
            Produce { count: COUNT, codec, header_style, ..new }.run(dir, &mut truth)?;
        }
    }
    for topic in TWINS {
        let service = format!("{topic}-out");
        let new = Produce::new(Library::Python, &bootstrap, topic, &service);
        let alike = ["--key-prefix", "twin", "--timestamp", "1767355201234"];
        let producer = Produce { count: COUNT, ..new }.start_with(dir, &alike)?;
        producer.finish(Duration::from_secs(60), &mut truth)?;
    }
    topics.extend(TWINS);
    for library in [Library::Java, Library::Python, Library::KafkaPython, Library::Kafkajs, Library::Sarama] {
        let service = format!("{}-in", library.name());
        let (bootstrap, topics, service) = (&*bootstrap, &*topics, &*service);
        let consume =
            Consume { library, bootstrap, topics, service, group: service, expect: truth.sent.len() };
        consume.start(dir)?.finish(Duration::from_secs(60), &mut truth)?;
    }
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    truth.append_timed = ["appended", "both"].map(str::to_owned).into();
    truth.resolve();
    let report = check(&truth, &ended.spans);
    eprintln!("{report}");
    ensure!(report.is_perfect());

    let mut twins: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in &ended.spans {
        if span.operation() == "send" && span.topic().is_some_and(|topic| TWINS.contains(&topic)) {
            twins.entry(&span.trace_id).or_default().push(&span.span_id);
        }
    }
    eprintln!("{} pairs of twins", twins.len());
    ensure!(twins.len() == COUNT as usize, "they are not as alike as they were to be");
    ensure!(twins.values().all(|ids| ids.len() == 2 && ids[0] != ids[1]), "{twins:?}");
    Ok(())
}
