//! What a client knows about its messages, one JSON object a line; the same lines as those of the
//! other clients.

use std::fs::File;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rdkafka::message::{Headers as _, Message};
use serde_json::{Value, json};

use crate::options::Options;

#[derive(Clone)]
pub struct Truth {
    file: std::sync::Arc<File>,
    service: String,
    client_id: String,
    group: Option<String>,
}

impl Truth {
    pub fn new(options: &Options) -> io::Result<Self> {
        let file = File::create(options.get("truth", ""))?.into();
        let group = Some(options.get("group", "").to_owned()).filter(|group| !group.is_empty());
        let (service, client_id) = (options.get("service", "").into(), options.get("client-id", "").into());
        Ok(Self { file, service, client_id, group })
    }

    pub fn message(&self, event: &str, message: &impl Message) {
        let headers: Vec<Value> = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| json!([header.key, header.value.map(text)]))
            .collect();
        self.write(json!({
            "event": event,
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": Some(message.offset()).filter(|offset| *offset >= 0),
            "timestamp": message.timestamp().to_millis(),
            "key": message.key().map(text),
            "value_len": message.payload().map(<[u8]>::len),
            "headers": headers,
        }));
    }

    pub fn error(&self, error: &impl ToString) {
        self.write(json!({"event": "error", "error": error.to_string()}));
    }

    /// What was sent since the last such line was one transaction.
    pub fn transaction_ends(&self, committed: bool) {
        self.write(json!({"event": if committed { "committed" } else { "aborted" }}));
    }

    fn write(&self, mut line: Value) {
        line["client"] = "rdkafka".into();
        line["service"] = self.service.as_str().into();
        line["client_id"] = self.client_id.as_str().into();
        line["group"] = self.group.as_deref().into();
        // a single write, as another thread reports deliveries
        (&*self.file).write_all(format!("{line}\n").as_bytes()).expect("the truth can be written");
    }
}

/// Text as it is; what is none in base64.
fn text(raw: &[u8]) -> Value {
    std::str::from_utf8(raw).map_or_else(|_| json!({"base64": STANDARD.encode(raw)}), Value::from)
}
