//! What producers' libraries say of attempts that failed and are tried again: the truth to hold `ktrace.attempts` against.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

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
