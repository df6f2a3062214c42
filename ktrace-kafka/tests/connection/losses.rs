//! What is lost beside a hole: the frame that it is in, and nothing else; and each loss is counted.

use kafka_protocol::messages::*;
use kafka_protocol::records::Compression;
use ktrace_kafka::counters::{Lost, Malformed};
use ktrace_kafka::{Direction, Scratch};

use crate::conversation::*;
use crate::{lost, refused};

fn hello() -> [Said; 2] {
    [
        client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
        broker(response(3, 0, &ApiVersionsResponse::default())),
    ]
}

fn asks(id: i32) -> Vec<u8> {
    produce(9, id, -1, batch(&three(0), Compression::None))
}

/// What is reported of segments.
fn heard<'a>(parts: impl IntoIterator<Item = &'a Part>) -> (Vec<String>, Scratch) {
    let mut observed = Observed::default();
    for part in parts {
        observed.push(part);
    }
    observed.finish()
}

/// Without some bytes of one segment, which is cut in two.
fn with_hole(parts: &[Part], index: usize, start: usize, len: usize) -> Vec<Part> {
    let mut parts = parts.to_vec();
    let mut behind = parts[index].clone();
    behind.bytes.drain(..start + len);
    behind.seq = behind.seq.wrapping_add((start + len) as u32);
    parts[index].bytes.truncate(start);
    parts.insert(index + 1, behind);
    parts.retain(|part| part.syn || !part.bytes.is_empty());
    parts
}

/// Every hole inside a request, or inside its response, whose end is known.
#[test]
fn a_hole_costs_its_own_exchange_alone() {
    let [hello, helloed] = hello();
    let said = [
        hello,
        helloed,
        client(asks(1)),
        broker(produced(9, 1, 100, 0)),
        client(asks(2)),
        broker(produced(9, 2, 200, 0)),
        client(asks(3)),
        broker(produced(9, 3, 300, 0)),
    ];
    let whole = reported(&said);
    let parts = segments(&said, 5, |len| len);
    for (index, what) in [(6, Direction::ToBroker), (7, Direction::ToClient)] {
        assert_eq!(parts[index].direction, what);
        let size = parts[index].bytes.len();
        // The size is there.
        for (start, len) in (4..size).flat_map(|start| (1..=size - start).map(move |len| (start, len))) {
            let (lines, scratch) = heard(&with_hole(&parts, index, start, len));
            let expected = [&whole[..3], &whole[6..]].concat();
            assert_eq!(lines, expected, "{what:?}: {len} bytes at {start}");
            assert_eq!(refused(&scratch, Malformed::ResponseOrder), 0, "{what:?}: {len} bytes at {start}");
        }
    }
}

/// Of the first and the third the requests are there, of the second it is not known what it was.
#[test]
fn a_missed_request_counts_until_a_later_one_is_answered() {
    let [hello, helloed] = hello();
    let said = [
        hello,
        helloed,
        client(asks(1)),
        client(asks(2)),
        broker(produced(9, 1, 100, 0)),
        client(fetch(11, 3, 7, 0)),
        broker([produced(9, 2, 200, 0), fetched(11, 3, batch(&three(7), Compression::None), &[])].concat()),
    ];
    let whole = reported(&said);
    // The header of the second; the last response comes in pieces.
    let parts = with_hole(&segments(&said, 5, |len| len.min(200)), 6, 6, 150);
    assert_eq!(parts[6].bytes.len(), 6);
    let (lines, scratch) = heard(&parts);
    assert_eq!(lines, [&whole[..3], &whole[6..]].concat());
    assert_eq!(lost(&scratch, Lost::ResponseWithoutRequest), 1);
    assert_eq!(refused(&scratch, Malformed::ResponseOrder), 0);
}

/// A consumer that gets three messages twice, and how it goes on, each a segment.
fn two_fetches(then: Said) -> Vec<Part> {
    let [hello, helloed] = hello();
    let said = [
        hello,
        helloed,
        client(fetch(11, 1, 7, 0)),
        broker(fetched(11, 1, batch(&three(7), Compression::None), &[])),
        client(fetch(11, 2, 10, 0)),
        broker(fetched(11, 2, batch(&three(10), Compression::None), &[])),
        then,
    ];
    segments(&said, 5, |len| len)
}

