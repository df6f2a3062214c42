//! Hops that wait for other rings: in which order, until when, and with which knowledge.

use super::groups::{Talk, assigned, committed, fetched, fetched_batches, logged, request};
use super::sharing::{ID, metadata};
use super::transactions::{marker, transactional};
use super::*;
use crate::hop::Kind;
use crate::worker::stage::Stage;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Two workers: of one that fetches, and of one that is a member, whose ring is read later.
pub fn two() -> (Talk, Talk) {
    let shared = Arc::default();
    let (mut fetches, mut joins) = (Talk::with(&shared), Talk::with(&shared));
    fetches.watched.now_ns = 10 * HOUR_NS;
    joins.watched.now_ns = fetches.watched.now_ns - 10_000_000;
    (fetches, joins)
}

/// Fetch v13: the topic by its id, one message.
fn fetched_by_id(id: i32, offset: i64) -> (Vec<u8>, Vec<u8>) {
    records_by_id(id, offset, &logged(offset, batch(&[])))
}

fn records_by_id(id: i32, offset: i64, records: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let len = records.len() + 1;
    let asked = [&[0xff; 4], &offset.to_be_bytes()[..], &[0xff; 4], &[0xff; 8], &[0, 1, 0, 0, 0]].concat();
    let head = [&[0][..], &[0xff; 4], &[0; 4], &[0; 4], &[0, 1, 0, 0], &[0], &[0; 8], &[2], &ID].concat();
    let request = request(1, 13, id, &[&head, &[2, 0, 0, 0, 0], &asked, &[0, 1, 1, 0]]);
    let answer = framed(&[
        &id.to_be_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        &ID,
        &[2, 0, 0, 0, 0, 0, 0],
        &1000_i64.to_be_bytes(),
        &1000_i64.to_be_bytes(),
        &[0; 8],
        &[1, 0xff, 0xff, 0xff, 0xff],
        &[len as u8 & 0x7f | 0x80, (len >> 7) as u8],
        records,
        &[0, 0, 0],
    ]);
    (request, answer)
}

/// Another connection, whose messages are due later, has brought its own in between.
#[test]
fn a_connection_does_not_overtake_its_own_first_messages() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0]));
    fetches.watched.now_ns += 100_000_000;
    fetches.say(12, |id| fetched(id, 0, &[0]));
    fetches.watched.now_ns += 40_000_000;
    fetches.say(11, |id| fetched(id, 10, &[10, 11]));
    joins.say(1, |id| assigned(id, "g", "m1"));
    fetches.watched.now_ns += 20_000_000;
    fetches.say(11, |id| fetched(id, 20, &[20]));
    // For when they were sent.
    fetches.watched.wait(500_000_000);
    let told = [
        "poll @0 group=g member=m1",
        "poll @10 group=g member=m1",
        "poll @11 group=g member=m1",
        "poll @20 group=g member=m1",
    ];
    let (of_it, other): (Vec<_>, Vec<_>) =
        fetches.told().into_iter().partition(|told| told.contains("group"));
    assert_eq!(of_it, told);
    assert_eq!(other, ["poll @0"]);
}

/// Also at the end: the connection whose number is higher was first.
#[test]
fn what_waits_is_counted_in_its_order_at_the_end() {
    let (mut fetches, mut joins) = two();
    fetches.say(12, |id| fetched(id, 5, &[5]));
    fetches.say(11, |id| fetched(id, 0, &[0]));
    joins.say(1, |id| assigned(id, "g", "m1"));
    joins.say(2, |id| assigned(id, "g", "m2"));
    let Talk { watched, .. } = fetches;
    let told = Arc::clone(&watched.hops);
    let _ = watched.worker.finish();
    let told = told.lock().unwrap();
    let is_behind = |hop: &Hop| matches!(hop.passage.kind, Kind::Delivered { is_behind: true, .. });
    let behind: Vec<_> =
        told.iter().filter(|hop| is_behind(hop)).filter_map(|hop| hop.passage.offset).collect();
    assert_eq!((told.len(), behind), (2, vec![0]));
}

/// The topic's name lies in the other ring too.
#[test]
fn first_messages_are_named_by_what_came_of_their_topic_meanwhile() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched_by_id(id, 0));
    joins.say(2, |_| metadata());
    joins.say(1, |id| assigned(id, "g", "m1"));
    joins.watched.now_ns = fetches.watched.now_ns;
    joins.say(1, |id| committed(id, "g", "m1", 1, 0));
    fetches.watched.wait(300_000_000);
    assert_eq!(fetches.told(), ["poll @0 group=g member=m1"]);
    joins.watched.wait(300_000_000);
    assert_eq!(joins.told(), ["commit @1 group=g member=m1 messages=1"]);
    let (first, commit) = (fetches.watched.hops()[0].clone(), joins.watched.hops()[0].clone());
    let span_id = first.passage.span_id(&first.parties, &shown(&first.topic));
    assert_eq!(commit.span(&shown(&commit.topic)).parent, Some(span_id));
}

