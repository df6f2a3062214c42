//! The harness against itself, without the agent: every client library sends and receives, and both
//! sides' truths agree. And a span that is sent to the Collector arrives in its file and in Jaeger.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::collector::Collector;
use harness::jaeger::Jaeger;
use harness::need::{self, Need};
use harness::ports;
use harness::scratch::Scratch;
use harness::truth::Truth;

#[test]
fn truths_of_all_clients_agree() -> Result<()> {
    if !need::met("clients", &[Need::Program("java"), Need::Program("kcat")]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders"])?;
    let mut truth = Truth::default();
    let all = [
        (Library::Java, "java-out", "zstd", "b3-multi"),
        (Library::JavaAgent, "agent-out", "lz4", "none"),
        (Library::Python, "python-out", "snappy", "trace_id"),
        (Library::Kcat, "kcat-out", "gzip", "traceparent"),
    ];
    for (library, service, codec, header_style) in all {
        let new = Produce::new(library, &bootstrap, "orders", service);
        Produce { count: 100, codec, header_style, ..new }.run(dir, &mut truth)?;
    }
    for (library, service) in
        [(Library::Java, "java-in"), (Library::Python, "python-in"), (Library::Kcat, "kcat-in")]
    {
        let topics = ["orders"];
        Consume { library, bootstrap: &bootstrap, topics: &topics, service, group: service, expect: 400 }
            .start(dir)?
            .finish(Duration::from_secs(60), &mut truth)?;
    }
    ensure!((truth.sent.len(), truth.received.len(), truth.errors.len()) == (400, 1200, 0), "{truth:?}");
    truth.resolve();
    let wrong = truth.disagreements();
    ensure!(wrong.is_empty(), "{} disagreements, the first: {}", wrong.len(), wrong[0]);
    let instrumented = truth.sent.iter().filter(|line| line.client == "java-agent");
    ensure!(instrumented.clone().count() == 100, "not 100 from Java with its agent");
    ensure!(
        instrumented.clone().all(|line| line.header("traceparent").is_some()),
        "the Java agent put no traceparent"
    );
    Ok(())
}

#[test]
fn collector_and_jaeger_keep_a_span() -> Result<()> {
    if !need::met("collector and Jaeger", &[Need::Program("go")]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let jaeger = Jaeger::start(dir)?;
    let collector = Collector::start(dir, Some(&jaeger.otlp_address()))?;
    let (trace, parent, child) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "00f067aa0ba902b8");
    let span = |id: &str, parent: &str, name: &str| {
        format!(
            r#"{{"traceId":"{trace}","spanId":"{id}","parentSpanId":"{parent}","name":"{name}","kind":4,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000001000000"}}"#
        )
    };
    let resource = |service: &str, span: &str| {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},"scopeSpans":[{{"spans":[{span}]}}]}}"#
        )
    };
    let sent = resource("orders-api", &span(parent, "", "send orders"));
    let polled = resource("billing", &span(child, parent, "poll orders"));
    let body = format!(r#"{{"resourceSpans":[{sent},{polled}]}}"#);
    let mut stream = TcpStream::connect(("127.0.0.1", collector.http_port))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/traces HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");

    let shown = jaeger.trace(trace, 2)?;
    let poll = shown.iter().find(|span| span.span_id == child);
    ensure!(
        poll.is_some_and(|span| span.parent_span_id.as_deref() == Some(parent) && span.service == "billing")
    );
    ensure!(jaeger.services()?.contains(&"orders-api".to_owned()));
    let collected = collector.stop()?;
    ensure!(collected.len() == 2, "{collected:?}");
    ensure!(
        collected
            .iter()
            .any(|span| span.service == "billing" && span.parent_span_id.as_deref() == Some(parent))
    );
    Ok(())
}
