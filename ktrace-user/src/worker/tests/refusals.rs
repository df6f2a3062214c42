//! What brokers refuse and how long they make clients wait; and what they refuse that is none.

use super::attempts::refused;
use super::groups::{Talk, committed, fetched, request};
use super::*;
use crate::hop::refusal::{MAX_DIFFERENT, PAUSE_NS};

/// Fetch v7: as a whole, and of partition 0 of `orders`, without any record.
fn fetch(id: i32, of_all: u8, of_partition: u8) -> (Vec<u8>, Vec<u8>) {
    fetch_of(id, of_all, &[(0, of_partition)], 0)
}

fn fetch_of(id: i32, of_all: u8, partitions: &[(i32, u8)], throttle_ms: i32) -> (Vec<u8>, Vec<u8>) {
    let (mut asked, mut answered) = (vec![], vec![]);
    for (partition, error) in partitions {
        let offsets = [7_i64.to_be_bytes(), [0xff; 8]].concat();
        asked.extend([&partition.to_be_bytes()[..], &offsets, &[0, 1, 0, 0]].concat());
        let ends = [0xff; 8 * 3];
        answered.extend([&partition.to_be_bytes()[..], &[0, *error], &ends, &[0xff; 4], &[0; 4]].concat());
    }
    let count = (partitions.len() as u32).to_be_bytes();
    let head = [[0xff; 4], [0; 4], [0; 4], [0, 1, 0, 0]].concat();
    let orders = [&[0, 0, 0, 1][..], &text("orders"), &count].concat();
    let asks = request(1, 7, id, &[&head, &[0], &[0; 4], &[0xff; 4], &orders, &asked, &[0; 4]]);
    let topics = if of_all == 0 { [&orders[..], &answered].concat() } else { vec![0; 4] };
    let answer = [&id.to_be_bytes()[..], &throttle_ms.to_be_bytes(), &[0, of_all], &[0; 4], &topics].concat();
    (asks, framed(&[&answer]))
}

/// Heartbeat v1.
fn heartbeat(id: i32, error: u8) -> (Vec<u8>, Vec<u8>) {
    let asks = request(12, 1, id, &[&text("g"), &[0, 0, 0, 5], &text("m")]);
    (asks, framed(&[&id.to_be_bytes(), &[0, 0, 0, 9], &[0, error]]))
}

/// SaslAuthenticate v0, with a password.
fn authenticate(id: i32, error: u8) -> (Vec<u8>, Vec<u8>) {
    let asks = request(36, 0, id, &[&[0, 0, 0, 6], b"secret"]);
    (asks, framed(&[&id.to_be_bytes(), &[0, error], &text("wrong: secret"), &[0xff; 4]]))
}

/// Metadata v1 of a topic `orders`.
fn metadata(id: i32, error: u8) -> (Vec<u8>, Vec<u8>) {
    let asks = request(3, 1, id, &[&[0, 0, 0, 1], &text("orders")]);
    let topic = [&[0, error][..], &text("orders"), &[0], &[0; 4]].concat();
    (asks, framed(&[&id.to_be_bytes(), &[0; 4], &[0xff; 4], &[0, 0, 0, 1], &topic]))
}

/// Operation, topic, group, error and count.
fn shown_so(talk: &Talk) -> Vec<String> {
    let told = |hop: &Hop| {
        let topic = shown(&hop.topic);
        let span = hop.span(&topic);
        let of = |name: &str| {
            let value = span.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
            value.map_or("-".to_owned(), |value| match value {
                Value::Int(number) => number.to_string(),
                value => value.as_text().map_or_else(|| format!("{value:?}"), Into::into),
            })
        };
        assert!(span.links.is_empty() && span.parent.is_none() && span.kind == crate::span::Kind::Client);
        let crate::span::Status::Error(status) = span.status else { panic!("{span:?}") };
        assert_eq!(status, of("error.type"));
        let places = [of("messaging.destination.name"), of("messaging.destination.partition.id")];
        let group = of("messaging.consumer.group.name");
        format!(
            "{} {} {group} {} {}",
            span.name,
            places.join("/"),
            of("error.type"),
            of("ktrace.refused.count")
        )
    };
    talk.watched.hops().iter().map(told).collect()
}

fn counted(shared: &Shared) -> Vec<(String, u64)> {
    let refused = shared.refused().into_iter();
    refused.map(|((operation, error), count)| (format!("{operation} {error}"), count)).collect()
}

#[test]
fn refused_fetches_are_shown_once_in_a_while_and_all_are_counted() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    for _ in 0..5 {
        talk.say(1, |id| fetch(id, 0, 3));
    }
    talk.say(1, |id| fetch(id, 42, 0));
    assert_eq!(
        shown_so(&talk),
        ["poll orders orders/0 - UNKNOWN_TOPIC_OR_PARTITION 1", "poll -/- - INVALID_REQUEST 1"]
    );
    talk.watched.wait(PAUSE_NS);
    talk.say(1, |id| fetch(id, 0, 3));
    assert_eq!(shown_so(&talk)[2..], ["poll orders orders/0 - UNKNOWN_TOPIC_OR_PARTITION 5"]);
    assert_eq!(
        counted(&shared),
        [("Fetch INVALID_REQUEST".to_owned(), 1), ("Fetch UNKNOWN_TOPIC_OR_PARTITION".to_owned(), 6)]
    );
    let ids: std::collections::BTreeSet<_> =
        talk.watched.hops().iter().map(|hop| hop.passage.trace_id().to_string()).collect();
    assert_eq!(ids.len(), 3, "each stands alone");
}

