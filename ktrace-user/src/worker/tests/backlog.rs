//! What a client catches up with, and what is late; and ages that are none.

use std::time::Duration;

use super::groups::{Talk, assigned, logged, request};
use super::*;
use crate::hop::sampling::Exceptions;

/// 2026-11-29.
const NOW_NS: u64 = 1_796_000_000_000_000_000;
const NOW_MS: i64 = 1_796_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A message as it stands in the log, stamped so long ago.
fn old(offset: i64, age_ms: i64) -> Vec<u8> {
    stamped(offset, NOW_MS - age_ms)
}

/// The same, stamped with this time.
pub fn stamped(offset: i64, timestamp_ms: i64) -> Vec<u8> {
    let mut batch = logged(offset, batch(&[]));
    batch[27..35].copy_from_slice(&timestamp_ms.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    batch
}

/// Fetch v5 of partition 0 of `orders` from an offset on, of a log that begins at 100 and ends
/// there.
fn fetch(id: i32, from: i64, log_end: i64, records: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let head = [[0xff; 4], [0; 4], [0; 4], [0, 1, 0, 0]].concat();
    let orders = [&[0, 0, 0, 1][..], &text("orders"), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let asked = [&from.to_be_bytes()[..], &[0xff; 8], &[0, 1, 0, 0]].concat();
    let records = records.concat();
    let ends = [log_end.to_be_bytes(), log_end.to_be_bytes(), 100_i64.to_be_bytes()].concat();
    let len = (records.len() as u32).to_be_bytes();
    let answered = [&[0, 0][..], &ends, &[0xff; 4], &len, &records].concat();
    let asks = request(1, 5, id, &[&head, &[0], &orders, &asked]);
    (asks, framed(&[&id.to_be_bytes(), &[0; 4], &orders, &answered]))
}

/// ListOffsets v1 of the same partition.
fn listed(id: i32, offset: i64) -> (Vec<u8>, Vec<u8>) {
    let orders = [&[0, 0, 0, 1][..], &text("orders"), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let asks = request(2, 1, id, &[&[0xff; 4], &orders, &[0xff; 8]]);
    let answer = [&[0, 0][..], &[0xff; 8], &offset.to_be_bytes()].concat();
    (asks, framed(&[&id.to_be_bytes(), &orders, &answer]))
}

fn talk() -> Talk {
    talk_with(WorkerOptions::default())
}

fn talk_with(options: WorkerOptions) -> Talk {
    let mut talk = Talk::told_by(options, &Arc::default());
    talk.watched.now_ns = NOW_NS;
    talk
}

/// Offsets, and whether the client was catching up.
fn told(talk: &Talk) -> Vec<(i64, bool)> {
    let hops = talk.watched.hops();
    hops.iter().map(|hop| (hop.passage.offset.unwrap(), hop.passage.is_catching_up())).collect()
}

#[test]
fn who_begins_where_the_log_begins_catches_up_until_what_came_since() {
    let mut talk = talk();
    talk.say(1, |id| fetch(id, 100, 104, &[old(100, DAY_MS), old(101, 95_000)]));
    // Meanwhile two more came; of them the first was written a second before they came.
    talk.watched.now_ns += 60_000_000_000;
    let more = [old(102, 15_000), old(103, 9000), old(104, -1000), old(105, -30_000)];
    talk.say(1, |id| fetch(id, 102, 106, &more));
    talk.say(1, |id| fetch(id, 106, 107, &[old(106, 95_000)]));
    assert_eq!(
        told(&talk),
        [(100, true), (101, true), (102, true), (103, false), (104, false), (105, false), (106, false)]
    );
    let hop = talk.watched.hops()[1].clone();
    assert_eq!(
        (hop.passage.late_ns(), hop.passage.queue_ns().map(|ns| ns / 1_000_000_000)),
        (None, Some(95))
    );
    let topic = shown(&hop.topic);
    assert!(hop.span(&topic).attributes.contains(&("ktrace.catching_up", Value::Bool(true))));
}

/// Younger than that, but a thousand messages behind.
#[test]
fn who_is_far_behind_catches_up_with_what_is_young_too() {
    for (log_end, is_far) in [(1099, false), (1100, true)] {
        let mut talk = talk();
        talk.say(1, |id| fetch(id, 100, log_end, &[old(100, 2000), old(101, 500)]));
        assert_eq!(told(&talk), [(100, is_far), (101, false)]);
    }
}

#[test]
fn old_messages_are_late_where_the_user_wants_that() {
    let mut talk = talk_with(WorkerOptions { old_is_late: true, ..WorkerOptions::default() });
    talk.say(1, |id| fetch(id, 100, 104, &[old(100, DAY_MS)]));
    assert_eq!(told(&talk), [(100, false)]);
    assert!(talk.watched.hops()[0].passage.late_ns().is_some());
}

/// A restored state store: it asks for the log's end, and goes on at its checkpoint.
#[test]
fn who_asks_where_the_log_ends_and_is_in_no_group_catches_up() {
    let mut talk = talk();
    talk.say(1, |id| listed(id, 500));
    talk.say(1, |id| fetch(id, 300, 500, &[old(300, 95_000)]));
    assert_eq!(told(&talk), [(300, true)]);
}

#[test]
fn who_goes_on_where_it_was_is_late() {
    // By its commit, or on another connection as the first one broke: nothing is listed. Or it
    // looks how far it is behind.
    for looks in [false, true] {
        let mut talk = talk();
        talk.say(1, |id| assigned(id, "g", "m"));
        if looks {
            talk.say(2, |id| listed(id, 500));
        }
        talk.say(2, |id| fetch(id, 300, 500, &[old(300, 95_000)]));
        assert_eq!(told(&talk), [(300, false)]);
        assert_eq!(talk.watched.hops()[0].group(), Some("g"));
    }
    let mut talk = talk();
    talk.say(1, |id| fetch(id, 300, 500, &[old(300, 95_000)]));
    assert_eq!(told(&talk), [(300, false)]);
}

/// The alarm that this must not hide: it has begun at the end, and falls behind.
#[test]
fn a_slow_consumer_is_late() {
    let mut talk = talk();
    talk.say(1, |id| listed(id, 100));
    talk.say(1, |id| fetch(id, 100, 100, &[]));
    for at in 0..50 {
        talk.watched.now_ns += 10_000_000_000;
        // Left out of requests while it is busy; then it goes on.
        talk.say(1, |id| fetch(id, 100 + at, 100 + 100 * (at + 1), &[old(100 + at, -5000)]));
    }
    assert!(told(&talk).iter().all(|(_, catches_up)| !catches_up));
    let late = talk.watched.hops().last().unwrap().passage.late_ns().unwrap();
    assert!(late > 490_000_000_000, "{late}");
}

#[test]
fn who_goes_back_to_the_beginning_catches_up_again() {
    let mut talk = talk();
    talk.say(1, |id| fetch(id, 100, 100, &[]));
    talk.watched.now_ns += 100_000_000_000;
    talk.say(1, |id| fetch(id, 100, 101, &[old(100, -99_000)]));
    talk.say(1, |id| fetch(id, 101, 101, &[]));
    talk.watched.now_ns += 100_000_000_000;
    talk.say(1, |id| fetch(id, 100, 101, &[old(100, -99_000)]));
    assert_eq!(told(&talk), [(100, false), (100, true)]);
}

#[test]
fn what_is_caught_up_with_is_no_slow_message_to_be_kept() {
    let options = WorkerOptions {
        sampling: Sampling::new(0.0),
        exceptions: Exceptions {
            slow_ns: Some(Duration::from_secs(1).as_nanos() as u64),
            ..Exceptions::default()
        },
        ..WorkerOptions::default()
    };
    let mut talk = talk_with(options);
    let seconds = NOW_MS / 1000;
    let messages = [old(100, 95_000), old(101, -100), stamped(102, seconds), old(103, 95_000)];
    talk.say(1, |id| fetch(id, 100, 102, &messages));
    assert_eq!(told(&talk), [(103, false)], "behind what was there it is late");
}

fn attributes(talk: &Talk) -> Vec<Vec<(&'static str, Value<'static>)>> {
    let of = |hop: &Hop| {
        let topic = shown(&hop.topic);
        let is_time = |name: &str| name.contains("time") || name.contains("skew");
        let span = hop.span(&topic);
        let times = span.attributes.iter().filter(|(name, _)| is_time(name));
        times
            .map(|(name, value)| match value {
                Value::Double(number) => (*name, Value::Double(*number)),
                Value::Bool(flag) => (*name, Value::Bool(*flag)),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    talk.watched.hops().iter().map(of).collect()
}

#[test]
fn ages_are_told_in_full_and_what_is_none_is_marked() {
    let mut talk = talk();
    let seconds = NOW_MS / 1000;
    let ages = [
        old(300, 60 * DAY_MS),
        stamped(301, seconds),
        stamped(302, NOW_MS * 1000),
        stamped(303, -1),
        old(304, -500),
    ];
    talk.say(1, |id| fetch(id, 300, 400, &ages));
    let implausible = || vec![("ktrace.timestamp.implausible", Value::Bool(true))];
    assert_eq!(
        attributes(&talk),
        [
            vec![("ktrace.queue_time_ms", Value::Double(5_184_000_000.002))],
            implausible(),
            implausible(),
            vec![],
            vec![("ktrace.clock_skew_ms", Value::Double(499.998))],
        ]
    );
    // The producer's own span says it too.
    talk.say(2, |id| (produce_batch(id, "orders", &stamped(0, seconds)), produced(id, "orders", 7)));
    assert_eq!(attributes(&talk)[5..], [implausible()]);
}
