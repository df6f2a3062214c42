//! Producers and consumers, and what their connections carry in each millisecond.

use std::net::SocketAddr;
use std::sync::Arc;

use ktrace_kafka::Push;
use ktrace_testkit::Fields;
use ktrace_user::seen::{ConnectionId, Direction, Ends, Event, Process, Segment, Side};
use ktrace_user::span::Resource;

use crate::traffic::{Read, Traffic};
use crate::wire::{
    self, ADD_PARTITIONS_TO_TXN, Batch, END_TXN, FETCH, HEARTBEAT, JOIN_GROUP, OFFSET_COMMIT, PRODUCE,
    RECORDS, SIZE, SYNC_GROUP, Writer,
};

pub const MILLISECOND_NS: u64 = 1_000_000;
pub const PRODUCERS: usize = 16;

/// Of each producer; the member that reads them has the same number.
const PARTITIONS: usize = 8;
const MEMBERS_OF_A_GROUP: usize = 4;

/// Milliseconds.
const COMMITS_EVERY: u64 = 100;
const TRANSACTIONS_TAKE: u64 = 100;
const FAILS_EVERY: u64 = 1000;
const HEARTBEATS_EVERY: u64 = 3000;

/// What loopback carries at once.
const SEGMENT: usize = 60_000;

pub const START_NS: u64 = 1_700_000_000_000_000_000;

pub struct Connection {
    id: u64,
    ends: Ends,
    correlation_id: i32,
    sequences: [u32; 2],
    owner: Arc<Process>,
}

impl Connection {
    pub fn new(id: u64, owner: &Arc<Process>) -> Self {
        let client = SocketAddr::from(([10, 0, 1, ((id - 1) / 4) as u8], 40_000 + id as u16));
        let ends = Ends { client, broker: ([10, 0, 0, 1], 9092).into() };
        Self { id, ends, correlation_id: 0, sequences: [1, 1], owner: Arc::clone(owner) }
    }

    pub fn open(&self, read: Read<'_>) {
        let (connection, ends, owner) = (ConnectionId(self.id), self.ends, Some(Arc::clone(&self.owner)));
        read(self.id, &[Event::Opened { connection, ends, side: Side::Client, owner }]);
    }

    /// A request and its response.
    fn talk(&mut self, now_ns: u64, request: &mut [u8], response: &mut [u8], read: Read<'_>) {
        self.correlation_id += 1;
        wire::write(request, 8, &self.correlation_id.to_be_bytes());
        wire::write(response, 4, &self.correlation_id.to_be_bytes());
        let mut events = vec![];
        for (direction, bytes) in [(Direction::ToBroker, request), (Direction::ToClient, response)] {
            let place = usize::from(direction == Direction::ToClient);
            for payload in bytes.chunks(SEGMENT) {
                events.push(Event::Segment(Segment {
                    connection: ConnectionId(self.id),
                    ends: self.ends,
                    side: Side::Client,
                    rst: false,
                    push: Push {
                        direction,
                        seq: self.sequences[place],
                        ack: Some(self.sequences[1 - place]),
                        syn: false,
                        fin: false,
                        bytes: payload,
                        len: payload.len() as u32,
                        time_ns: now_ns + place as u64 * MILLISECOND_NS / 2,
                    },
                }));
                self.sequences[place] = self.sequences[place].wrapping_add(payload.len() as u32);
            }
        }
        read(self.id, &events);
    }

    pub fn say(&mut self, now_ns: u64, request: Fields, response: Fields, read: Read<'_>) {
        let (mut request, mut response) = (request.framed(), response.framed());
        self.talk(now_ns, &mut request, &mut response, read);
    }
}

pub fn process(number: usize) -> Arc<Process> {
    Arc::new(Process {
        pid: number as u32 + 1,
        resource: Arc::new(Resource::new(vec![])),
        ..Process::default()
    })
}

/// A producer, and the member that reads what it writes.
struct Pair {
    topic: String,
    writer: Writer,
    client: String,
    transactional_id: String,
    produces: Connection,
    /// With the coordinator of its transactions.
    ends: Connection,
    batch: Batch,
    request: (Vec<u8>, usize),
    response: Vec<u8>,
    in_transaction: bool,
    member: String,
    group: String,
    fetches: Connection,
    /// With the coordinator of its group.
    joins: Connection,
    asks: Vec<u8>,
    /// The same with a marker before the batch.
    gets: [(Vec<u8>, usize); 2],
    partitions: [Partition; PARTITIONS],
}

#[derive(Clone, Copy, Default)]
struct Partition {
    /// The log's end.
    offset: i64,
    sequence: i32,
    /// A transaction has ended, and the marker is not read.
    marked: bool,
}

