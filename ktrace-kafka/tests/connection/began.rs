//! Where a client began to read a partition: it is the same as long as the client goes on, whatever
//! its requests list.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::records::Compression;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Began, Head, Operation, Partition, Push, Scratch, Sink};
use ktrace_kafka::{Connection, Limits};

use super::conversation::*;

/// Offset and beginning of each message.
#[derive(Default)]
struct Beginnings(Vec<(i64, Option<Began>)>);

impl Sink for Beginnings {
    fn record(&mut self, _: &Head<'_>, partition: &Partition<'_>, _: &Batch<'_>, record: &Record<'_>) {
        let Operation::Fetch { began, .. } = partition.operation else { return };
        self.0.push((record.offset, began));
    }
}

/// The beginnings of what a client reads, each as (offset, from where on, when); a segment takes a
/// microsecond.
fn beginnings(said: &[Said]) -> Vec<(i64, i64, u64)> {
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    let (mut connection, mut reported) = (Connection::default(), Beginnings::default());
    for (part, time_us) in segments(said, 77, |len| len).iter().zip(1..) {
        let push = Push {
            direction: part.direction,
            seq: part.seq,
            ack: part.ack,
            syn: part.syn,
            fin: false,
            bytes: &part.bytes,
            len: part.bytes.len() as u32,
            time_ns: time_us * 1000,
        };
        connection.push(&mut scratch, push, &mut reported);
    }
    let of = |(offset, began): (i64, Option<Began>)| {
        let began = began.unwrap();
        assert!(began.log_end == 50 && !began.is_log_start, "{began:?}");
        (offset, began.offset, began.ns / 1000)
    };
    reported.0.into_iter().map(of).collect()
}

/// Two messages from this offset on.
fn answer(id: i32, offset: i64) -> Said {
    let records = [record(offset, None, Some(1), &[]), record(offset + 1, None, Some(1), &[])];
    broker(fetched(11, id, batch(&records, Compression::None), &[]))
}

fn nothing(id: i32) -> Said {
    broker(fetched(11, id, Bytes::new(), &[]))
}

#[test]
fn it_goes_on_and_where_it_goes_back_it_begins_anew() {
    let said = [
        client(fetch(11, 1, 7, 0)),
        answer(1, 7),
        // Left out, as it is busy with them.
        client(request(ApiKey::Fetch, 11, 2, &FetchRequest::default().with_session_epoch(-1))),
        broker(response(11, 2, &FetchResponse::default())),
        client(fetch(11, 3, 9, 0)),
        answer(3, 9),
        client(fetch(11, 4, 8, 0)),
        nothing(4),
        client(fetch(11, 5, 8, 0)),
        answer(5, 8),
    ];
    // Behind both SYNs: the first request is the third segment.
    assert_eq!(beginnings(&said), [(7, 7, 3), (8, 7, 3), (9, 7, 3), (10, 7, 3), (8, 8, 9), (9, 8, 9)]);
}

#[test]
fn a_session_without_a_partition_or_made_anew_goes_on() {
    let of_session = |mut bytes: Vec<u8>, id: i32, epoch: i32| {
        // size, header with the client id `me`, 17 bytes, the session id, the session epoch.
        bytes[33..37].copy_from_slice(&id.to_be_bytes());
        bytes[37..41].copy_from_slice(&epoch.to_be_bytes());
        client(bytes)
    };
    let in_session = |(direction, mut bytes): Said, session: i32| {
        // size, correlation id, throttle time, error code, the session id.
        bytes[14..18].copy_from_slice(&session.to_be_bytes());
        (direction, bytes)
    };
    let forgotten = fetch_request::ForgottenTopic::default().with_topic(name()).with_partitions(vec![2]);
    let leaves_out = FetchRequest::default()
        .with_session_id(9)
        .with_session_epoch(1)
        .with_forgotten_topics_data(vec![forgotten]);
    let said = [
        of_session(fetch(11, 1, 7, 0), 0, 0),
        in_session(answer(1, 7), 9),
        client(request(ApiKey::Fetch, 11, 2, &leaves_out)),
        broker(response(11, 2, &FetchResponse::default().with_session_id(9))),
        of_session(fetch(11, 3, 9, 0), 9, 2),
        in_session(answer(3, 9), 9),
        // It was evicted at the broker, so that the client wants another one.
        of_session(fetch(11, 4, 11, 0), 9, 0),
        in_session(answer(4, 11), 10),
    ];
    let from = |offset| (offset, 7, 3);
    assert_eq!(beginnings(&said), [7, 8, 9, 10, 11, 12].map(from));
}
