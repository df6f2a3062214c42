//! How long messages were under way, where both ends are seen.

use ktrace_kafka::{Head, Sink};

use super::backlog::stamped;
use super::groups::{Talk, fetched, fetched_batches, logged};
use super::*;
use crate::hop::sampling::Exceptions;
use crate::hop::store::Store as _;
use crate::worker::connection::in_flight::MAX_ASKED;
use crate::worker::stage::awaiting_news::NEWS_NS;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Of a request on its way.
const HEAD: Head<'_> = Head {
    api_key: 0,
    version: 3,
    correlation_id: 5,
    client_id: None,
    request_start_ns: 1000,
    request_end_ns: 1001,
    request_seq: 0,
    response: None,
};

/// Offsets of the deliveries so far, with their time from end to end in microseconds.
fn delays(watched: &Watched) -> Vec<(i64, Option<u64>)> {
    let hops = watched.hops();
    let polls = hops.iter().filter(|hop| matches!(hop.passage.kind, crate::hop::Kind::Delivered { .. }));
    polls.map(|hop| (hop.passage.offset.unwrap(), hop.passage.end_to_end_ns().map(|ns| ns / 1000))).collect()
}

fn sent(id: i32, offset: i64) -> (Vec<u8>, Vec<u8>) {
    (produce(id, "orders", &[]), produced(id, "orders", offset))
}

/// Only the request of an exchange passes. Gives what answers it.
fn ask(talk: &mut Talk, port: u16, (request, answer): (Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let (client, broker) = talk.at.entry(port).or_insert((100, 200));
    let place = (*client, *broker);
    *client += request.len() as u32;
    talk.watched.socket.0 = port.into();
    talk.watched.segment(ends(port), Direction::ToBroker, place.0, place.1, &request);
    answer
}

fn answer(talk: &mut Talk, port: u16, answer: &[u8]) {
    let (client, broker) = talk.at[&port];
    talk.watched.socket.0 = port.into();
    talk.watched.segment(ends(port), Direction::ToClient, broker, client, answer);
    talk.at.insert(port, (client, broker + answer.len() as u32));
}

#[test]
fn from_the_requests_first_byte_to_the_deliverys_last() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 42));
    talk.say(1, |id| sent(id, 43));
    talk.say(2, |id| fetched(id, 41, &[41, 42, 43, 44]));
    talk.say(3, |id| fetched(id, 42, &[42]));
    let expected = [(41, None), (42, Some(5)), (43, Some(3)), (44, None), (42, Some(7))];
    assert_eq!(delays(&talk.watched), expected);
    let hop = talk.watched.hops()[3].clone();
    let topic = shown(&hop.topic);
    let span = hop.span(&topic);
    assert!(span.attributes.contains(&("ktrace.end_to_end_ms", Value::Double(0.005))), "{span:?}");
    assert_eq!(talk.watched.worker.finish().lost, [].into());
}

#[test]
fn a_delivery_before_the_response_waits_for_it() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 41));
    let response = ask(&mut talk, 1, sent(90, 42));
    talk.say(2, |id| fetched(id, 42, &[42]));
    talk.say(2, |id| fetched(id, 43, &[43]));
    assert_eq!(delays(&talk.watched), []);
    answer(&mut talk, 1, &response);
    assert_eq!(delays(&talk.watched), [(42, Some(2)), (43, None)], "nobody else sends");
    assert_eq!(talk.watched.worker.finish().lost, [].into());
}

#[test]
fn nobody_waits_for_what_is_answered_late_or_not_at_all() {
    for is_gone in [false, true] {
        let mut talk = Talk::new();
        talk.say(1, |id| sent(id, 42));
        ask(&mut talk, 1, sent(90, 43));
        talk.say(2, |id| fetched(id, 41, &[41, 42]));
        assert_eq!(delays(&talk.watched).len(), 2, "they were there before");
        talk.say(2, |id| fetched(id, 43, &[43]));
        assert_eq!(delays(&talk.watched).len(), 2);
        if is_gone {
            let (client, broker) = talk.at[&1];
            talk.watched.socket.0 = 1;
            talk.watched.reset(ends(1), Direction::ToClient, broker, client);
        } else {
            talk.watched.wait(2_000_000_000);
        }
        assert_eq!(delays(&talk.watched)[2], (43, None), "{is_gone}");
    }
}

#[test]
fn what_another_host_sent_waits_only_for_who_may_have_sent_it() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 41));
    let response = ask(&mut talk, 1, sent(90, 50));
    talk.say(2, |id| fetched(id, 42, &[42]));
    assert_eq!(delays(&talk.watched), []);
    answer(&mut talk, 1, &response);
    assert_eq!(delays(&talk.watched), [(42, None)]);
}