impl Pair {
    fn new(number: usize) -> Self {
        let writer = match number % 4 {
            0 => Writer::Plain,
            1 | 2 => Writer::Idempotent(1000 + number as i64),
            _ => Writer::Transactional(1000 + number as i64),
        };
        let batch = Batch::new(writer, number % 4 == 2, RECORDS);
        let topic = format!("orders-{:02}", number / 2);
        let group = format!("billing-{}", number / MEMBERS_OF_A_GROUP);
        let (client, member) = (format!("sender-{number:02}"), format!("reader-{number:02}"));
        let transactional_id = format!("tx-{number:02}");
        let frame = wire::request(PRODUCE, 3, &client);
        let frame = match writer {
            Writer::Transactional(_) => frame.old(&transactional_id),
            _ => frame.i16(-1),
        };
        let frame = frame.i16(-1).i32(30_000).i32(1).old(&topic).i32(1).i32(0).i32(batch.bytes.len() as i32);
        let at = SIZE + frame.0.len();
        let request = (frame.raw(&batch.bytes).framed(), at);
        let response = wire::response().i32(1).old(&topic).i32(1).i32(0).i16(0).i64(0).i64(-1).i32(0);
        let asks = wire::request(FETCH, 4, &member).i32(-1).i32(500).i32(1).i32(50 << 20).i8(0);
        let asks = asks.i32(1).old(&topic).i32(1).i32(0).i64(0).i32(1 << 20).framed();
        let gets = [vec![], Batch::marker(writer.id(), true)].map(|marker| {
            let frame = wire::response().i32(0).i32(1).old(&topic).i32(1);
            let frame = frame.i32(0).i16(0).i64(0).i64(0).i32(-1);
            let frame = frame.i32((marker.len() + batch.bytes.len()) as i32).raw(&marker);
            let at = SIZE + frame.0.len();
            (frame.raw(&batch.bytes).framed(), at)
        });
        let connection = |place, owner| Connection::new((number * 4 + place) as u64 + 1, owner);
        let (sends, reads) = (process(2 * number), process(2 * number + 1));
        Self {
            produces: connection(0, &sends),
            ends: connection(1, &sends),
            fetches: connection(2, &reads),
            joins: connection(3, &reads),
            partitions: [Partition::default(); PARTITIONS],
            in_transaction: false,
            response: response.framed(),
            topic,
            writer,
            client,
            transactional_id,
            batch,
            request,
            member,
            group,
            asks,
            gets,
        }
    }

    /// Partitions of one topic are two producers'.
    fn partition(&self, number: usize, place: usize) -> i32 {
        (number % 2 * PARTITIONS + place) as i32
    }

    fn join(&mut self, number: usize, now_ns: u64, read: Read<'_>) {
        for connection in [&self.produces, &self.ends, &self.fetches, &self.joins] {
            connection.open(read);
        }
        let (group, member) = (&self.group, &self.member);
        let request = wire::request(JOIN_GROUP, 0, member).old(group).i32(45_000).old("");
        let response = wire::response().i16(0).i32(1).old("range").old(member).old(member).i32(0);
        self.joins.say(now_ns, request.old("consumer").i32(0), response, read);
        let partitions = (0..PARTITIONS).map(|place| (number % 2 * PARTITIONS + place) as i32);
        let assigned = Fields::default().i16(0).i32(1).old(&self.topic).i32(PARTITIONS as i32);
        let assigned = partitions.fold(assigned, Fields::i32).i32(-1).0;
        let request = wire::request(SYNC_GROUP, 1, member).old(group).i32(1).old(member).i32(0);
        self.joins.say(now_ns, request, wire::response().i32(0).i16(0).bytes(&assigned), read);
    }

    fn heartbeat(&mut self, now_ns: u64, read: Read<'_>) {
        let request = wire::request(HEARTBEAT, 0, &self.member).old(&self.group).i32(1).old(&self.member);
        self.joins.say(now_ns, request, wire::response().i16(0), read);
    }

    fn commit(&mut self, number: usize, now_ns: u64, read: Read<'_>) {
        let request = wire::request(OFFSET_COMMIT, 2, &self.member).old(&self.group).i32(1);
        let mut request = request.old(&self.member).i64(-1).i32(1).old(&self.topic).i32(PARTITIONS as i32);
        let mut response = wire::response().i32(1).old(&self.topic).i32(PARTITIONS as i32);
        for place in 0..PARTITIONS {
            let partition = self.partition(number, place);
            request = request.i32(partition).i64(self.partitions[place].offset).old("");
            response = response.i32(partition).i16(0);
        }
        self.joins.say(now_ns, request, response, read);
    }

