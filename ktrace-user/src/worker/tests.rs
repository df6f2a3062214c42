//! Events in, spans out: what happens around connections, with the smallest messages that Kafka
//! knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use ktrace_testkit::{Batch, Record, framed_parts as framed, text};

use super::upkeep::{HOLE_NS, LINGER_NS, OWNER_NS};
use super::*;
use crate::hop::sampling::Sampling;
use crate::hop::shown;
use crate::seen::Direction;
use crate::seen::Side;
use crate::span::{Span, Value};

type Headers<'x> = &'x [(&'x str, &'x str)];

/// A batch of one record without key and value.
fn batch(headers: Headers<'_>) -> Vec<u8> {
    batch_of(None, headers)
}

/// The same, with a key.
fn batch_of(key: Option<&str>, headers: Headers<'_>) -> Vec<u8> {
    batch_with(key, None, headers)
}

/// The same, with a value.
fn batch_with(key: Option<&str>, value: Option<&[u8]>, headers: Headers<'_>) -> Vec<u8> {
    let record = Record { key: key.map(str::as_bytes), value, headers };
    Batch { timestamp_ms: 7, ..Batch::default() }.of(&[record])
}

/// Produce v3 of one record to `topic`, client `me`.
fn produce(id: i32, topic: &str, headers: Headers<'_>) -> Vec<u8> {
    produce_batch(id, topic, &batch(headers))
}

fn produce_batch(id: i32, topic: &str, batch: &[u8]) -> Vec<u8> {
    framed(&[
        &[0, 0, 0, 3],
        &id.to_be_bytes(),
        &text("me"),
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1],
        &text(topic),
        &[0, 0, 0, 1, 0, 0, 0, 0],
        &(batch.len() as u32).to_be_bytes(),
        batch,
    ])
}

/// The answer, with the record's offset.
fn produced(id: i32, topic: &str, offset: i64) -> Vec<u8> {
    framed(&[
        &id.to_be_bytes(),
        &[0, 0, 0, 1],
        &text(topic),
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        &offset.to_be_bytes(),
        &[0xff; 8],
        &[0; 4],
    ])
}

struct Watched {
    worker: Worker,
    hops: Arc<Mutex<Vec<Hop>>>,
    now_ns: u64,
    /// The socket that segments pass.
    socket: (u64, Side),
}

impl Watched {
    fn new(sampling: Sampling) -> Self {
        Self::with(WorkerOptions { sampling, ..WorkerOptions::default() }, &Arc::default())
    }

    fn with(options: WorkerOptions, shared: &Arc<Shared>) -> Self {
        let hops = Arc::new(Mutex::new(vec![]));
        let told = Arc::clone(&hops);
        let sink = Box::new(move |hop| told.lock().unwrap().push(hop));
        let worker = Worker::new(options, shared, sink).unwrap();
        Self { worker, hops, now_ns: 1_000_000_000, socket: (1, Side::Client) }
    }

