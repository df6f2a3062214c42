//! What producers' libraries say of attempts that failed: the truth to hold `ktrace.attempts`
//! against.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::spans::Span;

/// Attempts to send messages of a partition that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Those that a broker answered with an error.
    pub by_broker: u64,
    /// Those that got no answer. Whether anything was sent at all, the library does not say.
    pub unanswered: u64,
    /// How often by which error.
    pub errors: BTreeMap<String, u64>,
}

impl Refused {
    fn add(&mut self, error: &str, messages: u64, is_answer: bool) {
        *if is_answer { &mut self.by_broker } else { &mut self.unanswered } += messages;
        *self.errors.entry(error.to_owned()).or_default() += messages;
    }
}

pub type ByPartition = BTreeMap<i32, Refused>;

/// Of a Java producer's log at `warn`, with a message a batch.
pub fn java(log: &str) -> Result<ByPartition> {
    let mut refused = ByPartition::new();
    for line in log.lines().filter(|line| line.contains("Got error produce response")) {
        let told = || {
            let partition = between(line, "on topic-partition ", ",")?.rsplit_once('-')?.1.parse().ok()?;
            Some((partition, line.split_once("Error: ")?.1.split(['.', ' ']).next()?))
        };
        let (partition, error) = told().with_context(|| line.to_owned())?;
        refused.entry(partition).or_default().add(error, 1, error != "NETWORK_EXCEPTION");
    }
    Ok(refused)
}

/// Of librdkafka's log with `debug=msg`.
pub fn librdkafka(log: &str) -> Result<ByPartition> {
    let mut refused = ByPartition::new();
    for line in log.lines().filter(|line| line.contains("encountered error: ")) {
        let told = || {
            let partition = line.split_once("]: MessageSet with ")?.0.rsplit_once(" [")?.1.parse().ok()?;
            let messages = between(line, "MessageSet with ", " message(s)")?.parse().ok()?;
            Some((partition, messages, between(line, "encountered error: ", " (actions ")?))
        };
        let (partition, messages, error) = told().with_context(|| line.to_owned())?;
        refused.entry(partition).or_default().add(error, messages, error.starts_with("Broker: "));
    }
    Ok(refused)
}

/// Each message of a service has one `send` span, and those of a partition have as many failed
/// attempts as its library logs.
pub fn check(service: &str, refused: &ByPartition, spans: &[&Span]) -> Result<()> {
    let (mut told, mut messages) = (BTreeMap::<i32, u64>::new(), 0);
    let (mut keys, mut servers) = (BTreeSet::new(), BTreeSet::new());
    for span in spans.iter().filter(|span| span.operation() == "send" && span.service() == service) {
        ensure!(keys.insert(span.text("messaging.kafka.message.key")), "one message twice: {span:?}");
        let partition = span.text("messaging.destination.partition.id").unwrap_or_default().parse()?;
        let attempts = span.attributes.get("ktrace.attempts").and_then(Value::as_u64);
        ensure!(attempts != Some(1), "one attempt is no news: {span:?}");
        let well = u64::from(span.status != "error");
        *told.entry(partition).or_default() += attempts.unwrap_or(1) - well;
        messages += usize::from(attempts.is_some());
        servers.extend(span.attributes["server.port"].as_u64());
    }
    let mut errors = BTreeMap::<&str, u64>::new();
    for (error, count) in refused.values().flat_map(|of| &of.errors) {
        *errors.entry(error).or_default() += count;
    }
    let failed: u64 = told.values().sum();
    eprintln!(
        "{service}: {messages} messages sent again, {failed} attempts failed; its library: {errors:?}; {} brokers",
        servers.len()
    );
    for partition in refused.keys().chain(told.keys()) {
        let refused = refused.get(partition).cloned().unwrap_or_default();
        let told = told.get(partition).copied().unwrap_or_default();
        let most = refused.by_broker + refused.unanswered;
        ensure!(
            (refused.by_broker..=most).contains(&told),
            "{service}, partition {partition}: {told} attempts are told, and there were {refused:?}"
        );
    }
    Ok(())
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(behind)?.0)
}

#[cfg(test)]
mod tests {
    use super::{java, librdkafka};

    #[test]
    fn what_libraries_say() -> anyhow::Result<()> {
        let said = |error| {
            format!(
                "[kafka-producer-network-thread | out] WARN org.apache.kafka.clients.producer.internals.Sender - [Producer \
                 clientId=out] Got error produce response with correlation id 57 on topic-partition my-orders-3, retrying \
                 (2147483590 attempts left). Error: {error}"
            )
        };
        let refused = java(
            &[said("NOT_LEADER_OR_FOLLOWER"), said("NETWORK_EXCEPTION. Error Message: Gone")].join("\n"),
        )?;
        assert_eq!((refused[&3].by_broker, refused[&3].unanswered), (1, 1));
        assert_eq!(refused[&3].errors.len(), 2);
        let said = |error| {
            format!(
                "%7|1795474206.515|MSGSET|out#producer-1| [thrd:127.0.0.1:4322/3]: 127.0.0.1:4322/3: orders [2]: MessageSet with 3 \
                 message(s) (MsgId 57, BaseSeq 56) encountered error: {error} (actions Refresh,MsgNotPersisted)"
            )
        };
        let refused =
            librdkafka(&[said("Broker: Not leader for partition"), said("Local: Timed out")].join("\n"))?;
        assert_eq!((refused[&2].by_broker, refused[&2].unanswered), (3, 3));
        Ok(())
    }
}
