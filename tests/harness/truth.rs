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
    /// `None` where the client is not told: kcat, and acks=0.
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
    #[serde(default)]
    pub error: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    pub errors: Vec<Line>,
}

impl Truth {
    /// Adds a client's log.
    pub fn read(&mut self, log: &Path) -> Result<()> {
        let text = fs::read_to_string(log).with_context(|| format!("no truth in {}", log.display()))?;
        for line in text.lines() {
            self.add(serde_json::from_str(line).with_context(|| format!("not a truth line: {line}"))?);
        }
        Ok(())
    }

    pub fn add(&mut self, line: Line) {
        match line.event {
            Event::Sent => self.sent.push(line),
            Event::Received => self.received.push(line),
            Event::Error => self.errors.push(line),
        }
    }

    /// Gives sent messages without an offset the place where a message of the same topic and key was received.
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

    /// What the two sides tell differently: messages that one group did not get or got with another key, length or headers.
    /// A consumer may read only some topics.
    #[must_use]
    pub fn disagreements(&self) -> Vec<String> {
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
            if (&origin.key, origin.value_len, &origin.headers) != (&line.key, line.value_len, &line.headers)
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
