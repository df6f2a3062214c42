//! What the clients of a golden knew about their messages, beside the capture and independent of
//! it.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

/// A message as one side saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub topic: String,
    pub partition: i64,
    /// −1 where the broker gave none (acks=0).
    pub offset: i64,
    /// Milliseconds since 1970; −1 for messages of before Kafka 0.10, which have none.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value_len: Option<u64>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Messages may stand in it more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub sent: Vec<Message>,
    pub received: Vec<Message>,
    /// Names of topics by their ids.
    pub topics: HashMap<u128, String>,
}

pub fn read(file: &Path) -> Truth {
    let mut truth = Truth::default();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match line["event"].as_str() {
            Some("topic") => {
                let id = u128::from_str_radix(line["id"].as_str().unwrap(), 16).unwrap();
                truth.topics.insert(id, line["topic"].as_str().unwrap().to_owned());
            }
            Some("sent") => truth.sent.push(message(&line)),
            Some("received") => truth.received.push(message(&line)),
            other => panic!("a line of {other:?}"),
        }
    }
    truth
}

fn message(line: &Value) -> Message {
    let headers = line["headers"].as_array().unwrap();
    Message {
        topic: line["topic"].as_str().unwrap().to_owned(),
        partition: line["partition"].as_i64().unwrap(),
        offset: line["offset"].as_i64().unwrap_or(-1),
        timestamp: line["timestamp"].as_i64().unwrap_or(-1),
        key: line["key"].as_str().map(|key| key.as_bytes().to_vec()),
        value_len: line["value_len"].as_u64(),
        headers: headers
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().as_bytes().to_vec(), header_value(&pair[1])))
            .collect(),
    }
}

fn header_value(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.as_bytes().to_vec()),
        bytes => Some(from_base64(bytes["base64"].as_str().unwrap())),
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').bytes();
    let sixes = digits.map(|digit| DIGITS.iter().position(|known| *known == digit).unwrap());
    let bits: Vec<bool> =
        sixes.flat_map(|six| (0..6).rev().map(move |place| six >> place & 1 == 1)).collect();
    bits.as_chunks::<8>()
        .0
        .iter()
        .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
        .collect()
}
