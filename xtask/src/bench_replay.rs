//! `ktrace replay -o json` beside tshark: the same capture of real traffic, and both list every
//! record with its topic, partition, offset and headers.
//!
//! The traffic is kcat's, whose versions of Produce and Fetch tshark reads too (4.0 up to 8 and
//! 11); the codecs are those that both can decompress. Each topic has one partition and a consumer
//! of its own, so that a packet's records are one topic's.

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

/// Topics of one capture. Payloads have `PAYLOAD` bytes and compress well, so that most bytes are
/// uncompressed ones.
struct Traffic {
    name: &'static str,
    /// Topic, codec, messages.
    topics: &'static [(&'static str, &'static str, u32)],
    /// For the producers.
    extra: &'static [&'static str],
}

const PAYLOAD: u32 = 600;

const TRAFFIC: [Traffic; 2] = [
    Traffic {
        name: "batches of thousands",
        topics: &[("orders", "none", 150_000), ("payments", "lz4", 60_000), ("clicks", "gzip", 60_000)],
        extra: &[],
    },
    Traffic {
        name: "one message a request",
        topics: &[("orders", "none", 120_000), ("payments", "lz4", 20_000), ("clicks", "gzip", 20_000)],
        extra: &["-X", "batch.num.messages=1"],
    },
];

const PAIRS: usize = 3;

/// Records of each side and topic: `send orders`.
type Counts = BTreeMap<String, usize>;

pub fn bench() -> Result<()> {
    ensure!(agent::binary().exists(), "no agent at {}: build it", agent::binary().display());
    TRAFFIC.iter().try_for_each(bench_one)
}

fn bench_one(what: &Traffic) -> Result<()> {
    let (file, port) = capture(what)?;
    let mib = fs::metadata(&file)?.len() >> 20;
    let records = what.topics.iter().map(|topic| topic.2).sum::<u32>();
    println!("{}: {mib} MiB, {records} records sent and as many received", what.name);
    let scratch = Scratch::new()?;
    let (ours, theirs) = (scratch.join("ktrace.json"), scratch.join("tshark.tsv"));
    let mut ratios = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let listing = time(ktrace(&file, port, &[]), &ours)?;
        let tshark = time(tshark(&file, port), &theirs)?;
        // what is not kept is read all the same
        let reading = time(ktrace(&file, port, &["--sample", "0"]), &scratch.join("nothing"))?;
        println!("  tshark {tshark:.2?}; ktrace {listing:.2?}, without the spans {reading:.2?}");
        ratios.0.push(tshark.as_secs_f64() / listing.as_secs_f64());
        ratios.1.push(tshark.as_secs_f64() / reading.as_secs_f64());
    }
    let (listing, reading) = (median(ratios.0), median(ratios.1));
    println!("  median: {listing:.1} times as fast, {reading:.0} times without the spans");
    let listed = listed_by_tshark(&fs::read_to_string(theirs)?)?;
    let counts = listed_by_ktrace(what, &ours)?;
    println!("  tshark listed {listed:?}\n  ktrace listed {counts:?}, each record once");
    for (what, count) in listed {
        ensure!(counts.get(&what).is_some_and(|mine| *mine >= count), "ktrace lists fewer of `{what}`");
    }
    Ok(())
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The capture, recorded once and kept in the cache, and the broker's port in it.
fn capture(what: &Traffic) -> Result<(PathBuf, u16)> {
    let recipe = [what.name, &format!("{:?} {PAYLOAD} {:?}", what.topics, what.extra)];
    let dir = cache::tool("replay-capture", &recipe, |dir| {
        let scratch = Scratch::new()?;
        let [port] = ports::free()?;
        let broker = Broker::start(scratch.path(), &Settings { port, ..Settings::default() })?;
        let topics: Vec<&str> = what.topics.iter().map(|topic| topic.0).collect();
        broker.create_topics(1, &topics)?;
        let capture = Capture::start(dir, "traffic", port)?;
        traffic(what, scratch.path(), &broker.bootstrap())?;
        ensure!(capture.stop()? == 0, "tcpdump lost packets");
        Ok(fs::write(dir.join("port"), port.to_string())?)
    })?;
    Ok((dir.join("traffic.pcap"), fs::read_to_string(dir.join("port"))?.parse()?))
}

fn traffic(what: &Traffic, dir: &Path, bootstrap: &str) -> Result<()> {
    let mut truth = Truth::default();
    let within = Duration::from_secs(120);
    for &(topic, codec, count) in what.topics {
        let new = Produce::new(Library::Kcat, bootstrap, topic, topic);
        Produce { count, codec, payload: PAYLOAD, header_style: "traceparent", ..new }
            .start_with(dir, what.extra)?
            .finish(within, &mut truth)?;
        let (service, topics) = (format!("{topic}-in"), [topic]);
        let (service, group, expect) = (service.as_str(), service.as_str(), count as usize);
        Consume { library: Library::Kcat, bootstrap, topics: &topics, service, group, expect }
            .start(dir)?
            .finish(within, &mut truth)?;
    }
    Ok(())
}

fn ktrace(file: &Path, port: u16, extra: &[&str]) -> Command {
    let mut command = Command::new(agent::binary());
    command.args(["replay", "-o", "json", "--ports", &port.to_string()]).args(extra).arg(file);
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
fn listed_by_ktrace(what: &Traffic, output: &Path) -> Result<Counts> {
    let mut offsets: BTreeMap<String, (usize, BTreeSet<i64>)> = BTreeMap::new();
    for span in spans::read(output)?.iter().filter(|span| span.operation() != "commit") {
        let (count, offsets) = offsets.entry(span.name.clone()).or_default();
        *count += 1;
        offsets.insert(span.place().context("a span without a place")?.offset);
    }
    for &(topic, _, count) in what.topics {
        for side in ["send", "poll"] {
            let what = format!("{side} {topic}");
            let (times, offsets) = offsets.get(&what).with_context(|| format!("no `{what}`"))?;
            let all = offsets.iter().copied().eq(0..i64::from(count));
            ensure!(all && *times == count as usize, "`{what}`: {times} spans, {} offsets", offsets.len());
        }
    }
    Ok(offsets.into_iter().map(|(what, (count, _))| (what, count)).collect())
}