/// Producers are answered all the time, and many deliveries may wait: not all are judged with every
/// answer.
#[test]
fn what_waits_is_not_looked_through_with_every_answer() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 40));
    talk.say(2, |id| sent(id, 41));
    let first = ask(&mut talk, 1, sent(90, 42));
    let second = ask(&mut talk, 2, sent(91, 43));
    talk.say(3, |id| fetched(id, 42, &[42]));
    talk.say(4, |id| fetched(id, 43, &[43]));
    answer(&mut talk, 1, &first);
    assert_eq!(delays(&talk.watched), [(42, Some(3))]);
    answer(&mut talk, 2, &second);
    assert_eq!(delays(&talk.watched), [(42, Some(3))], "just looked");
    talk.watched.wait(NEWS_NS);
    assert_eq!(delays(&talk.watched)[1..], [(43, Some(4))]);
}

/// Hostile: as many partitions without records as a frame has room for.
#[test]
fn what_is_asked_is_bounded_weighed_and_shed() {
    let shared = Arc::new(Shared::default());
    let mut watched = Watched::with(WorkerOptions::default(), &shared);
    open(&mut watched, ends(4000));
    let Worker { connections, world, stages, .. } = &mut watched.worker;
    let state = &mut connections.get_mut(&ConnectionId(1)).unwrap().state;
    let mut listener = Listener { id: ConnectionId(1), state, world, stages };
    for request_seq in 0..3_u32 {
        let head = Head { request_seq, ..HEAD };
        for partition in 0..100_000 {
            listener.sends(&head, kafka::Topic::Name(&format!("of{request_seq}")), partition);
            assert!(listener.state.held_bytes() <= MAX_ASKED * 512);
        }
    }
    // No more of one request, and those of the last one in place of the others'.
    assert_eq!(shared.appends.rows()[0].1, 3 * MAX_ASKED);
    assert!(listener.state.held_bytes() > MAX_ASKED * 128);
    listener.answers_nothing();
    assert_eq!(listener.state.held_bytes(), 0);
}

#[test]
fn what_is_asked_goes_where_memory_is_short() {
    let shared = Arc::new(Shared::default());
    let mut talk = Talk::with(&shared);
    talk.say(1, |id| sent(id, 41));
    let partitions: Vec<u8> = (0..1000_u32).flat_map(|at| [at.to_be_bytes(), [0xff; 4]].concat()).collect();
    let mut request = produce(90, "orders", &[]);
    let at = request.len() - batch(&[]).len() - 12;
    request.truncate(at);
    request.extend([&1000_u32.to_be_bytes()[..], &partitions].concat());
    let len = (request.len() - 4) as u32;
    request[..4].copy_from_slice(&len.to_be_bytes());
    ask(&mut talk, 1, (request, vec![]));
    let held = |talk: &Talk| talk.watched.worker.connections[&ConnectionId(1)].state.held_bytes();
    assert!(held(&talk) > 128_000);
    shared.may_hold(memory::CONNECTION_BYTES * 2);
    talk.watched.wait(SWEEP_NS);
    assert_eq!(held(&talk), 0);
}

#[test]
fn attempts_count_from_the_first_on() {
    let mut talk = Talk::new();
    talk.say(1, |id| (produce(id, "orders", &[]), attempts::refused(id)));
    talk.say(1, |id| sent(id, 42));
    talk.say(2, |id| fetched(id, 42, &[42]));
    assert_eq!(delays(&talk.watched), [(42, Some(5))]);
}

#[test]
fn a_topic_created_anew_is_another() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 0));
    talk.say(1, |id| sent(id, 1));
    talk.say(2, |id| fetched(id, 0, &[0, 1]));
    talk.say(1, |id| sent(id, 0));
    talk.say(3, |id| fetched(id, 0, &[0, 1]));
    assert_eq!(delays(&talk.watched)[2..], [(0, Some(3)), (1, None)]);
}

/// An agent with several rings: one worker reads what the other's producer has sent before the
/// other does.
#[test]
fn what_another_worker_reads_later_is_waited_for() {
    let shared = Arc::default();
    let (mut sends, mut reads) = (Talk::with(&shared), Talk::with(&shared));
    reads.watched.now_ns += 10_000;
    reads.say(2, |id| fetched(id, 42, &[42]));
    assert_eq!(delays(&reads.watched), []);
    sends.say(1, |id| sent(id, 42));
    reads.watched.wait(SWEEP_NS);
    reads.say(2, |id| fetched(id, 43, &[43]));
    assert_eq!(delays(&reads.watched), [(42, Some(11))]);
    sends.watched.now_ns = reads.watched.now_ns - 5000;
    sends.say(1, |id| sent(id, 43));
    reads.watched.wait(SWEEP_NS);
    assert_eq!(delays(&reads.watched)[1..], [(43, Some(4))]);
}

