//! What a search believes: where the beginning of a frame is not known, most of what looks like one
//! is none.

use kafka_protocol::messages::*;
use kafka_protocol::records::Compression;
use ktrace_kafka::Limits;
use ktrace_kafka::Speaks;
use ktrace_kafka::counters::{Lost, Malformed};

use crate::conversation::*;
use crate::{lost, refused};

/// A connection of before: no SYN was seen.
fn begun_before(said: &[Said], limits: Limits) -> Observed {
    let mut observed = Observed::default();
    observed.scratch.limits = limits;
    for part in segments(said, 5, |len| len).iter().filter(|part| !part.syn) {
        observed.push(part);
    }
    observed
}

fn longs(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    numbers.flat_map(i64::to_be_bytes).collect()
}

fn silent(id: i32) -> Vec<u8> {
    produce(9, id, 0, batch(&three(0), Compression::None))
}

/// Behind the tail of a value that holds numbers, some of which are an empty Produce of version 0.
#[test]
fn numbers_are_no_requests() {
    let talk = [
        client(produce(9, 1, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 1, 100, 0)),
        client(produce(9, 2, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 2, 103, 0)),
    ];
    let whole = reported(&talk);
    for tail in [longs(10..40), longs(std::iter::repeat_n(20, 30)), longs(std::iter::repeat_n(24, 30))] {
        let said = [&[client(tail.clone()), client(vec![0xee; 100])], &talk[..]].concat();
        let observed = begun_before(&said, Limits::default());
        assert_eq!(observed.connection.speaks(), Speaks::Kafka);
        let (lines, scratch) = observed.finish();
        assert_eq!(lines, whole);
        assert_eq!(scratch.counters.exchanges, 2);
        assert_eq!(scratch.counters.skipped_bytes, 0, "it was there before");
    }
}

/// A request in the middle of other things that looks as it should, but has not the body of its
/// API.
fn none() -> [Said; 2] {
    // Metadata v1 of 300 bytes, with more topics than it has.
    let head = b"\0\0\x01\x2c\0\x03\0\x01\0\0\0\x07\0\x02me\0\0\0\x02\0\x04abcd";
    [client(head.to_vec()), client(vec![0x7f; 304 - head.len()])]
}

#[test]
fn a_find_that_was_none_does_not_end_the_connection() {
    let said = [
        &none()[..],
        &[client(produce(9, 1, -1, batch(&three(0), Compression::None))), broker(produced(9, 1, 100, 0))],
    ]
    .concat();
    let observed = begun_before(&said, Limits::default());
    assert_eq!(observed.connection.speaks(), Speaks::Kafka);
    let (lines, scratch) = observed.finish();
    assert_eq!((lines.len(), refused(&scratch, Malformed::Frame)), (3, 0));
    assert_eq!(scratch.counters.skipped_bytes, 0, "it was there before");
}

#[test]
fn finds_that_were_none_end_the_search_in_the_end() {
    let said: Vec<Said> = (0..10).flat_map(|_| none()).collect();
    let limits = Limits { search_bytes: 2000, ..Limits::default() };
    assert_eq!(begun_before(&said[..8], limits).connection.speaks(), Speaks::Unknown);
    assert_eq!(begun_before(&said, limits).connection.speaks(), Speaks::Other);
}

/// A request may be longer than what is searched of something that is perhaps none.
#[test]
fn a_search_behind_a_loss_goes_on_for_a_requests_length() {
    // The hole is given up soon.
    let limits =
        Limits { search_bytes: 1000, frame_bytes: 100_000, held_bytes: 8 << 10, ..Limits::default() };
    let talk = |id: i32| {
        [client(produce(9, id, -1, batch(&three(0), Compression::None))), broker(produced(9, id, 100, 0))]
    };
    let long: Vec<Said> = (0..50).map(|_| client(vec![0xee; 1000])).collect();
    for known in [false, true] {
        let said = [&talk(1)[..usize::from(known) * 2], &[client(vec![0xee; 10])], &long, &talk(2)].concat();
        let mut observed = Observed::default();
        observed.scratch.limits = limits;
        for (at, part) in segments(&said, 5, |len| len).iter().enumerate() {
            // The first packet of what is long.
            if at != 2 + usize::from(known) * 2 {
                observed.push(part);
            }
        }
        assert_eq!(observed.connection.speaks(), Speaks::Kafka, "known before: {known}");
        assert_eq!(observed.finish().0.len(), 3 + usize::from(known) * 3);
    }
}

/// What has no response is believed when a second frame follows it.
#[test]
fn without_responses_a_second_request_is_waited_for() {
    let reported = |said: &[Said]| {
        let (lines, scratch) = begun_before(said, Limits::default()).finish();
        (lines.len(), lost(&scratch, Lost::Unconfirmed))
    };
    assert_eq!(reported(&[client(silent(1))]), (0, 1));
    assert_eq!(reported(&[client(silent(1)), client(silent(2))]), (6, 0));
    assert_eq!(reported(&[client(silent(1)), client(silent(2)), client(silent(3))]), (9, 0));
    // What follows the first is nothing.
    let said = [client(silent(1)), client(vec![0xee; 50]), client(silent(2)), client(silent(3))];
    assert_eq!(reported(&said), (6, 1));
}

/// Responses to requests of before a gap say nothing of what was found behind it.
#[test]
fn an_older_response_confirms_nothing() {
    let hello = || {
        [
            client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
            broker(response(3, 0, &ApiVersionsResponse::default())),
        ]
    };
    let [hello, helloed] = hello();
    let mut parts = segments(&[hello, client(vec![0; 50]), client(silent(1)), helloed], 5, |len| len);
    parts.remove(3);
    let mut observed = Observed::default();
    for part in &parts {
        observed.push(part);
    }
    let (lines, scratch) = observed.finish();
    assert!(lines.iter().all(|line| !line.starts_with("produced")), "{lines:?}");
    assert_eq!(lost(&scratch, Lost::Unconfirmed), 1);
}

/// A request with no body that is read, of this API and version.
fn unread(key: i16, version: i16, id: i32) -> Vec<u8> {
    let mut frame = [key.to_be_bytes(), version.to_be_bytes()].concat();
    frame.extend(id.to_be_bytes());
    frame.extend(b"\0\x02me\0\0\0");
    framed(&frame)
}

/// What stands in the middle of records is no response to a request whose response is not read.
#[test]
fn numbers_are_no_responses() {
    for (key, version) in [(1, 19), (32, 4)] {
        // In the middle of a segment, and at its beginning, but not whole.
        for numbers in [[3_i32, 8, 42, 1], [5000, 42, 1, 5]] {
            let bytes: Vec<u8> = numbers.into_iter().flat_map(i32::to_be_bytes).collect();
            let said = [
                client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
                broker(response(3, 0, &ApiVersionsResponse::default())),
                client(fetch(11, 41, 0, 0)),
                client(unread(key, version, 42)),
                // The beginning of the response is lost.
                broker(vec![0; 100]),
                broker(bytes),
                client(produce(9, 43, -1, batch(&three(0), Compression::None))),
                broker(produced(9, 43, 100, 0)),
            ];
            let mut parts = segments(&said, 5, |len| len);
            parts.remove(6);
            let mut observed = Observed::default();
            for part in &parts {
                observed.push(part);
            }
            let (lines, scratch) = observed.finish();
            assert_eq!((lines.len(), scratch.counters.exchanges), (3, 2), "API {key}, {numbers:?}");
        }
    }
}
