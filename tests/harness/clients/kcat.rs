//! kcat (librdkafka in C). It logs no truth of its own: what it sends is known beforehand but for
//! the place, and what it receives it prints as JSON.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Result, bail};

use super::client::{Client, Log, log_file};
use super::kcat_log::Output;
use super::library::Library;
use super::work::{Consume, Produce};
use crate::process::{self, Process};
use crate::truth::{Event, HeaderValue, Line};

/// All messages of one run have the same headers.
pub(super) fn produce(what: &Produce<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let headers = headers(what.header_style)?;
    let mut input = String::new();
    let mut lines = Vec::new();
    for i in 0..what.count {
        let key = format!("{}-{i}", what.service);
        let value: String = std::iter::repeat_n("item-0 ", what.payload.div_ceil(7) as usize).collect();
        let value = &value[..what.payload as usize];
        writeln!(input, "{key}:{value}")?;
        let mut line = blank(Event::Sent, what.service);
        line.topic = what.topic.into();
        line.key = Some(key);
        line.value_len = Some(u64::from(what.payload));
        line.headers = headers
            .iter()
            .map(|(key, value)| ((*key).into(), Some(HeaderValue::Text(value.clone()))))
            .collect();
        lines.push(line);
    }
    let messages = dir.join(format!("{}.messages", what.service));
    fs::write(&messages, input)?;
    let mut command = process::command("kcat");
    command.args(["-P", "-b", what.bootstrap, "-t", what.topic, "-K", ":", "-z", what.codec, "-l"]);
    command.args(["-X", &format!("client.id={}", what.service), "-X", &format!("acks={}", what.acks)]);
    for (key, value) in &headers {
        command.args(["-H", &format!("{key}={value}")]);
    }
    command.args(extra).arg(messages).env("OTEL_SERVICE_NAME", what.service);
    let process = Process::start(what.service, &mut command, &log_file(dir, what.service))?;
    Ok(Client::new(process, Log::Kcat(Output::Sent(lines))))
}

pub(super) fn consume(what: &Consume<'_>, dir: &Path, extra: &[&str]) -> Result<Client> {
    let output = dir.join(format!("{}.jsonl", what.service));
    let mut command = process::command("kcat");
    // unbuffered, so that what it printed before its end is in the file
    command.args(["-b", what.bootstrap, "-q", "-J", "-u", "-c", &what.expect.to_string()]);
    command.args(["-X", &format!("client.id={}", what.service), "-X", "auto.offset.reset=earliest"]);
    command.args(extra).args(["-G", what.group]).args(what.topics).env("OTEL_SERVICE_NAME", what.service);
    let log = log_file(dir, what.service);
    let process = Process::start_with_output(what.service, &mut command, File::create(&output)?, &log)?;
    let mut pattern = blank(Event::Received, what.service);
    pattern.group = Some(what.group.into());
    Ok(Client::new(process, Log::Kcat(Output::Received(output, Box::new(pattern)))))
}

fn blank(event: Event, service: &str) -> Line {
    Line {
        event,
        client: Library::Kcat.name().into(),
        service: service.into(),
        client_id: service.into(),
        group: None,
        topic: String::new(),
        partition: None,
        offset: None,
        timestamp: None,
        key: None,
        value_len: None,
        headers: Vec::new(),
        error: None,
        acknowledge: None,
        delivery: None,
        because: Vec::new(),
        aborted: false,
    }
}

fn headers(style: &str) -> Result<Vec<(&'static str, String)>> {
    let (trace, span) = (random_hex(16)?, random_hex(8)?);
    Ok(match style {
        "none" => Vec::new(),
        "traceparent" => vec![("traceparent", format!("00-{trace}-{span}-01"))],
        "b3" => vec![("b3", format!("{trace}-{span}-1"))],
        "b3-multi" => vec![("X-B3-TraceId", trace), ("X-B3-SpanId", span), ("X-B3-Sampled", "1".into())],
        "trace_id" => vec![("trace_id", trace), ("span_id", span)],
        "traceId" => vec![("traceId", trace), ("spanId", span)],
        "trace-id" => vec![("trace-id", trace), ("span-id", span)],
        other => bail!("unknown header style: {other}"),
    })
}

fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
