//! Bodies that end before their frames do: brokers that are not Apache's write such, and clients
//! pass over the rest.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::Compression;
use ktrace_kafka::counters::{Lost, Malformed};
use ktrace_kafka::{Direction, Scratch};

use crate::conversation::*;
use crate::{lost, refused};

/// A frame with more bytes at its end.
fn longer(frame: &[u8], by: usize) -> Vec<u8> {
    framed(&[&frame[4..], &vec![0; by]].concat())
}

/// What both sides say, responses or requests with a surplus.
fn talk(of: Direction, by: usize) -> Vec<Said> {
    let said = (1..5).flat_map(|id| {
        [
            client(produce(9, 4 * id, -1, batch(&three(0), Compression::None))),
            broker(produced(9, 4 * id, i64::from(id) * 100, 0)),
            client(fetch(11, 4 * id + 1, 7, 0)),
            broker(fetched(11, 4 * id + 1, batch(&three(7), Compression::Zstd), &[])),
            client(request(
                ApiKey::Heartbeat,
                4,
                4 * id + 2,
                &HeartbeatRequest::default().with_group_id(GroupId(StrBytes::from_static_str("billing"))),
            )),
            broker(response(4, 4 * id + 2, &HeartbeatResponse::default())),
        ]
    });
    said.map(|(direction, frame)| {
        let frame = if direction == of { longer(&frame, by) } else { frame };
        (direction, frame)
    })
    .collect()
}

fn heard<'a>(parts: impl IntoIterator<Item = &'a Part>) -> (Vec<String>, Scratch) {
    let mut observed = Observed::default();
    for part in parts {
        observed.push(part);
    }
    observed.finish()
}

fn nothing_is_lost(scratch: &Scratch) {
    let lost: u64 = scratch.counters.lost().map(|(_, count)| count).sum();
    let malformed: u64 = scratch.counters.malformed().map(|(_, count)| count).sum();
    assert_eq!((lost, malformed), (0, 0), "{:?}", scratch.counters);
}

#[test]
fn what_stands_behind_a_body_is_counted_and_passed_over() {
    for of in [Direction::ToBroker, Direction::ToClient] {
        let whole = reported(&talk(of, 0));
        for (by, cut) in [(1, usize::MAX), (3, usize::MAX), (40, 17), (70_000, 1400)] {
            let (lines, scratch) = heard(&segments(&talk(of, by), 5, |len| len.min(cut)));
            assert_eq!(lines, whole, "{of:?} {by}");
            nothing_is_lost(&scratch);
            assert_eq!(scratch.counters.surplus_bytes, 12 * by as u64);
        }
    }
    let (_, scratch) = heard(&segments(&talk(Direction::ToClient, 0), 5, |len| len));
    assert_eq!(scratch.counters.surplus_bytes, 0);
}

/// Behind a loss a search goes on with such a connection's next frames, in either direction.
#[test]
fn a_search_finds_the_frames_of_who_is_known_to_write_more() {
    for of in [Direction::ToBroker, Direction::ToClient] {
        let said = talk(of, 5);
        let whole = reported(&said);
        for gone in 6..14 {
            let mut parts = segments(&said, 5, |len| len);
            parts.remove(gone);
            let (lines, scratch) = heard(&parts);
            // A request with its response, and what a request that was missed makes unsure.
            assert!(lines.len() + 6 >= whole.len(), "{of:?} without {gone}: {lines:#?}");
            assert_eq!(lines[lines.len() - 7..], whole[whole.len() - 7..], "{of:?} without {gone}");
            assert_eq!(refused(&scratch, Malformed::Body), 0);
        }
    }
}

/// On a connection older than the capture the segments show where the first responses end.
#[test]
fn a_connection_of_before_is_read() {
    let said = talk(Direction::ToClient, 5);
    let whole = reported(&said);
    let parts = segments(&said, 5, |len| len);
    let (lines, scratch) = heard(parts.iter().filter(|part| !part.syn));
    assert_eq!(lines, whole);
    assert_eq!(lost(&scratch, Lost::ResponseWithoutRequest), 0);
}

/// A classic consumer's assignment of a version to come, with a field at its end that is not known.
#[test]
fn a_consumers_assignment_of_a_version_to_come_is_read() {
    let reported_of = |sync: i16, assignment_version: i16, behind: &[u8], protocol: Option<&'static str>| {
        let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
                .with_partitions(vec![2]),
        ]);
        let mut bytes = BytesMut::new();
        bytes.put_i16(assignment_version);
        assignment.encode(&mut bytes, 3).unwrap();
        bytes.put_slice(behind);
        let mut asked = SyncGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("billing")))
            .with_member_id(StrBytes::from_static_str("m"));
        let mut answer = SyncGroupResponse::default().with_assignment(Bytes::from(bytes));
        if sync >= 5 {
            asked.protocol_type = protocol.map(StrBytes::from_static_str);
            answer.protocol_type = protocol.map(StrBytes::from_static_str);
        }
        let said = [client(request(ApiKey::SyncGroup, sync, 1, &asked)), broker(response(sync, 1, &answer))];
        reported(&said).iter().filter(|line| line.starts_with("Assigned")).count()
    };
    assert_eq!(reported_of(5, 3, &[], Some("consumer")), 1);
    assert_eq!(reported_of(5, 4, &[0, 0, 0, 7], Some("consumer")), 1);
    assert_eq!(reported_of(5, 3, &[0], Some("consumer")), 1);
    assert_eq!(reported_of(5, -1, &[], Some("consumer")), 0);
    assert_eq!(reported_of(5, 3, &[], Some("connect")), 0);
    // Before version 5 it is not said whose it is: only what fits to the last byte is taken for a
    // consumer's.
    assert_eq!(reported_of(4, 3, &[], None), 1);
    assert_eq!(reported_of(4, 3, &[0], None), 0);
    assert_eq!(reported_of(4, 4, &[], None), 0);
}

/// As librdkafka's mock says that it does not know a version: in that version, and wrongly.
#[test]
fn a_refused_version_may_be_reported_in_that_version() {
    let hello = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("librdkafka"))
        .with_client_software_version(StrBytes::from_static_str("2.16"));
    let refused = b"\0\0\0\x01\0\x23\x01\0\x12\0\0\0\x02\0\0\0\0\0";
    let said = [client(request(ApiKey::ApiVersions, 3, 1, &hello)), broker(framed(refused))];
    let (lines, scratch) = heard(&segments(&said, 5, |len| len));
    assert_eq!(lines, ["software librdkafka 2.16"]);
    nothing_is_lost(&scratch);
}
