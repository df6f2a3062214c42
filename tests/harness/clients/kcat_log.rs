//! What a run of kcat leaves, as lines of truth.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::truth::{HeaderValue, Line, Truth};

/// What a run of kcat leaves.
#[derive(Debug)]
pub(super) enum Output {
    Sent(Vec<Line>),
    /// `-J` lines; the line to fill in for each.
    Received(PathBuf, Box<Line>),
}

impl Output {
    pub(super) fn read(&self, truth: &mut Truth) -> Result<()> {
        match self {
            Self::Sent(lines) => lines.iter().for_each(|line| truth.add(line.clone())),
            Self::Received(file, pattern) => {
                let output = fs::read(file).with_context(|| format!("no {}", file.display()))?;
                // it writes headers that are no UTF-8 as they are
                let text = String::from_utf8_lossy(&output);
                for line in text.lines() {
                    let message: Message =
                        serde_json::from_str(line).with_context(|| format!("kcat said {line}"))?;
                    truth.add(message.fill((**pattern).clone()));
                }
            }
        }
        Ok(())
    }
}

/// kcat's `-J` line.
#[derive(Deserialize)]
struct Message {
    topic: String,
    partition: i32,
    offset: i64,
    /// Before Kafka 0.10 messages have none.
    ts: Option<i64>,
    key: Option<String>,
    payload: Option<String>,
    /// Keys and values in turn.
    #[serde(default)]
    headers: Vec<Option<String>>,
}

impl Message {
    fn fill(self, mut line: Line) -> Line {
        line.headers = self
            .headers
            .as_chunks()
            .0
            .iter()
            .map(|[key, value]| (key.clone().unwrap_or_default(), value.clone().map(HeaderValue::Text)))
            .collect();
        line.value_len = self.payload.map(|payload| payload.len() as u64);
        (line.topic, line.partition, line.offset) = (self.topic, Some(self.partition), Some(self.offset));
        (line.timestamp, line.key) = (self.ts, self.key);
        line
    }
}
