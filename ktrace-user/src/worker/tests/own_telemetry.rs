//! ktrace's own spans as messages: they are not shown, nor what groups do with nothing but them.

use super::groups::{Talk, assigned, committed, fetched_batches, logged};
use super::late::two;
use super::share::{Acks, share_acknowledge, share_fetch_of, talk};
use super::*;

/// A span of OTLP as far as its ids, with an attribute of this name.
fn span(name: &str) -> Vec<u8> {
    let len = name.len() as u8;
    [&[0x0a, 16][..], &[7; 16], &[0x12, 8], &[7; 8], &[0x4a, len + 2, 0x0a, len], name.as_bytes()].concat()
}

fn own() -> Vec<u8> {
    batch_with(None, Some(&span("ktrace.derived")), &[])
}

fn others() -> Vec<u8> {
    batch_with(None, Some(&span("http.route")), &[])
}

/// Fetch of messages from an offset on, one behind the other.
fn fetched(id: i32, from: i64, batches: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let batches = (from..).zip(batches).map(|(offset, batch)| logged(offset, batch.clone()));
    fetched_batches(id, from, &batches.collect::<Vec<_>>().concat())
}

fn lost(talk: Talk) -> Option<u64> {
    let Talk { watched, .. } = talk;
    watched.worker.finish().lost.get("own_telemetry").copied()
}

#[test]
fn own_spans_are_left_out_where_they_are_sent_and_named_by_topic() {
    for (shown, offsets, counted) in [(false, vec![1, 3], Some(2)), (true, vec![0, 1, 2, 3], None)] {
        let shared = Arc::default();
        let options = WorkerOptions { own_telemetry: shown, ..WorkerOptions::default() };
        let mut talk = Talk::told_by(options, &shared);
        for (offset, batch) in (0..).zip([own(), others(), own(), batch(&[])]) {
            talk.say(1, |id| (produce_batch(id, "spans", &batch), produced(id, "spans", offset)));
        }
        assert_eq!(talk.watched.offsets(), offsets);
        assert_eq!(lost(talk), counted);
        assert_eq!(
            shared.own_telemetry().into_iter().next(),
            counted.map(|count| ("spans".to_owned(), count))
        );
    }
}

#[test]
fn commits_that_cover_nothing_else_are_left_out() {
    let mut talk = Talk::new();
    talk.say(1, |id| assigned(id, "g", "m"));
    talk.say(11, |id| fetched(id, 0, &[own(), own(), others(), own()]));
    for offset in [2, 3, 3, 4] {
        talk.say(1, |id| committed(id, "g", "m", offset, 0));
    }
    // In one exchange or in several, and what was not known when it was committed.
    talk.say(11, |id| fetched(id, 4, &[own()]));
    talk.say(11, |id| fetched(id, 5, &[own(), own()]));
    talk.say(1, |id| committed(id, "g", "m", 7, 0));
    talk.say(1, |id| committed(id, "g", "m", 9, 25));
    let told = [
        "poll @2 group=g member=m",
        "commit @3 group=g member=m messages=1",
        "commit @9 group=g member=m messages=0 error=UNKNOWN_MEMBER_ID",
    ];
    assert_eq!(talk.told(), told);
    assert_eq!(lost(talk), Some(6 + 3));
}

#[test]
fn where_all_is_own_a_commit_of_what_is_not_known_is_left_out_too() {
    for (batch, told) in
        [(own(), vec![]), (others(), vec!["poll @0", "commit @9 group=g member=m messages=0"])]
    {
        let mut talk = Talk::new();
        talk.say(11, |id| fetched(id, 0, &[batch]));
        talk.say(1, |id| committed(id, "g", "m", 9, 0));
        assert_eq!(talk.told(), told);
    }
}

#[test]
fn first_messages_that_are_told_late_are_committed_as_others() {
    let (mut fetches, mut joins) = two();
    fetches.say(11, |id| fetched(id, 0, &[own(), others(), own(), own()]));
    joins.say(1, |id| assigned(id, "g", "m"));
    joins.watched.now_ns = fetches.watched.now_ns;
    joins.say(1, |id| committed(id, "g", "m", 2, 0));
    joins.say(1, |id| committed(id, "g", "m", 4, 0));
    fetches.watched.wait(500_000_000);
    joins.watched.wait(1_000_000_000);
    assert_eq!(fetches.told(), ["poll @1 group=g member=m"]);
    assert_eq!(joins.told(), ["commit @2 group=g member=m messages=2"]);
    assert_eq!((lost(fetches), lost(joins)), (Some(3), Some(1)));
}

#[test]
fn acknowledgements_of_nothing_else_are_left_out() {
    let mut talk = talk();
    let batch = |offset| if offset == 2 { others() } else { own() };
    talk.say(1, |id| share_fetch_of(id, "m", &[], &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], batch));
    let acks: Acks<'_> = &[(0, 3, &[1, 1, 2, 1]), (4, 4, &[4])];
    talk.say(1, |id| share_acknowledge(id, "m", acks, 0));
    talk.say(1, |id| share_acknowledge(id, "m", &[(4, 4, &[1])], 0));
    assert_eq!(
        talk.told(),
        ["poll @2 group=g member=m count=1", "ack @2 group=g member=m release messages=1"]
            .map(|told| told.replace(" count=1", ""))
    );
    assert_eq!(talk.watched.worker.world.acquired, 0);
    assert_eq!(lost(talk), Some(4 + 4));
}