/// Times are those of a wall clock.
#[test]
fn what_another_worker_may_read_is_not_waited_for_until_a_clock_that_was_set_back_is_there_again() {
    for back_ns in [2_000_000_000, HOUR_NS] {
        let shared = Arc::default();
        let (_sends, mut reads) = (Talk::with(&shared), Talk::with(&shared));
        reads.watched.now_ns = 10 * HOUR_NS;
        reads.say(2, |id| fetched(id, 42, &[42]));
        reads.watched.now_ns -= back_ns;
        reads.watched.wait(0);
        assert_eq!(delays(&reads.watched), [(42, None)], "{back_ns}");
        reads.say(2, |id| fetched(id, 43, &[43]));
        reads.watched.wait(SWEEP_NS);
        reads.watched.wait(SWEEP_NS);
        assert_eq!(delays(&reads.watched)[1..], [(43, None)], "{back_ns}");
    }
}

/// A capture file has nothing but segments.
#[test]
fn segments_tell_that_the_clock_was_set_back() {
    for back_ns in [2_000_000_000, HOUR_NS] {
        let mut talk = Talk::new();
        talk.watched.now_ns = 10 * HOUR_NS;
        talk.say(1, |id| sent(id, 41));
        ask(&mut talk, 1, sent(90, 42));
        talk.say(2, |id| fetched(id, 42, &[42]));
        assert_eq!(delays(&talk.watched), []);
        talk.watched.now_ns -= back_ns;
        ask(&mut talk, 3, sent(91, 43));
        assert_eq!(delays(&talk.watched), [(42, None)], "{back_ns}");
    }
}

/// Under the old name: what is forgotten with it no longer counts.
#[test]
fn a_topic_created_anew_weighs_what_is_known_of_it() {
    let shared = Arc::new(Shared::default());
    let mut talk = Talk::with(&shared);
    for offset in 0..100 {
        talk.say(1, |id| sent(id, offset));
    }
    assert_eq!(shared.appends.rows(), [("partitions written to", 1), ("appends", 100)]);
    for id in [7, 8] {
        let Worker { connections, world, stages, .. } = &mut talk.watched.worker;
        world.topics.learn(&shared.topics, id, "orders");
        let state = &mut connections.get_mut(&ConnectionId(1)).unwrap().state;
        Listener { id: ConnectionId(1), state, world, stages }.sends(&HEAD, kafka::Topic::Id(id), 0);
    }
    assert_eq!(shared.appends.rows(), [("partitions written to", 1), ("appends", 0)]);
}

#[test]
fn brokers_whose_cluster_nobody_names_are_apart() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 42));
    let other = Ends { broker: ([10, 0, 0, 3], 9092).into(), ..ends(2) };
    talk.watched.socket.0 = 2;
    let (request, answer) = fetched(7, 42, &[42]);
    talk.watched.talk(other, (100, 200), &request, &answer);
    assert_eq!(delays(&talk.watched), [(42, None)]);
}

#[test]
fn what_had_to_make_room_is_counted() {
    let mut talk = Talk::new();
    for offset in 0..5000 {
        talk.say(1, |id| sent(id, offset));
    }
    talk.say(2, |id| fetched(id, 0, &[0, 1, 4999]));
    assert_eq!(delays(&talk.watched), [(0, None), (1, None), (4999, Some(3))]);
    assert_eq!(talk.watched.worker.finish().lost, [("append_forgotten", 2)].into());
}

/// By its timestamp the last is slow; those of the others are none.
#[test]
fn slow_is_what_is_slow_on_one_clock() {
    let exceptions = Exceptions { slow_ns: Some(4000), ..Exceptions::default() };
    let options = WorkerOptions { sampling: Sampling::new(0.0), exceptions, ..WorkerOptions::default() };
    let mut talk = Talk::with(&Arc::default());
    talk.watched = Watched::with(options, &Arc::default());
    // 2001-01-01.
    let first_ms: u64 = 978_307_200_000;
    talk.watched.now_ns = first_ms * 1_000_000 + HOUR_NS;
    talk.say(1, |id| sent(id, 42));
    talk.say(2, |id| fetched(id, 42, &[42]));
    assert_eq!(delays(&talk.watched), []);
    let messages = [logged(42, batch(&[])), stamped(43, first_ms.cast_signed()), logged(44, batch(&[]))];
    talk.say(2, |id| fetched_batches(id, 42, &messages.concat()));
    assert_eq!(delays(&talk.watched), [(42, Some(5)), (43, None)]);
}
