//! Exchanges of a producer and a consumer, as a worker gets them: the same messages sent and
//! delivered.

use std::sync::Arc;

use ktrace_kafka::Push;
use ktrace_testkit::{Batch, Record, framed_parts as framed, text};
use ktrace_user::seen::{ConnectionId, Direction, Ends, Event, Segment, Side};
use ktrace_user::worker::{Shared, Worker, WorkerOptions};

/// Requests and their answers, in order.
pub struct Exchanges {
    pub port: u16,
    pub frames: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A worker whose hops go nowhere.
pub struct Reader {
    worker: Worker,
    now_ns: u64,
}

/// A batch of `count` records of 100 bytes.
fn batch(offset: i64, count: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..count).map(|place| format!("key-{place:04}")).collect();
    let records: Vec<Record<'_>> = keys
        .iter()
        .map(|key| Record { key: Some(key.as_bytes()), value: Some(&[b'v'; 100]), headers: &[] })
        .collect();
    Batch { offset, ..Batch::default() }.of(&records)
}

/// `count` messages from `offset` on, `each` of them in a request: Produce v3.
pub fn sent(offset: i64, count: usize, each: usize) -> Exchanges {
    let frames = (offset..).step_by(each).take(count / each).map(|offset| {
        let batch = batch(0, each);
        let request = framed(&[
            &[0, 0, 0, 3, 0, 0, 0, 5],
            &text("orders-api"),
            &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1],
            &text("orders"),
            &[0, 0, 0, 1, 0, 0, 0, 0],
            &(batch.len() as u32).to_be_bytes(),
            &batch,
        ]);
        let answer = framed(&[
            &[0, 0, 0, 5, 0, 0, 0, 1],
            &text("orders"),
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            &offset.to_be_bytes(),
            &[0xff; 8],
            &[0; 4],
        ]);
        (request, answer)
    });
    Exchanges { port: 4000, frames: frames.collect() }
}

/// The same messages in one answer: Fetch v4.
pub fn delivered(offset: i64, count: usize, each: usize) -> Exchanges {
    let batches = (offset..).step_by(each).take(count / each).map(|offset| batch(offset, each));
    let records = batches.collect::<Vec<_>>().concat();
    let request = framed(&[
        &[0, 1, 0, 4, 0, 0, 0, 5],
        &text("billing"),
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        &text("orders"),
        &[0, 0, 0, 1, 0, 0, 0, 0],
        &offset.to_be_bytes(),
        &[0, 1, 0, 0],
    ]);
    let answer = framed(&[
        &[0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1],
        &text("orders"),
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        &i64::MAX.to_be_bytes(),
        &i64::MAX.to_be_bytes(),
        &[0xff; 4],
        &(records.len() as u32).to_be_bytes(),
        &records,
    ]);
    Exchanges { port: 5000, frames: vec![(request, answer)] }
}

impl Reader {
    /// It counts what it shows in `shown`.
    pub fn new(mut shown: impl FnMut() + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let sink = Box::new(move |_| shown());
        Self {
            worker: Worker::new(WorkerOptions::default(), &shared, sink).expect("no formats"),
            now_ns: 1 << 60,
        }
    }

    /// Reads them all, on a connection of its own from its SYNs on.
    pub fn read(&mut self, exchanges: &Exchanges) {
        let (mut client, mut broker) = (100, 200);
        self.pass(exchanges.port, Direction::ToBroker, client - 1, None, &[]);
        self.pass(exchanges.port, Direction::ToClient, broker - 1, Some(client), &[]);
        for (request, answer) in &exchanges.frames {
            self.pass(exchanges.port, Direction::ToBroker, client, Some(broker), request);
            client = client.wrapping_add(request.len() as u32);
            self.pass(exchanges.port, Direction::ToClient, broker, Some(client), answer);
            broker = broker.wrapping_add(answer.len() as u32);
        }
    }

    fn pass(&mut self, port: u16, direction: Direction, seq: u32, ack: Option<u32>, payload: &[u8]) {
        self.now_ns += 1000;
        self.worker.event(Event::Segment(Segment {
            connection: ConnectionId(port.into()),
            ends: Ends { client: ([10, 0, 0, 1], port).into(), broker: ([10, 0, 0, 2], 9092).into() },
            side: Side::Client,
            rst: false,
            push: Push {
                direction,
                seq,
                ack,
                syn: payload.is_empty(),
                fin: false,
                bytes: payload,
                len: payload.len() as u32,
                time_ns: self.now_ns,
            },
        }));
    }
}
