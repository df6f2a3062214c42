//! What the clients themselves know about their messages: the lines that they log.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    Sent,
    Received,
    /// What this client sent since the last such line was a transaction; the line has no message.
    Committed,
    Aborted,
    /// A share group's member has acknowledged it, and the broker has answered.
    Acknowledged,
    /// The client's library reported a failure; the line has no message.
    Error,
}

/// Header values that are no UTF-8 come as base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    Text(String),
    Base64 { base64: String },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub event: Event,
    /// [`crate::clients::Library::name`].
    pub client: String,
    /// The service name that the agent should give to this client's spans.
    pub service: String,
    #[serde(default)]
    pub client_id: String,
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub topic: String,
    #[serde(default)]
    pub partition: Option<i32>,
    /// `None` where the client does not learn it: kcat, and acks=0.
    #[serde(default)]
    pub offset: Option<i64>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: Option<i64>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub value_len: Option<u64>,
    #[serde(default)]
    pub headers: Vec<(String, Option<HeaderValue>)>,
    /// Kafka's name of it where the broker has refused an acknowledgement.
    #[serde(default)]
    pub error: Option<String>,
    /// Of an acknowledgement: `accept`, `release`, `reject` or `renew`.
    #[serde(default)]
    pub acknowledge: Option<String>,
    /// Of one, which delivery of the message it was.
    #[serde(default)]
    pub delivery: Option<i64>,
    /// The messages that made a service send this one.
    #[serde(default)]
    pub because: Vec<Place>,
    /// Sent in a transaction that was aborted.
    #[serde(skip)]
    pub aborted: bool,
}

impl Line {
    /// The last text value under this exact key.
    #[must_use]
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(name, _)| name == key).and_then(|(_, value)| match value {
            Some(HeaderValue::Text(text)) => Some(text.as_str()),
            _ => None,
        })
    }
}

/// A message's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// The lines of all clients of a test.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub sent: Vec<Line>,
    pub received: Vec<Line>,
    pub acknowledged: Vec<Line>,
    pub errors: Vec<Line>,
    /// Topics whose messages have their times from the broker.
    pub append_timed: Vec<String>,
}

impl Truth {
    /// Adds a client's log.
    pub fn read(&mut self, log: &Path) -> Result<()> {
        let text = fs::read_to_string(log).with_context(|| format!("no truth in {}", log.display()))?;
        let mut transaction = self.sent.len();
        for line in text.lines() {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("not a truth line: {line}"))?;
            if matches!(line.event, Event::Committed | Event::Aborted) {
                let aborted = line.event == Event::Aborted;
                self.sent[transaction..].iter_mut().for_each(|sent| sent.aborted = aborted);
                transaction = self.sent.len();
            } else {
                self.add(line);
            }
        }
        Ok(())
    }

    pub fn add(&mut self, line: Line) {
        match line.event {
            Event::Sent => self.sent.push(line),
            Event::Received => self.received.push(line),
            Event::Acknowledged => self.acknowledged.push(line),
            Event::Error => self.errors.push(line),
            // set by `read`, which knows whose it is
            Event::Committed | Event::Aborted => {}
        }
    }

    /// Gives sent messages without an offset the place where a message of the same topic and key
    /// was received.
    pub fn resolve(&mut self) {
        let received: HashMap<(&str, &str), &Line> = self
            .received
            .iter()
            .filter_map(|line| Some(((line.topic.as_str(), line.key.as_deref()?), line)))
            .collect();
        for line in self.sent.iter_mut().filter(|line| line.offset.is_none()) {
            let key = line.key.as_deref().unwrap_or_default();
            if let Some(other) = received.get(&(line.topic.as_str(), key)) {
                (line.partition, line.offset, line.timestamp) =
                    (other.partition, other.offset, other.timestamp);
            }
        }
    }

    /// Where the two sides disagree: messages that one group did not get or got with another key,
    /// length or headers. A consumer may read only some topics.
    #[must_use]
    pub fn disagreements(&self) -> Vec<String> {
        self.disagreements_where(|_| true)
    }

    /// The same, with headers compared only on deliveries where `headers` says so: not every
    /// library shows them as they came.
    #[must_use]
    pub fn disagreements_where(&self, headers: impl Fn(&Line) -> bool) -> Vec<String> {
        let sent: HashMap<Place, &Line> =
            self.sent.iter().filter_map(|line| Some((line.place()?, line))).collect();
        let mut wrong: Vec<String> = self
            .sent
            .iter()
            .filter(|line| line.place().is_none())
            .map(|line| format!("never received, so its place is unknown: {:?} {:?}", line.topic, line.key))
            .collect();
        for line in &self.received {
            let Some(origin) = line.place().and_then(|place| sent.get(&place)) else {
                wrong.push(format!("received but never sent: {line:?}"));
                continue;
            };
            if (&origin.key, origin.value_len) != (&line.key, line.value_len)
                || (headers(line) && origin.headers != line.headers)
            {
                wrong.push(format!("sent {origin:?}\n  but received {line:?}"));
            }
        }
        wrong
    }
}

impl Line {
    /// Where the message is, if that is known.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        Some(Place { topic: self.topic.clone(), partition: self.partition?, offset: self.offset? })
    }
}

#[cfg(test)]
mod tests {
    use super::Truth;
    use crate::scratch::Scratch;

    #[test]
    fn a_transaction_is_what_one_client_sent_since_the_last_one() -> anyhow::Result<()> {
        let scratch = Scratch::new()?;
        let mut truth = Truth::default();
        for (client, ends) in [("a", ["committed", "aborted"]), ("b", ["aborted", "committed"])] {
            let log = scratch.join(client);
            let line =
                |event: &str| format!(r#"{{"event":"{event}","client":"{client}","service":"{client}"}}"#);
            let lines: Vec<String> = ends.iter().flat_map(|end| [line("sent"), line(end)]).collect();
            std::fs::write(&log, [lines.join("\n"), line("sent")].join("\n"))?;
            truth.read(&log)?;
        }
        let aborted: Vec<bool> = truth.sent.iter().map(|line| line.aborted).collect();
        assert_eq!(aborted, [false, true, false, true, false, false]);
        Ok(())
    }
}
