//! The clients that are measured: Kafka's own performance tools for Java, and kcat for librdkafka
//! (its `rdkafka_performance` is in no Debian package). Each is a process of its own, from
//! connecting to its end.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::process::{self, Process};
use harness::tools;

/// A client has to end within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Java with the class path of Kafka's tools and of the harness's own clients, and the heap that
/// Kafka's scripts give to tools.
pub fn java(main: &str) -> Result<Command> {
    let mut classes = tools::java_clients()?.into_os_string();
    classes.push(":");
    classes.push(tools::kafka(tools::KAFKA_VERSION)?);
    let mut command = process::command("java");
    command.args(["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]).arg(classes).arg(main);
    Ok(command)
}

/// What a producer is to send.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub topic: &'a str,
    pub codec: &'a str,
    pub record: u32,
    pub count: u64,
}

/// `ProducerPerformance`; records a second after its first quarter, in which Java compiles.
pub fn java_producer(dir: &Path, bootstrap: &str, what: Batch<'_>) -> Result<f64> {
    let mut command = java("org.apache.kafka.tools.ProducerPerformance")?;
    command.args(["--bootstrap-server", bootstrap, "--topic", what.topic, "--throughput", "-1"]);
    command.args(["--num-records", &what.count.to_string(), "--record-size", &what.record.to_string()]);
    command.args(["--warmup-records", &(what.count / 4).to_string(), "--command-property"]);
    command.arg(format!("compression.type={}", what.codec));
    produced(&finish("ProducerPerformance", command, &dir.join("producer.log"))?)
}

/// `ConsumerPerformance` on a topic that has enough; records a second in its second half. In the
/// first, Java's compilers take more of the processors than all else, and whatever takes from them
/// makes the client slow for longer.
pub fn java_consumer(dir: &Path, bootstrap: &str, topic: &str, count: u64) -> Result<f64> {
    let mut command = java("org.apache.kafka.tools.ConsumerPerformance")?;
    command.args(["--bootstrap-server", bootstrap, "--topic", topic]);
    command.args(["--num-records", &count.to_string()]);
    command.args(["--show-detailed-stats", "--reporting-interval", "100"]);
    consumed(&finish("ConsumerPerformance", command, &dir.join("consumer.log"))?)
}

/// kcat sends the lines of a file; records a second from its start to its end.
pub fn kcat_producer(dir: &Path, bootstrap: &str, lines: &Path, what: Batch<'_>) -> Result<f64> {
    let mut command = process::command("kcat");
    command.args(["-P", "-b", bootstrap, "-t", what.topic, "-z", what.codec, "-l"]).arg(lines);
    let since = Instant::now();
    finish("kcat", command, &dir.join("kcat.log"))?;
    Ok(what.count as f64 / since.elapsed().as_secs_f64())
}

/// Lines of random letters, as `ProducerPerformance` sends them.
pub fn write_lines(file: &Path, record: u32, count: u64) -> Result<()> {
    let mut output = BufWriter::new(File::create(file)?);
    let mut line = vec![b'\n'; record as usize + 1];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count {
        for letter in &mut line[..record as usize] {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *letter = b'A' + (state % 26) as u8;
        }
        output.write_all(&line)?;
    }
    Ok(output.flush()?)
}

fn finish(name: &str, mut command: Command, log: &Path) -> Result<String> {
    // the last one's
    let _ = fs::remove_file(log);
    let mut process = Process::start(name, &mut command, log)?;
    process.finish(PATIENCE)?;
    Ok(process.said())
}

/// Of `439453 steady state records sent, 40890.760212 records/sec (39.93 MB/sec), …`.
fn produced(said: &str) -> Result<f64> {
    let rate = said.lines().find_map(|line| {
        let (_, rest) = line.split_once(" steady state records sent, ")?;
        rest.split(' ').next()?.parse().ok()
    });
    rate.with_context(|| format!("ProducerPerformance said:\n{said}"))
}

/// Of the lines that it says every 100 ms, each with the time and the records so far, those of the
/// second half of the records.
fn consumed(said: &str) -> Result<f64> {
    let lines: Vec<(f64, f64)> = said.lines().filter_map(progress).collect();
    let rate = || {
        let &(end, all) = lines.last()?;
        let &(middle, half) = lines.iter().find(|(_, count)| *count >= all / 2.0)?;
        // of two days, where midnight is between
        let seconds = (end - middle).rem_euclid(86_400.0);
        (seconds > 0.0).then_some((all - half) / seconds)
    };
    rate().with_context(|| format!("ConsumerPerformance said:\n{said}"))
}

/// Of `2026-11-23 13:07:40:654, 0, 572.2041, 141.8102, 585937, …` (10 fields): seconds of the day,
/// and `data.consumed.in.nMsg`.
fn progress(line: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = line.split(", ").collect();
    let (_, time) = fields.first()?.split_once(' ')?;
    let parts: Vec<f64> = time.split(':').map_while(|part| part.parse().ok()).collect();
    let &[hours, minutes, seconds, milliseconds] = parts.as_slice() else { return None };
    let time = hours * 3600.0 + minutes * 60.0 + seconds + milliseconds / 1000.0;
    (fields.len() == 10).then(|| Some((time, fields.get(4)?.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::{consumed, produced};

    #[test]
    fn what_the_tools_say() {
        let said = "585937 records sent, 23580.851578 records/sec (23.03 MB/sec), 1159.60 ms avg latency
439453 steady state records sent, 40890.760212 records/sec (39.93 MB/sec), 674.59 ms avg latency, 1793.00 ms max
";
        assert_eq!(produced(said).unwrap(), 40_890.760_212);
        let said = "time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-11-23 13:07:32:294, 0, 9.7656, 97.6563, 10000, 100000.0000, 0, 100, 97.6563, 100000.0000
2026-11-23 13:07:32:394, 0, 39.0625, 292.9688, 40000, 300000.0000, 0, 100, 292.9688, 300000.0000
2026-11-23 13:07:32:494, 0, 78.1250, 390.6250, 80000, 400000.0000, 0, 100, 390.6250, 400000.0000
";
        assert_eq!(consumed(said).unwrap().round(), 400_000.0);
        assert!(consumed("no records").is_err() && produced("").is_err());
    }
}
