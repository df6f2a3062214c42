//! A topic that is deleted and created anew under the same name: its offsets begin anew, and no
//! message of the one is taken for one of the other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::truth::Truth;

const COUNT: u32 = 50;

#[test]
fn a_topic_that_is_created_anew_is_another() -> Result<()> {
    if !need::live("recreated", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    let agent = Agent::observe(dir, "agent", port, &["--keys"])?;
    let mut truth = Truth::default();
    for generation in ["first", "second", "third"] {
        broker.create_topics(1, &["orders"])?;
        let produce = Produce::new(Library::Python, &bootstrap, "orders", generation);
        Produce { count: COUNT, ..produce }.run(dir, &mut truth)?;
        for library in [Library::Java, Library::Python] {
            let service = format!("{}-{generation}", library.name());
            let consume = Consume {
                library,
                bootstrap: &bootstrap,
                topics: &["orders"],
                service: &service,
                group: library.name(),
                expect: COUNT as usize,
            };
            consume.start(dir)?.finish(Duration::from_secs(60), &mut truth)?;
        }
    }
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in ended.spans.iter().filter(|span| span.operation() != "commit") {
        ensure!(!span.attributes.contains_key("ktrace.delivery.count"), "not the same message: {span:?}");
        traces.entry(&span.trace_id).or_default().push(span);
    }
    eprintln!("{} messages of {} generations, as many traces: {}", 3 * COUNT, 3, traces.len());
    ensure!(traces.len() == 3 * COUNT as usize);
    for spans in traces.values() {
        let key = spans[0].text("messaging.kafka.message.key");
        let same = spans.iter().all(|span| key.is_some() && span.text("messaging.kafka.message.key") == key);
        let polls = spans.iter().filter(|span| span.operation() == "poll").count();
        ensure!(same && spans.len() == 3 && polls == 2, "{spans:?}");
    }
    Ok(())
}
