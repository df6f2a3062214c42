//! Servers that do not speak Kafka: none of what they say is shown as a message, neither on ports
//! that were named as Kafka's nor where ktrace looks for Kafka by itself; neither on new
//! connections nor on those of before the agent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::agent::{Agent, Ended};
use harness::collector::Collector;
use harness::jaeger::Jaeger;
use harness::namespace::Namespace;
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::servers::{PROTOCOLS, Server};

#[test]
fn are_not_taken_for_kafka() -> Result<()> {
    let of_protocols = PROTOCOLS.iter().flat_map(|protocol| protocol.programs);
    let programs: Vec<_> = ["go", "ip", "unshare"].iter().chain(of_protocols).copied().collect();
    if !need::live("other protocols", &programs) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // in a network of their own, so that Kafka that is spoken elsewhere on the host meanwhile does not
    // count
    let network = Namespace::new(scratch.path(), "others")?;
    network.within(|| talk(scratch.path(), &network.path().display().to_string()))
}

fn talk(dir: &Path, netns: &str) -> Result<()> {
    let free: [u16; PROTOCOLS.len()] = ports::free()?;
    let servers: Vec<Server> = PROTOCOLS
        .iter()
        .zip(free)
        .map(|(protocol, port)| protocol.serve(dir, port))
        .collect::<Result<_>>()?;
    let grpc = Jaeger::start(dir)?;
    let collector = Collector::start(dir, Some(&grpc.otlp_address()))?;
    let port_of = |name: &str| {
        servers
            .iter()
            .find(|server| server.name() == name)
            .map(|server| server.port)
            .context("no such server")
    };
    let mut old = Old::open(port_of("redis")?, port_of("http1")?)?;
    old.talk()?;

    let mut all: Vec<String> = servers.iter().map(|server| server.port.to_string()).collect();
    all.extend([grpc.otlp_grpc_port, collector.http_port].map(|port| port.to_string()));
    let named = Agent::observe(dir, "named", all.join(","), &["--netns", netns])?;
    let auto = Agent::observe(dir, "auto", "auto", &["--netns", netns])?;
    old.talk()?;
    for server in &servers {
        server.talk()?;
    }
    over_grpc(&collector, &grpc)?;
    old.talk()?;

    let (named, auto) = (named.stop()?, auto.stop()?);
    eprintln!("on ports that were named: {}\nauto: {}", named.summary, auto.summary);
    nothing_told(&named)?;
    nothing_told(&auto)?;
    // the named ports were looked at: each server had a connection at least
    let count = |summary: &serde_json::Value, name: &str| summary[name].as_u64().unwrap_or_default();
    ensure!(count(&named.summary, "connections") >= all.len() as u64, "{}", named.summary);
    ensure!(
        count(&named.summary["lost"], "not_kafka") + count(&named.summary["lost"], "tls") >= all.len() as u64
    );
    ensure!(count(&auto.summary, "connections") == 0, "taken for Kafka: {}", auto.summary);
    Ok(())
}

fn nothing_told(ended: &Ended) -> Result<()> {
    ensure!(ended.status.success(), "{}", ended.stderr);
    ensure!(ended.spans.is_empty(), "{} spans: {:?}", ended.spans.len(), ended.spans.first());
    for seen in ["exchanges", "batches", "records", "spans"] {
        ensure!(ended.summary[seen] == 0, "{seen}: {}", ended.summary);
    }
    Ok(())
}

/// Connections that are there before the agents and go on after.
struct Old {
    redis: TcpStream,
    http: TcpStream,
}

impl Old {
    fn open(redis: u16, http: u16) -> Result<Self> {
        let open = |port| TcpStream::connect(("127.0.0.1", port));
        Ok(Self { redis: open(redis)?, http: open(http)? })
    }

    fn talk(&mut self) -> Result<()> {
        for _ in 0..20 {
            self.redis.write_all(b"PING\r\n")?;
            self.redis.read_exact(&mut [0; 7])?;
        }
        for _ in 0..3 {
            self.http.write_all(b"GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                self.http.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let length: u64 = length.with_context(|| format!("no length: {head}"))?;
            std::io::copy(&mut (&mut self.http).take(length), &mut std::io::sink())?;
        }
        Ok(())
    }
}

/// The Collector hands to Jaeger what it is given.
fn over_grpc(collector: &Collector, jaeger: &Jaeger) -> Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let span = format!(
        r#"{{"traceId":"{TRACE}","spanId":"00f067aa0ba902b7","name":"send","kind":4,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000001000000"}}"#
    );
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
    let mut stream = TcpStream::connect(("127.0.0.1", collector.http_port))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/traces HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    jaeger.trace(TRACE, 1)?;
    Ok(())
}
