//! The broker's end: clients that are shown at no other end, and none twice.

use super::groups::{committed, fetched};
use super::*;
use crate::seen::Process;
use crate::worker::both_ends::PATIENCE_NS;
use crate::worker::stage::Stage;

/// ApiVersions v3: the client names its library.
fn api_versions() -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&[0, 18, 0, 3, 0, 0, 0, 1], &text("me"), &[0], &[5], b"lib1", &[4], b"2.0", &[0]]);
    let answer = framed(&[&[0, 0, 0, 1], &[0, 0, 1, 0, 0, 0, 0, 0]]);
    (request, answer)
}

fn watched(sides: Sides, shared: &Arc<Shared>) -> Watched {
    Watched::with(WorkerOptions { sides, ..WorkerOptions::default() }, shared)
}

/// As the broker's socket sees it, behind a translation of addresses.
fn translated() -> Ends {
    Ends { client: ([10, 9, 9, 9], 33333).into(), broker: ([172, 16, 0, 2], 9092).into() }
}

fn text_of<'a>(span: &'a Span<'_>, name: &str) -> Option<&'a str> {
    span.attributes.iter().find(|(key, _)| *key == name)?.1.as_text()
}

#[test]
fn at_the_brokers_end_the_service_is_the_client() {
    let mut watched = watched(Sides::Broker, &Arc::default());
    watched.socket.1 = Side::Broker;
    let owner = Arc::new(Process { pid: 7, resource: Arc::default(), ..Process::default() });
    let connection = ConnectionId(1);
    let opened = Event::Opened { connection, ends: ends(4000), side: Side::Broker, owner: Some(owner) };
    watched.worker.event(opened);
    let (request, answer) = api_versions();
    watched.talk(ends(4000), (100, 200), &request, &answer);
    watched.exchange(ends(4000), (100 + request.len() as u32, 200 + answer.len() as u32), 42);
    watched.first(|span| {
        let resource = span.resource.attributes().iter();
        let resource: Vec<_> = resource.map(|(name, value)| (&**name, value.as_text().unwrap())).collect();
        let expected = [
            ("ktrace.client.software.name", "lib1"),
            ("ktrace.client.software.version", "2.0"),
            ("service.name", "me"),
        ];
        assert_eq!(resource, expected);
        assert_eq!(text_of(&span, "client.address"), Some("10.0.0.1"));
        assert_eq!(text_of(&span, "network.peer.address"), Some("10.0.0.2"));
        assert_eq!(text_of(&span, "ktrace.side"), Some("broker"));
    });
}

#[test]
fn both_ends_name_the_same_span() {
    let ids = |sides, socket, ends| {
        let mut watched = watched(sides, &Arc::default());
        watched.socket = socket;
        watched.exchange(ends, (100, 200), 42);
        watched.first(|span| (span.trace_id, span.span_id, span.parent, span.name.to_owned()))
    };
    let client = ids(Sides::Client, (1, Side::Client), ends(4000));
    assert_eq!(client, ids(Sides::Broker, (8, Side::Broker), translated()));
}

#[test]
fn an_end_that_nobody_asked_for_is_left_out() {
    for (sides, side) in [(Sides::Client, Side::Broker), (Sides::Broker, Side::Client)] {
        let mut watched = watched(sides, &Arc::default());
        watched.socket.1 = side;
        watched.exchange(ends(4000), (100, 200), 42);
        assert!(watched.offsets().is_empty());
        assert_eq!(watched.worker.finish().left_out, 1);
    }
}

#[test]
fn clients_with_an_agent_of_their_own_are_left_out_at_the_brokers_end() {
    for (agents, shown) in [("10.0.0.0/24", false), ("10.0.1.0/24", true)] {
        let agents = vec![agents.parse().unwrap()];
        let options = WorkerOptions { sides: Sides::Both, agents, ..WorkerOptions::default() };
        for (side, shown) in [(Side::Broker, shown), (Side::Client, true)] {
            let mut watched = Watched::with(options.clone(), &Arc::default());
            watched.socket.1 = side;
            watched.exchange(ends(4000), (100, 200), 42);
            watched.wait(PATIENCE_NS + SWEEP_NS);
            watched.wait(SWEEP_NS);
            assert_eq!(!watched.offsets().is_empty(), shown, "{side:?} {:?}", options.agents);
        }
    }
}

