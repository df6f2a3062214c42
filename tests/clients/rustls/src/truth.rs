//! What a client knows about its messages, one JSON object a line; the same lines as those of the
//! other clients.

use std::fs::File;
use std::io::{self, Write as _};

use bytes::Bytes;
use kafka_protocol::records::Record;
use serde_json::{Value, json};

use crate::options::Options;

pub struct Truth {
    file: File,
    client: &'static str,
    service: String,
    client_id: String,
}

impl Truth {
    pub fn new(options: &Options) -> io::Result<Self> {
        let client = if cfg!(feature = "aws-lc-rs") { "rustls-aws-lc" } else { "rustls" };
        let (service, client_id) = (options.get("service").into(), options.get("client-id").into());
        Ok(Self { file: File::create(options.get("truth"))?, client, service, client_id })
    }

    pub fn message(&self, event: &str, topic: &str, partition: i32, record: &Record) {
        let headers: Vec<Value> =
            record.headers.iter().map(|(name, value)| json!([**name, value.as_ref().map(text)])).collect();
        let line = json!({
            "event": event,
            "client": self.client,
            "service": self.service,
            "client_id": self.client_id,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": record.key.as_ref().map(text),
            "value_len": record.value.as_ref().map(Bytes::len),
            "headers": headers,
        });
        (&self.file).write_all(format!("{line}\n").as_bytes()).expect("the truth can be written");
    }
}

fn text(raw: &Bytes) -> String {
    String::from_utf8_lossy(raw).into_owned()
}
