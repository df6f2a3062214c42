//! Share groups: what a member acquires and acknowledges.

use super::groups::{Talk, logged};
use super::*;
use crate::hop::acknowledge::AcknowledgeType::{Accept, Reject, Release, Renew};
use crate::hop::{Kind, identity};

const TOPIC: u128 = 7;

/// Lengths of the flexible encoding; all are below 127.
fn compact(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8 + 1], bytes].concat()
}

fn head(key: u8, id: i32, member: &str) -> Vec<u8> {
    let head = [&[0, key, 0, 1], &id.to_be_bytes()[..], &text("me"), &[0]].concat();
    // And the epoch of the share session.
    [head, compact(b"g"), compact(member.as_bytes()), vec![0, 0, 0, 1]].concat()
}

/// First offset, last offset, types.
pub type Acks<'x> = &'x [(i64, i64, &'x [u8])];

/// What is acknowledged of partition 0.
fn acknowledgements(acks: Acks<'_>) -> Vec<u8> {
    let each = acks.iter().flat_map(|(first, last, types)| {
        [&first.to_be_bytes()[..], &last.to_be_bytes(), &compact(types), &[0]].concat()
    });
    let partition = [vec![0, 0, 0, 0, acks.len() as u8 + 1], each.collect(), vec![0]].concat();
    [&[2], &TOPIC.to_be_bytes()[..], &[2], &partition, &[0]].concat()
}

/// ShareFetch v1, acquiring messages of these offsets, each with its count of deliveries.
fn share_fetch(id: i32, member: &str, acks: Acks<'_>, acquired: &[(i64, u8)]) -> (Vec<u8>, Vec<u8>) {
    share_fetch_of(id, member, acks, acquired, |_| batch(&[]))
}

/// The same, with a batch for each offset.
pub fn share_fetch_of(
    id: i32,
    member: &str,
    acks: Acks<'_>,
    acquired: &[(i64, u8)],
    batch: impl Fn(i64) -> Vec<u8>,
) -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&head(78, id, member), &[0; 20], &acknowledgements(acks), &[1, 0]]);
    let records =
        acquired.iter().map(|(offset, _)| logged(*offset, batch(*offset))).collect::<Vec<_>>().concat();
    let ranges = acquired.iter().flat_map(|(offset, count)| {
        [&offset.to_be_bytes()[..], &offset.to_be_bytes(), &[0, *count, 0]].concat()
    });
    // Partition, errors and messages of errors, leader; a length of two bytes for the records.
    let len = records.len() + 1;
    let fetched = [
        vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![len as u8 & 0x7f | 0x80, (len >> 7) as u8],
        records,
        vec![acquired.len() as u8 + 1],
        ranges.collect(),
        vec![0],
    ]
    .concat();
    let topic = [&[2], &TOPIC.to_be_bytes()[..], &[2], &fetched, &[0]].concat();
    let answer = framed(&[&id.to_be_bytes(), &[0], &[0; 4], &[0, 0, 0], &[0; 4], &topic, &[1, 0]]);
    (request, answer)
}