/// The client goes on with another connection, to the same broker.
#[test]
fn who_has_hung_up_reads_no_more_though_its_messages_are_told_late() {
    let resets: fn(&mut Talk) = |talk| {
        let (client, broker) = talk.at[&11];
        talk.watched.socket.0 = 11;
        talk.watched.reset(ends(11), Direction::ToBroker, client, broker);
    };
    let is_elsewhere: fn(&mut Talk) = |talk| {
        talk.watched.worker.event(Event::Opened {
            connection: ConnectionId(11),
            ends: ends(13),
            side: Side::Client,
            owner: None,
        });
    };
    for is_over in [resets, is_elsewhere] {
        let (mut fetches, mut joins) = two();
        fetches.say(11, |id| fetched(id, 0, &[0]));
        joins.say(1, |id| assigned(id, "g", "m1"));
        is_over(&mut fetches);
        fetches.watched.wait(500_000_000);
        fetches.say(12, |id| fetched(id, 1, &[1]));
        fetches.watched.wait(500_000_000);
        fetches.watched.wait(500_000_000);
        assert_eq!(fetches.told(), ["poll @0 group=g member=m1", "poll @1 group=g member=m1"]);
    }
}

/// As tools that read one message do: its assignment is in the other ring.
#[test]
fn who_reads_one_message_and_is_gone_is_known_all_the_same() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0]));
    let (client, broker) = fetches.at[&11];
    fetches.watched.reset(ends(11), Direction::ToBroker, client, broker);
    joins.say(1, |id| assigned(id, "g", "m1"));
    fetches.watched.wait(200_000_000);
    // The next, before the first is forgotten.
    fetches.say(12, |id| fetched(id, 1, &[1]));
    fetches.watched.wait(300_000_000);
    assert_eq!(fetches.told(), ["poll @0 group=g member=m1", "poll @1 group=g member=m1"]);
}

/// The first exchange brings a whole transaction, the next another.
#[test]
fn markers_decide_the_first_messages_that_came_with_them() {
    let (mut fetches, _joins) = two();
    for (offset, commits) in [(0, true), (2, false), (4, true)] {
        let batches = [logged(offset, transactional()), logged(offset + 1, marker(commits))].concat();
        fetches.say(11, |id| fetched_batches(id, offset, &batches));
    }
    fetches.watched.wait(500_000_000);
    assert_eq!(fetches.told(), ["poll @0 in=committed", "poll @2 in=aborted", "poll @4 in=committed"]);
}

/// The topic's name comes between a message and its marker.
#[test]
fn markers_decide_first_messages_whose_topic_was_not_known() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| records_by_id(id, 0, &logged(0, transactional())));
    joins.say(2, |_| metadata());
    fetches.say(11, |id| records_by_id(id, 1, &logged(1, marker(true))));
    fetches.watched.wait(500_000_000);
    assert_eq!(fetches.told(), ["poll @0 in=committed"]);
}

/// A worker that nothing comes to looks around less often.
#[test]
fn first_messages_of_a_quiet_worker_are_told_before_the_commits_of_others() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0]));
    joins.say(1, |id| assigned(id, "g", "m1"));
    joins.watched.now_ns = fetches.watched.now_ns + 2_000_000;
    joins.say(1, |id| committed(id, "g", "m1", 1, 0));
    fetches.watched.wait(200_000_000);
    joins.watched.wait(260_000_000);
    assert_eq!(joins.told(), ["commit @1 group=g member=m1 messages=1"]);
}

/// Nothing can lie behind it.
#[test]
fn a_message_at_the_last_of_all_offsets_is_named() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0, i64::MAX]));
    joins.say(1, |id| assigned(id, "g", "m1"));
    fetches.watched.wait(500_000_000);
    let last = format!("poll @{} group=g member=m1", i64::MAX);
    assert_eq!(fetches.told(), ["poll @0 group=g member=m1", &last]);
}

/// Times are those of a wall clock.
/// Another connection's, stamped before the clock was set back, are due later and stand before them.
#[test]
fn later_messages_do_not_overtake_first_ones_that_are_due() {
    let (mut fetches, _joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0]));
    fetches.watched.now_ns -= 50_000_000;
    fetches.say(12, |id| fetched(id, 0, &[0]));
    fetches.watched.now_ns += 155_000_000;
    fetches.say(12, |id| fetched(id, 1, &[1]));
    fetches.watched.wait(300_000_000);
    fetches.watched.wait(300_000_000);
    assert_eq!(fetches.told(), ["poll @0", "poll @0", "poll @1"]);
}

#[test]
fn first_messages_do_not_wait_until_a_clock_that_was_set_back_is_there_again() {
    let (mut fetches, _joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[0]));
    let one = fetches.watched.worker.stages.awaiting_group.len();
    // Nearly in order.
    fetches.watched.now_ns -= 5_000_000;
    fetches.say(12, |id| fetched(id, 0, &[0]));
    assert_eq!(fetches.watched.worker.stages.awaiting_group.len(), 2 * one);
    fetches.watched.now_ns -= HOUR_NS;
    fetches.say(13, |id| fetched(id, 0, &[0]));
    assert_eq!(fetches.watched.worker.stages.awaiting_group.len(), one, "but for the last");
    fetches.say(11, |id| fetched(id, 1, &[1]));
    assert_eq!(fetches.watched.worker.stages.awaiting_group.len(), one, "nor does it wait again");
    fetches.watched.wait(300_000_000);
    fetches.watched.wait(300_000_000);
    assert_eq!(fetches.told(), ["poll @0", "poll @0", "poll @1", "poll @0"], "nor behind that");
}

#[test]
fn commits_do_not_wait_until_a_clock_that_was_set_back_is_there_again() {
    let (_fetches, mut joins) = two();
    joins.say(1, |id| committed(id, "g", "m1", 1, 0));
    assert!(joins.told().is_empty());
    joins.watched.now_ns -= HOUR_NS;
    joins.watched.wait(0);
    assert_eq!(joins.told().len(), 1);
}
