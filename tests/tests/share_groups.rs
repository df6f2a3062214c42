//! Two members of a share group that accept, release, reject and renew, and one of another that
//! comes too late: each thing that a broker learnt of a message is a span, of the right type, in
//! the message's trace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Consume, Library, Produce};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::Truth;

const GROUP: &str = "messaging.consumer.group.name";

/// What was said of a message: group, partition, offset, type, error.
type Said<'a> = (&'a str, i32, i64, &'a str, Option<&'a str>);

#[test]
fn what_members_say_of_messages_is_told() -> Result<()> {
    if !need::live("share groups", &["java"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let properties = "group.share.min.record.lock.duration.ms=1000\ngroup.share.delivery.count.limit=10";
    let broker =
        Broker::start(dir, &Settings { port, properties: properties.into(), ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(3, &["orders"])?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    let member = |service, group, more: &[&str]| {
        let topics = &["orders"];
        let consume = Consume {
            library: Library::Java,
            bootstrap: &bootstrap,
            topics,
            service,
            group,
            expect: 1 << 30,
        };
        let rules = ["--group-protocol", "share", "--acknowledge", "rules", "--idle-ms", "8000"];
        consume.start_with(dir, &[&rules, more].concat())
    };
    let mut truth = Truth::default();
    let members = [
        member("billing-0", "billing", &[])?,
        member("billing-1", "billing", &[])?,
        member("late", "late", &["--lock-ms", "2000", "--hold-ms", "5000"])?,
    ];
    let produce = Produce::new(Library::Python, &bootstrap, "orders", "orders-out");
    let produce = Produce { count: 900, interval_ms: 5, header_style: "traceparent", ..produce };
    produce.run(dir, &mut truth)?;
    for member in members {
        member.finish(Duration::from_secs(120), &mut truth)?;
    }
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);

    let mut said: BTreeMap<Said<'_>, (i64, BTreeSet<i64>)> = BTreeMap::new();
    for line in &truth.acknowledged {
        let (Some(group), Some(partition), Some(offset), Some(of)) =
            (&line.group, line.partition, line.offset, &line.acknowledge)
        else {
            anyhow::bail!("{line:?}");
        };
        let (count, deliveries) =
            said.entry((group, partition, offset, of, line.error.as_deref())).or_default();
        *count += 1;
        deliveries.extend(line.delivery);
    }
    let polls: HashMap<&str, &Span> = of(&ended.spans, "poll").map(|span| (&*span.span_id, span)).collect();
    let acks: Vec<&Span> = of(&ended.spans, "ack").collect();
    let mut left: BTreeMap<Said<'_>, i64> = said.iter().map(|(of, (count, _))| (*of, *count)).collect();
    let (mut wrong, mut types) = (Vec::new(), BTreeMap::<_, usize>::new());
    for ack in &acks {
        wrong.extend(covers(ack, &polls, &said, &mut left, &mut types));
    }
    wrong
        .extend(left.iter().filter(|(_, left)| **left != 0).map(|(of, left)| format!("{left} times {of:?}")));
    eprintln!(
        "{} acknowledged in {} spans, of them {types:?}; {} wrong",
        truth.acknowledged.len(),
        acks.len(),
        wrong.len()
    );
    ensure!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(5)]);
    let has =
        |of: &str, error: Option<&str>| types.keys().any(|(known, failed)| *known == of && *failed == error);
    ensure!(
        ["accept", "release", "reject", "renew"].iter().all(|of| has(of, None)),
        "not all of them: {types:?}"
    );
    ensure!(has("accept", Some("INVALID_RECORD_STATE")), "none came too late: {types:?}");
    ensure!(acks.iter().any(|ack| !ack.links.is_empty()), "all were said one by one");
    Ok(())
}

fn of<'a>(spans: &'a [Span], operation: &'a str) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(move |span| span.operation() == operation)
}

/// What is wrong with a span, held against all that was said and the deliveries that it names.
fn covers<'a>(
    ack: &'a Span,
    polls: &HashMap<&str, &Span>,
    said: &BTreeMap<Said<'a>, (i64, BTreeSet<i64>)>,
    left: &mut BTreeMap<Said<'a>, i64>,
    types: &mut BTreeMap<(&'a str, Option<&'a str>), usize>,
) -> Option<String> {
    let messages = ack.attributes.get("ktrace.acknowledge.messages").and_then(serde_json::Value::as_i64);
    let (Some(place), Some(messages), Some(group), Some(kind)) =
        (ack.place(), messages, ack.text(GROUP), ack.text("ktrace.acknowledge.type"))
    else {
        return Some(format!("{ack:?}"));
    };
    let error = ack.text("error.type");
    *types.entry((kind, error)).or_default() += 1;
    if (ack.status == "error") != error.is_some() || messages < 1 {
        return Some(format!("{ack:?}"));
    }
    // The parent, then the links: the last message first.
    let parent = ack.parent_span_id.as_deref().map(|id| (id, &*ack.trace_id));
    let links = ack.links.iter().map(|link| (&*link.span_id, &*link.trace_id));
    let mut named = parent.into_iter().chain(links);
    for offset in (place.offset - messages + 1..=place.offset).rev() {
        let of = (group, place.partition, offset, kind, error);
        *left.entry(of).or_default() -= 1;
        // A span names 32.
        if place.offset - offset >= 32 {
            continue;
        }
        let poll = named.next().and_then(|(id, trace)| polls.get(id).filter(|poll| poll.trace_id == trace));
        let is_right = poll.zip(said.get(&of)).is_some_and(|(poll, (_, deliveries))| {
            let count = poll.attributes.get("ktrace.delivery.count").and_then(serde_json::Value::as_i64);
            poll.text(GROUP) == Some(group)
                && poll.service() == ack.service()
                && poll.place().is_some_and(|at| (at.partition, at.offset) == (place.partition, offset))
                && deliveries.contains(&count.unwrap_or(1))
        });
        if !is_right {
            return Some(format!("{of:?} is said of {poll:?} by {ack:?}"));
        }
    }
    named.next().map(|more| format!("{more:?} is more than it should name: {ack:?}"))
}
