//! A sink that holds every call against what the sink's callers promise.

use std::hint::black_box;

use ktrace_kafka::context::formats;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Partition, Sink};

/// What tells a record from another: offset, time, and the lengths of key and value.
pub type Told = (i64, i64, Option<usize>, Option<usize>);

/// See the module.
#[derive(Default)]
pub struct Watch {
    pub told: Vec<Told>,
}

/// What holds for any record.
pub fn check(record: &Record<'_>) {
    assert_eq!(record.headers.iter().count(), record.headers.len());
    assert_eq!(record.headers.is_empty(), record.headers.len() == 0);
    if let Some(context) = record.context.context {
        assert_ne!(context.trace_id.to_bytes(), [0; 16]);
        assert!(context.span_id.is_none_or(|id| id.to_bytes() != [0; 8]));
        assert!(formats().any(|name| context.format.starts_with(name)), "{}", context.format);
        assert!(!record.headers.is_empty());
    }
}

impl Sink for Watch {
    fn exchange(&mut self, head: &Head<'_>) {
        if let Some(response) = head.response {
            black_box(response);
        }
        assert!(head.api_key >= 0 && head.version >= 0);
    }

    fn software(&mut self, _head: &Head<'_>, name: &str, _version: &str) {
        assert!(!name.is_empty());
    }

    fn group(&mut self, _head: &Head<'_>, group: &str) {
        assert!(!group.is_empty());
    }

    fn record(
        &mut self,
        _head: &Head<'_>,
        _partition: &Partition<'_>,
        _batch: &Batch<'_>,
        record: &Record<'_>,
    ) {
        check(record);
        self.told.push((record.offset, record.timestamp_ms, record.key.map(<[u8]>::len), record.value_len));
    }
}