/// Leaders move and sessions end all the time: no application hears of it.
#[test]
fn what_is_ordinary_is_counted_alone() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    talk.say(1, |id| fetch(id, 0, 6));
    talk.say(1, |id| fetch(id, 70, 0));
    talk.say(1, |id| fetch(id, 71, 0));
    talk.say(1, |id| fetch(id, 0, 75));
    talk.say(1, |id| fetch(id, 0, 78));
    talk.say(1, |id| heartbeat(id, 27));
    assert!(talk.watched.hops().is_empty());
    assert_eq!(counted(&shared).iter().map(|(_, count)| count).sum::<u64>(), 6);
    assert_eq!(counted(&shared).len(), 6);
}

/// A topic that is being made, a coordinator that is being elected; and one that is not.
#[test]
fn what_is_mended_soon_is_counted_and_what_lasts_is_shown() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    talk.say(1, |id| metadata(id, 3));
    for _ in 0..5 {
        talk.say(1, |id| heartbeat(id, 15));
        talk.watched.now_ns += 3_000_000_000;
    }
    assert_eq!(shown_so(&talk), ["Heartbeat -/- g COORDINATOR_NOT_AVAILABLE 5"]);
    let counted: Vec<_> = counted(&shared).into_iter().map(|(_, count)| count).collect();
    assert_eq!(counted, [5, 1]);
}

#[test]
fn who_may_not_is_shown_whatever_it_asked_for() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    talk.say(1, |id| heartbeat(id, 30));
    talk.say(1, |id| authenticate(id, 58));
    talk.say(1, |id| metadata(id, 29));
    talk.say(1, |id| authenticate(id, 0));
    assert_eq!(
        shown_so(&talk),
        [
            "Heartbeat -/- g GROUP_AUTHORIZATION_FAILED 1",
            "SaslAuthenticate -/- - SASL_AUTHENTICATION_FAILED 1",
            "Metadata orders/- - TOPIC_AUTHORIZATION_FAILED 1",
        ]
    );
    assert!(!format!("{:?}", talk.watched.hops()).contains("secret"));
}

/// Hostile: all partitions that there could be.
#[test]
fn refusals_of_a_connection_are_bounded_and_all_are_counted() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    let partitions: Vec<_> = (0..2000).map(|partition| (partition, 29)).collect();
    talk.say(1, |id| fetch_of(id, 0, &partitions, 0));
    assert_eq!(talk.watched.hops().len(), MAX_DIFFERENT);
    assert_eq!(counted(&shared), [("Fetch TOPIC_AUTHORIZATION_FAILED".to_owned(), 2000)]);
}

#[test]
fn how_long_clients_have_to_wait_is_shown_and_summed_up() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    let throttled = |mut answer: Vec<u8>, at: usize, ms: u32| {
        answer[at..at + 4].copy_from_slice(&ms.to_be_bytes());
        answer
    };
    talk.say(1, |id| {
        let answer = produced(id, "orders", 7);
        let at = answer.len() - 4;
        (produce(id, "orders", &[]), throttled(answer, at, 250))
    });
    talk.say(1, |id| {
        let (asks, answer) = fetched(id, 7, &[7]);
        (asks, throttled(answer, 8, 40))
    });
    talk.say(1, |id| fetch_of(id, 0, &[], 60));
    talk.say(1, |id| fetched(id, 8, &[8]));
    talk.say(1, |id| heartbeat(id, 0));
    let ms = |hop: &Hop| {
        let topic = shown(&hop.topic);
        let span = hop.span(&topic);
        let mut attributes = span.attributes.iter();
        attributes.find_map(|attribute| match attribute {
            ("ktrace.throttle_ms", Value::Int(ms)) => Some(*ms),
            _ => None,
        })
    };
    let told: Vec<_> = talk.watched.hops().iter().map(ms).collect();
    assert_eq!(told, [Some(250), Some(40), None]);
    let all: Vec<_> = shared.throttled().into_iter().map(|(name, of)| (name, of.responses, of.ms)).collect();
    assert_eq!(all, [("Fetch", 2, 100), ("Heartbeat", 1, 9), ("Produce", 1, 250)]);
}

/// librdkafka#4953: it was written by an attempt before.
#[test]
fn a_duplicate_is_acknowledged_without_its_offset() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    let duplicate = |id| {
        let mut answer = refused(id);
        let at = answer.len() - 22;
        answer[at..at + 2].copy_from_slice(&46_u16.to_be_bytes());
        answer
    };
    talk.say(1, |id| (produce(id, "orders", &[]), refused(id)));
    talk.say(1, |id| (produce(id, "orders", &[]), duplicate(id)));
    assert_eq!(talk.told(), ["send attempts=2"]);
    let hop = talk.watched.hops()[0].clone();
    assert!(!hop.passage.has_failed());
    let topic = shown(&hop.topic);
    let span = hop.span(&topic);
    assert_eq!(span.status, crate::span::Status::Unset);
    for told in [("ktrace.status", "acked".into()), ("ktrace.duplicate", Value::Bool(true))] {
        assert!(span.attributes.contains(&told), "{span:?}");
    }
    assert_eq!(counted(&shared), [("Produce NOT_LEADER_OR_FOLLOWER".to_owned(), 1)]);
}

#[test]
fn refused_commits_are_counted_too() {
    let shared = Arc::default();
    let mut talk = Talk::with(&shared);
    talk.say(1, |id| committed(id, "g", "m", 7, 25));
    assert_eq!(counted(&shared), [("OffsetCommit UNKNOWN_MEMBER_ID".to_owned(), 1)]);
}