    fn hops(&self) -> MutexGuard<'_, Vec<Hop>> {
        self.hops.lock().unwrap()
    }

    /// The span of the first hop.
    fn first<R>(&self, look: impl FnOnce(Span<'_>) -> R) -> R {
        let hop = self.hops()[0].clone();
        look(hop.span(&shown(&hop.topic)))
    }

    fn segment(&mut self, ends: Ends, direction: Direction, seq: u32, ack: u32, payload: &[u8]) {
        self.pass(ends, direction, (seq, ack), payload, false);
    }

    fn reset(&mut self, ends: Ends, direction: Direction, seq: u32, ack: u32) {
        self.pass(ends, direction, (seq, ack), &[], true);
    }

    fn pass(&mut self, ends: Ends, direction: Direction, (seq, ack): (u32, u32), payload: &[u8], rst: bool) {
        self.now_ns += 1000;
        self.worker.event(Event::Segment(Segment {
            connection: ConnectionId(self.socket.0),
            ends,
            side: self.socket.1,
            rst,
            push: Push {
                direction,
                seq,
                ack: Some(ack),
                syn: false,
                fin: false,
                bytes: payload,
                len: payload.len() as u32,
                time_ns: self.now_ns,
            },
        }));
    }

    /// Any request and its answer; the segments begin at these sequence numbers.
    fn talk(&mut self, ends: Ends, (client, broker): (u32, u32), request: &[u8], answer: &[u8]) {
        self.segment(ends, Direction::ToBroker, client, broker, request);
        self.segment(ends, Direction::ToClient, broker, client.wrapping_add(request.len() as u32), answer);
    }

    /// Time passes, and the worker looks around.
    fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
        self.worker.event(Event::Tick { time_ns: self.now_ns });
    }

    /// A message sent and acknowledged; the segments begin at these sequence numbers.
    fn exchange(&mut self, ends: Ends, place: (u32, u32), offset: i64) {
        self.exchange_with(ends, place, offset, &[]);
    }

    fn exchange_with(&mut self, ends: Ends, place: (u32, u32), offset: i64, headers: Headers<'_>) {
        self.talk(ends, place, &produce(5, "orders", headers), &produced(5, "orders", offset));
    }

    fn offsets(&self) -> Vec<i64> {
        self.hops().iter().filter_map(|hop| hop.passage.offset).collect()
    }
}

fn ends(port: u16) -> Ends {
    Ends { client: ([10, 0, 0, 1], port).into(), broker: ([10, 0, 0, 2], 9092).into() }
}

fn open(watched: &mut Watched, ends: Ends) {
    watched.worker.event(Event::Opened {
        connection: ConnectionId(1),
        ends,
        side: Side::Client,
        owner: None,
    });
}

#[test]
fn a_message_becomes_a_span_of_its_client() {
    let mut watched = Watched::new(Sampling::default());
    open(&mut watched, ends(4000));
    watched.exchange(ends(4000), (100, 200), 42);
    watched.first(|span| {
        assert_eq!((span.name, span.resource.service_name(), span.parent), ("send orders", "me", None));
    });
    assert_eq!(watched.offsets(), [42]);
    assert_eq!(watched.worker.finish().exchanges, 1);
}

#[test]
fn spans_of_other_traces_are_links_and_malformed_contexts_are_counted_by_format() {
    let mut watched = Watched::new(Sampling::default());
    let (trace, other) = ("4bf92f3577b34da6a3ce929d0e0e4736", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    let headers = [
        ("b3", &*format!("{other}-00f067aa0ba902b7")),
        ("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")),
        ("sentry-trace", "nonsense"),
    ];
    watched.exchange_with(ends(4000), (100, 200), 42, &headers);
    watched.first(|span| {
        let links: Vec<_> =
            span.links.iter().map(|link| (link.trace_id.to_string(), link.attribute.clone())).collect();
        assert_eq!(span.trace_id.to_string(), trace);
        assert_eq!(links, [(other.to_owned(), Some(("ktrace.context.format", Value::from("b3"))))]);
    });
    let totals = watched.worker.finish();
    assert_eq!(totals.malformed_contexts, [("sentry-trace", 1)].into());
}

#[test]
fn a_connection_that_was_forgotten_is_read_again_when_it_speaks() {
    let mut watched = Watched::new(Sampling::default());
    watched.exchange(ends(4000), (100, 200), 42);
    watched.worker.event(Event::Closed { connection: ConnectionId(1) });
    watched.now_ns += LINGER_NS + SWEEP_NS * 2;
    watched.worker.event(Event::Tick { time_ns: watched.now_ns });
    assert!(watched.worker.connections.is_empty());
    watched.exchange(ends(4000), (100_000, 200_000), 43);
    assert_eq!(watched.offsets(), [42, 43]);
}

/// What was still in the socket's buffer passes after the process has closed it; the FIN behind it
/// may have been lost.
#[test]
fn a_closed_connection_is_forgotten_though_data_follows() {
    let mut watched = Watched::new(Sampling::default());
    open(&mut watched, ends(4000));
    watched.worker.event(Event::Closed { connection: ConnectionId(1) });
    watched.exchange(ends(4000), (100, 200), 42);
    assert_eq!(watched.offsets(), [42]);
    watched.now_ns += LINGER_NS + SWEEP_NS * 2;
    watched.worker.event(Event::Tick { time_ns: watched.now_ns });
    assert!(watched.worker.connections.is_empty());
}