/// ShareAcknowledge v1.
pub fn share_acknowledge(id: i32, member: &str, acks: Acks<'_>, error: u8) -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&head(79, id, member), &acknowledgements(acks), &[0]]);
    let outcome = [0, 0, 0, 0, 0, error, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let topic = [&[2], &TOPIC.to_be_bytes()[..], &[2], &outcome, &[0]].concat();
    (request, framed(&[&id.to_be_bytes(), &[0], &[0; 4], &[0, 0, 0], &topic, &[1, 0]]))
}

pub fn talk() -> Talk {
    let mut talk = Talk::new();
    let world = &mut talk.watched.worker.world;
    world.topics.learn(&world.shared.topics, TOPIC, "orders");
    talk
}

/// Of a hop: its span's id, its trace's, its parent's, and the links' ids.
fn ids(hop: &Hop) -> (String, String, Option<String>, Vec<String>) {
    let topic = shown(&hop.topic);
    let span = hop.span(&topic);
    let links = span.links.iter().map(|link| link.span_id.to_string()).collect();
    (span.span_id.to_string(), span.trace_id.to_string(), span.parent.map(|id| id.to_string()), links)
}

#[test]
fn each_run_of_a_type_stands_in_the_trace_of_its_last_message() {
    let mut talk = talk();
    talk.say(1, |id| share_fetch(id, "m", &[], &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]));
    talk.say(1, |id| share_acknowledge(id, "m", &[(0, 3, &[1, 1, 2, 3]), (4, 4, &[4])], 0));
    // What was released comes again, and is acknowledged with the next fetch.
    talk.say(1, |id| share_fetch(id, "m", &[], &[(2, 2)]));
    talk.say(1, |id| share_fetch(id, "m", &[(2, 2, &[1]), (4, 4, &[1])], &[]));
    assert_eq!(
        talk.told()[5..],
        [
            "ack @1 group=g member=m accept messages=2",
            "ack @2 group=g member=m release messages=1",
            "ack @3 group=g member=m reject messages=1",
            "ack @4 group=g member=m renew messages=1",
            "poll @2 group=g member=m count=2",
            "ack @2 group=g member=m accept messages=1",
            "ack @4 group=g member=m accept messages=1",
        ]
    );
    let hops = talk.watched.hops();
    let all: Vec<_> = hops.iter().map(ids).collect();
    for (ack, poll) in [(5, 1), (6, 2), (7, 3), (8, 4), (10, 9), (11, 4)] {
        let (of_ack, of_poll) = (&all[ack], &all[poll]);
        assert_eq!((&of_ack.1, of_ack.2.as_ref()), (&of_poll.1, Some(&of_poll.0)), "{ack}");
    }
    assert_eq!((&all[5].3[..], all[6].3.len()), (&[all[0].0.clone()][..], 0));
    let types: Vec<_> = hops[5..9]
        .iter()
        .map(|hop| match &hop.passage.kind {
            Kind::Acknowledged(of) => of.of,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(types, [Accept, Release, Reject, Renew]);
    assert_eq!(talk.watched.worker.world.acquired, 0, "all were acknowledged in the end");
}

#[test]
fn a_refused_acknowledgement_is_an_error_and_may_come_again() {
    let mut talk = talk();
    talk.say(1, |id| share_fetch(id, "m", &[], &[(0, 1)]));
    talk.say(1, |id| share_acknowledge(id, "m", &[(0, 0, &[1])], 121));
    talk.say(1, |id| share_acknowledge(id, "m", &[(0, 0, &[1])], 0));
    talk.say(1, |id| share_acknowledge(id, "m", &[(0, 0, &[1])], 121));
    assert_eq!(
        talk.told()[1..],
        [
            "ack @0 group=g member=m accept messages=1 error=INVALID_RECORD_STATE",
            "ack @0 group=g member=m accept messages=1",
            "ack @0 group=g member=m accept messages=1 error=INVALID_RECORD_STATE",
        ]
    );
    let hops = talk.watched.hops();
    let polled = ids(&hops[0]);
    assert_eq!(ids(&hops[1]).2.as_ref(), Some(&polled.0));
    assert_eq!(ids(&hops[2]).2.as_ref(), Some(&polled.0));
    // Nothing is known of it any more: a trace of its own, that every agent would name so.
    let (span, trace, parent, _) = ids(&hops[3]);
    let place = identity::ack_hash(identity::AckPlace {
        group: "g",
        partition: 0,
        first_offset: 0,
        last_offset: 0,
        correlation_id: 4,
        request_seq: talk.at[&1].0 - share_acknowledge(0, "m", &[(0, 0, &[1])], 0).0.len() as u32,
    });
    assert_eq!(trace, identity::ack_trace_id(place).to_string());
    assert_eq!((span, parent), (identity::ack_span_id(place, "orders").to_string(), None));
}

#[test]
fn another_members_messages_and_connections_are_not_ones_own() {
    let mut talk = talk();
    talk.say(1, |id| share_fetch(id, "m", &[], &[(0, 1)]));
    talk.say(2, |id| share_acknowledge(id, "m", &[(0, 0, &[1])], 0));
    talk.say(1, |id| share_acknowledge(id, "n", &[(0, 0, &[1])], 0));
    talk.say(1, |id| share_acknowledge(id, "m", &[(0, 0, &[1])], 0));
    let parents: Vec<_> = talk.watched.hops().iter().skip(1).map(|hop| ids(hop).2).collect();
    assert_eq!(parents, [None, None, None]);
    assert_eq!(talk.watched.worker.world.acquired, 0);
}

#[test]
fn a_connection_that_ends_forgets_what_it_brought() {
    let mut talk = talk();
    talk.say(1, |id| share_fetch(id, "m", &[], &[(0, 1), (1, 1)]));
    assert_eq!(talk.watched.worker.world.acquired, 2);
    talk.watched.worker.forget(ConnectionId(1));
    assert_eq!(talk.watched.worker.world.acquired, 0);
}
