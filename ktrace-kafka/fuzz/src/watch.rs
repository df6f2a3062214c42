//! A sink that holds every call against what the sink's callers promise.

use ktrace_kafka::context::Found;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Partition, Sink};

/// What distinguishes a record from another: offset, time, and the lengths of key and value.
pub type Reported = (i64, i64, Option<usize>, Option<usize>);

/// A sink that checks what it gets.
#[derive(Default)]
pub struct Watch {
    pub reported: Vec<Reported>,
}

/// What holds for any record.
pub fn check(record: &Record<'_>) {
    let headers = record.headers.iter().count();
    assert_eq!((record.headers.len(), record.headers.is_empty()), (headers, headers == 0));
    check_found(&record.context);
    assert!(record.context.context.is_none() || !record.headers.is_empty());
}

/// What holds for whatever headers say.
pub fn check_found(found: &Found<'_>) {
    let first = found.context;
    assert!(first.is_some() || found.others.is_empty());
    for context in first.iter().chain(found.others) {
        assert_ne!(context.trace_id.to_bytes(), [0; 16]);
        assert!(context.span_id.is_none_or(|id| id.to_bytes() != [0; 8]));
    }
    assert!(found.others.iter().all(|other| first.is_some_and(|first| first.trace_id != other.trace_id)));
}

impl Sink for Watch {
    fn exchange(&mut self, head: &Head<'_>) {
        assert!(head.api_key >= 0 && head.version >= 0);
    }

    fn record(
        &mut self,
        _head: &Head<'_>,
        _partition: &Partition<'_>,
        _batch: &Batch<'_>,
        record: &Record<'_>,
    ) {
        check(record);
        self.reported.push((
            record.offset,
            record.timestamp_ms,
            record.key.map(<[u8]>::len),
            record.value_len(),
        ));
    }
}