#[test]
fn a_silent_connection_is_kept_and_so_is_all_when_the_clock_jumps() {
    let mut watched = Watched::new(Sampling::default());
    watched.exchange(ends(4000), (100, 200), 42);
    for jump in [1_i64 << 60, -(1 << 59)] {
        watched.now_ns = watched.now_ns.checked_add_signed(jump).unwrap();
        watched.worker.event(Event::Tick { time_ns: watched.now_ns });
        assert_eq!(watched.worker.connections.len(), 1, "{jump}");
    }
}

#[test]
fn a_socket_that_connects_elsewhere_begins_anew() {
    let mut watched = Watched::new(Sampling::default());
    open(&mut watched, ends(4000));
    watched.exchange(ends(4000), (1_000_000, 2_000_000), 42);
    open(&mut watched, ends(4001));
    // Sequence numbers that would be old ones of the first connection.
    watched.exchange(ends(4001), (500_000, 600_000), 43);
    assert_eq!(watched.offsets(), [42, 43]);
    assert_eq!(watched.worker.finish().connections, 2);
}

#[test]
fn a_hole_that_nobody_acknowledges_is_given_up_by_time() {
    let mut watched = Watched::new(Sampling::default());
    open(&mut watched, ends(4000));
    watched.exchange(ends(4000), (100, 200), 42);
    let mut request = produce(6, "orders", &[]);
    // acks=0: behind the null transactional id.
    request[18..20].copy_from_slice(&[0, 0]);
    let at = 100 + produce(5, "orders", &[]).len() as u32 + 500;
    watched.segment(ends(4000), Direction::ToBroker, at, 200, &request);
    assert_eq!(watched.hops().len(), 1, "500 bytes before it are missing");
    watched.now_ns += HOLE_NS + SWEEP_NS * 2;
    watched.worker.event(Event::Tick { time_ns: watched.now_ns });
    assert_eq!(watched.hops().len(), 2);
    assert_eq!(watched.worker.finish().lost["gap_bytes"], 500);
}

/// Killed while answers were on their way: what came behind a lost one is not read.
#[test]
fn a_hole_before_a_reset_is_no_loss() {
    let (by_client, by_broker) = (Direction::ToBroker, Direction::ToClient);
    // Who is reset may have read it all: its acknowledgements are not captured.
    let cases = [(Some(by_client), None, 507), (Some(by_broker), Some(&500), 0), (None, Some(&500), 0)];
    for (reset, lost, unread) in cases {
        let mut watched = Watched::new(Sampling::default());
        open(&mut watched, ends(4000));
        watched.exchange(ends(4000), (100, 200), 42);
        let (client, broker) =
            (100 + produce(5, "orders", &[]).len() as u32, 200 + produced(5, "orders", 42).len() as u32);
        watched.segment(ends(4000), Direction::ToClient, broker + 500, client, b"\0\0\0\x10abc");
        if let Some(direction) = reset {
            let (seq, ack) = if direction == by_client { (client, broker) } else { (broker + 507, client) };
            watched.reset(ends(4000), direction, seq, ack);
        }
        let totals = watched.worker.finish();
        assert_eq!((totals.lost.get("gap_bytes"), totals.unread_bytes), (lost, unread));
    }
}

#[test]
fn what_is_not_sampled_is_not_made() {
    let mut watched = Watched::new(Sampling::new(0.0));
    watched.exchange(ends(4000), (100, 200), 42);
    assert!(watched.hops().is_empty());
    assert_eq!(watched.worker.finish().records, 1);
}

mod attempts;
mod backlog;
mod brokers;
mod chains;
mod delays;
mod groups;
mod keys;
mod late;
mod limits;
mod losses;
mod own_telemetry;
mod refusals;
mod share;
mod sharing;
mod sides;
mod transactions;