#[test]
fn a_fetch_whose_response_was_lost_is_counted() {
    // Nothing is lost with the last: the consumer goes.
    let mut parts = two_fetches(client(fetch(11, 3, 13, 0)));
    parts.remove(5);
    let (lines, scratch) = heard(&parts);
    assert_eq!((lines.len(), lost(&scratch, Lost::Unanswered)), (3, 1));
}

/// The broker's last segment but one is lost on its way, and when it is sent again the client is gone.
/// The client has read neither it nor what came behind it.
#[test]
fn what_comes_to_a_client_that_has_closed_is_not_lost() {
    let parts = two_fetches(broker(b"whatever".to_vec()));
    let (whole, _) = heard(&parts);
    assert_eq!(parts[7].direction, Direction::ToClient);
    for (closes, unread) in [(true, parts[7].bytes.len() as u64 + 8), (false, 0)] {
        let mut observed = Observed::default();
        for (index, part) in parts.iter().enumerate().filter(|(index, _)| *index != 7) {
            if closes && index == 8 {
                let end = parts[6].seq.wrapping_add(parts[6].bytes.len() as u32);
                let ack = Some(parts[7].seq);
                observed.close(&Part { seq: end, ack, bytes: Vec::new(), ..parts[6].clone() });
            }
            observed.push(part);
        }
        let (lines, scratch) = observed.finish();
        assert_eq!(lines, whole[..whole.len() - 3]);
        assert_eq!((lost(&scratch, Lost::Gap), scratch.counters.unread_bytes), (u64::from(!closes), unread));
    }
}

/// Another client's request in what is searched is none of this connection, whatever was answered
/// last.
#[test]
fn an_unknown_api_does_not_make_the_client_forgotten() {
    let [hello, helloed] = hello();
    let unknown = framed(&[&2000_i16.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1], b"whatever"].concat());
    let other = framed(b"\0\x0c\0\0\0\0\0\x07\0\x02xx\0\x01g\0\0\0\x01\0\x01m");
    let said = [
        hello,
        helloed,
        client(unknown),
        broker(framed(&[0, 0, 0, 1, 9, 9])),
        client(vec![1; 100]),
        client([other.clone(), asks(8)].concat()),
        broker(produced(9, 8, 100, 0)),
    ];
    let mut parts = segments(&said, 5, |len| len);
    parts.remove(6);
    let (lines, scratch) = heard(&parts);
    assert_eq!((lines.len(), lost(&scratch, Lost::Unanswered)), (3, 0));
    assert_eq!(scratch.counters.skipped_bytes, other.len() as u64);
}

/// The broker went away: the client will never know, and sends again elsewhere.
#[test]
fn unanswered_requests_are_reported_with_an_error() {
    let [hello, helloed] = hello();
    let said = [
        hello,
        helloed,
        client(asks(1)),
        broker(produced(9, 1, 100, 0)),
        client(asks(2)),
        client(produce(9, 3, 0, batch(&three(0), Compression::None))),
        client(asks(4)),
        client(fetch(11, 5, 7, 0)),
    ];
    let parts = segments(&said, 5, |len| len);
    let ended = |parts: &[Part]| {
        let mut observed = Observed::default();
        parts.iter().for_each(|part| observed.push(part));
        let Observed { connection, scratch, lines, .. } = &mut observed;
        connection.end(scratch, lines);
        observed.finish()
    };
    let (lines, scratch) = ended(&parts);
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(
        (of("error=0"), of("acks=-1 orders[2]@-1 error=13"), lost(&scratch, Lost::Unanswered)),
        (6, 6, 0)
    );
    // Where the answers may have been missed, the outcome is unknown.
    let [.., fetch] = &parts[..] else { unreachable!() };
    let mut behind = fetch.clone();
    (behind.direction, behind.seq) = (Direction::ToClient, parts[5].seq.wrapping_add(5000));
    let (lines, scratch) = ended(&[&parts[..], &[behind]].concat());
    assert_eq!(
        (lines.iter().filter(|line| line.contains("error=13")).count(), lost(&scratch, Lost::Unanswered)),
        (0, 2)
    );
}