/// Whichever end comes first, on whichever worker, through whatever translation.
#[test]
fn a_connection_seen_at_both_ends_is_shown_once_as_its_clients() {
    for broker_first in [false, true] {
        let shared = Arc::default();
        let mut client = watched(Sides::Both, &shared);
        let mut broker = watched(Sides::Both, &shared);
        broker.socket = (2, Side::Broker);
        if broker_first {
            broker.exchange(translated(), (100, 200), 42);
        }
        client.exchange(ends(4000), (100, 200), 42);
        if !broker_first {
            broker.exchange(translated(), (100, 200), 42);
        }
        broker.wait(SWEEP_NS);
        broker.wait(PATIENCE_NS + SWEEP_NS);
        let next = 100 + produce(5, "orders", &[]).len() as u32;
        broker.exchange(translated(), (next, 200 + produced(5, "orders", 0).len() as u32), 43);
        broker.wait(PATIENCE_NS + SWEEP_NS);
        assert_eq!((client.offsets(), broker.offsets()), (vec![42], vec![]), "{broker_first}");
        assert_eq!(broker.worker.stages.both_ends.len(), 0);
    }
}

#[test]
fn the_brokers_end_of_a_client_elsewhere_is_shown_after_a_while_and_at_once_from_then_on() {
    let mut watched = watched(Sides::Both, &Arc::default());
    watched.socket = (2, Side::Broker);
    watched.exchange(ends(4000), (100, 200), 42);
    watched.wait(SWEEP_NS);
    assert!(watched.offsets().is_empty());
    watched.wait(PATIENCE_NS + SWEEP_NS);
    assert_eq!(watched.offsets(), [42]);
    let next = 100 + produce(5, "orders", &[]).len() as u32;
    watched.exchange(ends(4000), (next, 200 + produced(5, "orders", 0).len() as u32), 43);
    assert_eq!(watched.offsets(), [42, 43]);
    assert_eq!(watched.worker.stages.both_ends.len(), 0);
}

#[test]
fn what_is_held_at_the_end_goes_out() {
    let mut watched = watched(Sides::Both, &Arc::default());
    watched.socket = (2, Side::Broker);
    watched.exchange(ends(4000), (100, 200), 42);
    let hops = Arc::clone(&watched.hops);
    let _ = watched.worker.finish();
    assert_eq!(hops.lock().unwrap().len(), 1);
}

/// A broker inside a test or an application (librdkafka's mock, Spring's embedded Kafka): its
/// process has both ends of each connection. A broker's own clients (for the metadata of tiered
/// storage, for metrics) are such too.
#[test]
fn clients_in_a_brokers_process_are_shown_once() {
    let shared = Arc::default();
    let mut watched = watched(Sides::Both, &shared);
    let process = Arc::new(Process { pid: 7, resource: Arc::default(), ..Process::default() });
    for (connection, side) in [(1, Side::Client), (2, Side::Broker)] {
        let owner = Some(Arc::clone(&process));
        let connection = ConnectionId(connection);
        watched.worker.event(Event::Opened { connection, ends: ends(4000), side, owner });
    }
    let (mut client, mut broker) = (100, 200);
    for offset in [42, 43] {
        for socket in [(1, Side::Client), (2, Side::Broker)] {
            watched.socket = socket;
            watched.exchange(ends(4000), (client, broker), offset);
        }
        client += produce(5, "orders", &[]).len() as u32;
        broker += produced(5, "orders", 0).len() as u32;
    }
    for (asked, answered) in [fetched(6, 42, &[42, 43]), committed(7, "billing", "m", 44, 0)] {
        for socket in [(1, Side::Client), (2, Side::Broker)] {
            watched.socket = socket;
            watched.talk(ends(4000), (client, broker), &asked, &answered);
        }
        client += asked.len() as u32;
        broker += answered.len() as u32;
    }
    watched.wait(PATIENCE_NS + SWEEP_NS);
    let names =
        watched.hops().iter().map(|hop| hop.span(&shown(&hop.topic)).name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names, ["send orders", "send orders", "poll orders", "poll orders", "commit orders"]);
    let totals = watched.worker.finish();
    assert_eq!((totals.left_out, totals.lost.len()), (0, 0), "{:?}", totals.lost);
}
