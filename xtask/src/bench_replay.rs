//! `ktrace replay -o json` beside tshark: the same capture of real traffic, and both list every record with its topic,
//! partition, offset and headers.
//!
//! The traffic is kcat's, whose versions of Produce and Fetch tshark reads too (4.0 up to 8 and 11); the codecs are
//! those that both can decompress. Each topic has one partition and a consumer of its own, so that a packet's records
//! are one topic's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::scratch::Scratch;
use harness::tcpdump::Capture;
use harness::truth::Truth;
use harness::{agent, cache, ports, spans};

/// Topic, codec, messages; payloads have `PAYLOAD` bytes and compress well, so that most bytes are the first topic's.
const TOPICS: [(&str, &str, u32); 3] =
    [("orders", "none", 150_000), ("payments", "lz4", 60_000), ("clicks", "gzip", 60_000)];
const PAYLOAD: u32 = 600;

const PAIRS: usize = 3;

/// Records of each side and topic: `send orders`.
type Counts = BTreeMap<String, usize>;

pub fn bench() -> Result<()> {
    ensure!(agent::binary().exists(), "no agent at {}: build it", agent::binary().display());
    let (file, port) = capture()?;
    let mib = fs::metadata(&file)?.len() >> 20;
    let scratch = Scratch::new()?;
    let (ours, theirs) = (scratch.join("ktrace.json"), scratch.join("tshark.tsv"));
    println!("{mib} MiB, {} records on either side", TOPICS.iter().map(|topic| topic.2).sum::<u32>());
    let mut ratios = Vec::new();
    for pair in 1..=PAIRS {
        let ktrace = time(ktrace(&file, port), &ours)?;
        let tshark = time(tshark(&file, port), &theirs)?;
        let ratio = tshark.as_secs_f64() / ktrace.as_secs_f64();
        println!("pair {pair}: ktrace {ktrace:.2?}, tshark {tshark:.2?}: {ratio:.0} times as fast");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.0} times as fast", ratios[PAIRS / 2]);
    let listed = listed_by_tshark(&fs::read_to_string(theirs)?)?;
    println!("tshark listed {listed:?}");
    let counts = listed_by_ktrace(&ours)?;
    println!("ktrace listed {counts:?}, each record once");
    for (what, count) in listed {
        ensure!(counts.get(&what).is_some_and(|mine| *mine >= count), "ktrace lists fewer of `{what}`");
    }
    Ok(())
}

/// The capture, recorded once and kept in the cache, and the broker's port in it.
fn capture() -> Result<(PathBuf, u16)> {
    let dir = cache::tool("replay-capture", &[include_str!("bench_replay.rs")], |dir| {
        let scratch = Scratch::new()?;
        let [port] = ports::free()?;
        let broker = Broker::start(scratch.path(), &Settings { port, ..Settings::default() })?;
        broker.create_topics(1, &TOPICS.map(|(topic, ..)| topic))?;
        let capture = Capture::start(dir, "traffic", port)?;
        traffic(scratch.path(), &broker.bootstrap())?;
        ensure!(capture.stop()? == 0, "tcpdump lost packets");
        Ok(fs::write(dir.join("port"), port.to_string())?)
    })?;
    Ok((dir.join("traffic.pcap"), fs::read_to_string(dir.join("port"))?.parse()?))
}

fn traffic(dir: &Path, bootstrap: &str) -> Result<()> {
    let mut truth = Truth::default();
    let within = Duration::from_secs(120);
    for (topic, codec, count) in TOPICS {
        let new = Produce::new(Library::Kcat, bootstrap, topic, topic);
        Produce { count, codec, payload: PAYLOAD, header_style: "traceparent", ..new }
            .run(dir, &mut truth)?;
        let (service, topics) = (format!("{topic}-in"), [topic]);
        let (service, group, expect) = (service.as_str(), service.as_str(), count as usize);
        Consume { library: Library::Kcat, bootstrap, topics: &topics, service, group, expect }
            .start(dir)?
            .finish(within, &mut truth)?;
    }
    Ok(())
}

fn ktrace(file: &Path, port: u16) -> Command {
    let mut command = Command::new(agent::binary());
    command.args(["replay", "-o", "json", "--ports", &port.to_string()]).arg(file);
    command
}

fn tshark(file: &Path, port: u16) -> Command {
    let mut command = Command::new("tshark");
    command.args(["-n", "-d", &format!("tcp.port=={port},kafka"), "-Y", "kafka.record_attributes"]);
    command.args(["-T", "fields"]);
    for field in [
        "kafka.request_key",
        "kafka.topic_name",
        "kafka.record_attributes",
        "kafka.partition_id",
        "kafka.offset",
        "kafka.message_key",
        "kafka.header_key",
        "kafka.header_value",
    ] {
        command.args(["-e", field]);
    }
    command.arg("-r").arg(file);
    command
}

fn time(mut command: Command, output: &Path) -> Result<Duration> {
    let since = Instant::now();
    let status = command.stdout(File::create(output)?).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(since.elapsed())
}

/// A line a packet: request key (none in responses), topics, an attribute for each record.
fn listed_by_tshark(output: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in output.lines() {
        let mut fields = line.split('\t');
        let side = if fields.next().context("no key")?.is_empty() { "poll" } else { "send" };
        let topic = fields.next().and_then(|topics| topics.split(',').next()).context("no topic")?;
        let records = fields.next().context("no records")?.split(',').count();
        *counts.entry(format!("{side} {topic}")).or_default() += records;
    }
    Ok(counts)
}

/// Every offset of every topic has to be there once on either side, so no record is missing.
fn listed_by_ktrace(output: &Path) -> Result<Counts> {
    let mut offsets: BTreeMap<String, (usize, BTreeSet<i64>)> = BTreeMap::new();
    for span in spans::read(output)?.iter().filter(|span| span.operation() != "commit") {
        let (count, offsets) = offsets.entry(span.name.clone()).or_default();
        *count += 1;
        offsets.insert(span.place().context("a span without a place")?.offset);
    }
    for (topic, _, count) in TOPICS {
        for side in ["send", "poll"] {
            let what = format!("{side} {topic}");
            let (times, offsets) = offsets.get(&what).with_context(|| format!("no `{what}`"))?;
            let all = offsets.iter().copied().eq(0..i64::from(count));
            ensure!(all && *times == count as usize, "`{what}`: {times} spans, {} offsets", offsets.len());
        }
    }
    Ok(offsets.into_iter().map(|(what, (count, _))| (what, count)).collect())
}