    fn transaction(&mut self, number: usize, now_ns: u64, read: Read<'_>) {
        if !matches!(self.writer, Writer::Transactional(_)) {
            return;
        }
        let (id, producer) = (&self.transactional_id, self.writer.id());
        if self.in_transaction {
            let request = wire::request(END_TXN, 0, &self.client).old(id).i64(producer).i16(0).i8(1);
            self.ends.say(now_ns, request, wire::response().i32(0).i16(0), read);
            for partition in &mut self.partitions {
                (partition.offset, partition.marked) = (partition.offset + 1, true);
            }
        }
        let request = wire::request(ADD_PARTITIONS_TO_TXN, 0, &self.client).old(id).i64(producer).i16(0);
        let mut request = request.i32(1).old(&self.topic).i32(PARTITIONS as i32);
        let mut response = wire::response().i32(0).i32(1).old(&self.topic).i32(PARTITIONS as i32);
        for place in 0..PARTITIONS {
            let partition = self.partition(number, place);
            (request, response) = (request.i32(partition), response.i32(partition).i16(0));
        }
        self.ends.say(now_ns, request, response, read);
        self.in_transaction = true;
    }

    /// A batch is sent, and gets to who reads it. Gives how many records have passed.
    fn message(&mut self, (number, place): (usize, usize), now_ns: u64, fails: bool, read: Read<'_>) -> u64 {
        let index = self.partition(number, place).to_be_bytes();
        let Partition { offset, sequence, marked } = self.partitions[place];
        let time_ms = (now_ns / MILLISECOND_NS) as i64;
        let (request, at) = &mut self.request;
        wire::write(request, *at - 8, &index);
        wire::renew(request, *at, &self.batch, 0, time_ms, sequence);
        let answer = self.response.len() - 4 - 8 - 8 - 2;
        wire::write(&mut self.response, answer - 4, &index);
        let mut records = 0;
        if fails {
            // NOT_LEADER_OR_FOLLOWER
            wire::write(&mut self.response, answer, &6_i16.to_be_bytes());
            wire::write(&mut self.response, answer + 2, &(-1_i64).to_be_bytes());
            self.produces.talk(now_ns, request, &mut self.response, read);
            records += RECORDS as u64;
        }
        wire::write(&mut self.response, answer, &0_i16.to_be_bytes());
        wire::write(&mut self.response, answer + 2, &offset.to_be_bytes());
        self.produces.talk(now_ns, request, &mut self.response, read);

        let asked = self.asks.len();
        wire::write(&mut self.asks, asked - 16, &index);
        let from = if marked { offset - 1 } else { offset };
        wire::write(&mut self.asks, asked - 12, &from.to_be_bytes());
        let (response, at) = &mut self.gets[usize::from(marked)];
        let end = offset + RECORDS as i64;
        // size, correlation id, throttle time, topics, the topic's name, partitions
        let partition = 4 + 4 + 4 + 4 + 2 + self.topic.len() + 4;
        wire::write(response, partition, &index);
        wire::write(response, partition + 6, &end.to_be_bytes());
        wire::write(response, partition + 14, &end.to_be_bytes());
        if marked {
            wire::write(response, partition + 30, &from.to_be_bytes());
        }
        wire::renew(response, *at, &self.batch, offset, time_ms, sequence);
        self.fetches.talk(now_ns + MILLISECOND_NS / 4, &mut self.asks, response, read);
        let sequence = sequence.wrapping_add(RECORDS as i32) & i32::MAX;
        self.partitions[place] = Partition { offset: end, sequence, marked: false };
        records + 2 * RECORDS as u64
    }
}

pub struct Clients {
    pairs: Vec<Pair>,
    milliseconds: u64,
    /// Messages that have passed so far, sent and delivered.
    records: u64,
}

impl Clients {
    pub fn new() -> Self {
        Self { pairs: (0..PRODUCERS).map(Pair::new).collect(), milliseconds: 0, records: 0 }
    }

    fn now_ns(&self) -> u64 {
        START_NS + self.milliseconds * MILLISECOND_NS
    }

    pub fn begin(&mut self, read: Read<'_>) {
        let now_ns = self.now_ns();
        for (number, pair) in self.pairs.iter_mut().enumerate() {
            pair.join(number, now_ns, read);
            pair.transaction(number, now_ns, read);
        }
        self.milliseconds += 1;
    }
}

impl Traffic for Clients {
    /// A batch is sent, and one delivered; and what else is due.
    fn millisecond(&mut self, read: Read<'_>) {
        let (now_ns, milliseconds) = (self.now_ns(), self.milliseconds);
        let number = milliseconds as usize % PRODUCERS;
        let place = milliseconds as usize / PRODUCERS % PARTITIONS;
        let fails = milliseconds % FAILS_EVERY == FAILS_EVERY - 7;
        self.records += self.pairs[number].message((number, place), now_ns, fails, read);
        for (number, pair) in self.pairs.iter_mut().enumerate() {
            let at = milliseconds + number as u64 * 5;
            if at.is_multiple_of(TRANSACTIONS_TAKE) {
                pair.transaction(number, now_ns, read);
            }
            if at % COMMITS_EVERY == 50 {
                pair.commit(number, now_ns, read);
            }
            if at.is_multiple_of(HEARTBEATS_EVERY) {
                pair.heartbeat(now_ns, read);
            }
        }
        self.milliseconds += 1;
    }

    fn records(&self) -> u64 {
        self.records
    }
}
