//! What a [`Connection`] reports of a golden capture: as messages to hold against the truth, and as text to
//! hold against itself.

use std::collections::HashMap;
use std::fmt::Write as _;

use ktrace_kafka::context::Extractor;
use ktrace_kafka::counters::Counters;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Connection, Event, Head, Limits, Operation, Partition, Push, Scratch, Sink, Topic};

use crate::truth::{Message, Truth};

/// Reports all connections of a golden capture to `sink`; each is a list of pushes. Returns what was counted.
pub fn report<'a, S: Sink>(
    connections: impl IntoIterator<Item = impl IntoIterator<Item = Push<'a>>>,
    sink: &mut S,
) -> Counters {
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    for pushes in connections {
        let mut connection = Connection::default();
        for push in pushes {
            connection.push(&mut scratch, push, sink);
        }
        connection.finish(&mut scratch, sink);
    }
    scratch.counters
}

/// As messages.
pub struct Messages {
    pub truth: Truth,
}

impl Messages {
    /// With the names of topics, which are not reported with records.
    pub fn new(topics: &HashMap<u128, String>) -> Self {
        Self { truth: Truth { topics: topics.clone(), ..Truth::default() } }
    }
}

impl Sink for Messages {
    fn record(
        &mut self,
        _head: &Head<'_>,
        partition: &Partition<'_>,
        _batch: &Batch<'_>,
        record: &Record<'_>,
    ) {
        assert_eq!(partition.error, 0);
        let message = Message {
            topic: match partition.topic {
                Topic::Name(name) => name.to_owned(),
                Topic::Id(id) => self.truth.topics[&id].clone(),
            },
            partition: partition.index.into(),
            offset: record.offset,
            timestamp: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value_len: record.value_len().map(|len| len as u64),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        };
        match partition.operation {
            Operation::Produce { .. } => self.truth.sent.push(message),
            // however it was fetched
            _ => self.truth.received.push(message),
        }
    }
}

/// As text: everything but the times, which change with the cuts.
#[derive(Default)]
pub struct Text(pub String);

impl Sink for Text {
    fn event(&mut self, _head: &Head<'_>, event: &Event<'_>) {
        writeln!(self.0, "  {event:?}").unwrap();
    }

    fn exchange(&mut self, head: &Head<'_>) {
        let Head { api_key, version, correlation_id, client_id, request_seq, response, .. } = head;
        let response = response.map(|response| response.seq);
        writeln!(
            self.0,
            "{api_key} v{version} #{correlation_id} of {client_id:?} at {request_seq}, {response:?}"
        )
        .unwrap();
    }

    fn record(
        &mut self,
        _head: &Head<'_>,
        partition: &Partition<'_>,
        batch: &Batch<'_>,
        record: &Record<'_>,
    ) {
        let Partition { topic, index, mut operation, error } = *partition;
        if let Operation::Fetch { began: Some(began), .. } = &mut operation {
            began.ns = 0;
        }
        let Record { offset, offset_delta, timestamp_ms, key, headers, context, .. } = record;
        let value_len = record.value_len();
        let Batch { base_offset, attributes, producer_id, base_sequence, count, .. } = batch;
        write!(
            self.0,
            "  {operation:?} {topic:?}[{index}]@{offset} error {error}, {offset_delta} in {base_offset} {attributes:x} \
             {producer_id} {base_sequence} {count}, {timestamp_ms} {key:?} {value_len:?} {context:?}"
        )
        .unwrap();
        for header in headers.iter() {
            write!(self.0, " {header:?}").unwrap();
        }
        self.0.push('\n');
    }
}
