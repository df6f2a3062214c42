//! What a connection costs: idle, at work, and with a frame of the largest size.

#[path = "../connection/conversation.rs"]
#[expect(dead_code, reason = "this is the vocabulary of other tests too")]
mod conversation;
mod heap;

use conversation::*;
use heap::{heap, reset_peak};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::{Connection, Head, Limits, Partition, Push, Scratch, Sink};

/// Counts records.
#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    fn record(
        &mut self,
        _head: &Head<'_>,
        _partition: &Partition<'_>,
        _batch: &ktrace_kafka::record::Batch<'_>,
        _record: &ktrace_kafka::record::Record<'_>,
    ) {
        self.0 += 1;
    }
}

fn scratch() -> Scratch {
    Scratch::new(Limits::default(), Extractor::default())
}

fn push(connection: &mut Connection, scratch: &mut Scratch, count: &mut Count, part: &Part) {
    let push = Push {
        direction: part.direction,
        seq: part.seq,
        ack: part.ack,
        syn: part.syn,
        fin: false,
        bytes: &part.bytes,
        len: part.bytes.len() as u32,
        time_ns: 0,
    };
    connection.push(scratch, push, count);
}

const EXCHANGES: u8 = 2;
/// Of a batch: some segments.
const RECORDS: i64 = 12;

/// What any client says before it rests.
fn conversation() -> Vec<Part> {
    let metadata = MetadataResponse::default().with_topics(vec![
        metadata_response::MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str(TOPIC)))),
    ]);
    let mut said = vec![
        client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
        broker(response(3, 0, &ApiVersionsResponse::default())),
        client(request(ApiKey::Metadata, 12, 1, &MetadataRequest::default())),
        broker(response(12, 1, &metadata)),
    ];
    let records = |count| -> Vec<_> {
        (0..count).map(|offset| record(offset, None, Some(100), &[("b3", PARENT)])).collect()
    };
    for id in 1..=i32::from(EXCHANGES) {
        let [produces, fetches, pipelined] = [id * 10, id * 10 + 1, id * 10 + 2];
        let set = || batch(&records(RECORDS), Compression::Lz4);
        said.extend([
            client(produce(9, produces, -1, set())),
            broker(produced(9, produces, 7, 0)),
            client([fetch(12, fetches, 0, 1), fetch(12, pipelined, 0, 1)].concat()),
            broker(fetched(12, fetches, batch(&records(RECORDS), Compression::None), &[(1, 2)])),
            broker(fetched(12, pipelined, set(), &[])),
        ]);
    }
    segments(&said, 5, |len| len.min(1448))
}

#[test]
fn an_idle_connection_costs_less_than_a_kibibyte() {
    let parts = conversation();
    let (mut scratch, mut count) = (scratch(), Count::default());
    let mut hold = |connection: &mut Connection| {
        for part in &parts {
            push(connection, &mut scratch, &mut count, part);
        }
    };
    // What is shared is warm then.
    hold(&mut Connection::default());
    let before = heap().bytes;
    let mut connections = Vec::with_capacity(10_000);
    connections.push(Connection::default());
    connections.iter_mut().for_each(&mut hold);
    let one = heap().bytes - before - (9_999 * size_of::<Connection>()) as i64;
    assert!(one <= 1024, "{one} bytes");
    while connections.len() < 10_000 {
        let mut connection = Connection::default();
        hold(&mut connection);
        connections.push(connection);
    }
    let all = heap().bytes - before;
    assert!(all <= 20_000_000, "{all} bytes");
    drop(connections);
    assert_eq!(heap().bytes, before);
    // What a test prints is on its heap too.
    eprintln!(
        "an idle connection: {one} bytes, {} of them its own size; 10 000: {all}",
        size_of::<Connection>()
    );
    assert_eq!(count.0, 10_001 * 3 * usize::from(EXCHANGES) * RECORDS as usize);
}

/// Allocations of one exchange, when all is warm, of this many records; in segments as large as
/// messages.
fn allocations(compression: Compression, records: i64, size: usize) -> u64 {
    let records: Vec<_> = (0..records)
        .map(|offset| record(offset, Some("key"), Some(size), &[("traceparent", PARENT)]))
        .collect();
    let set = batch(&records, compression);
    let exchange = |id| [client(fetch(12, id, 0, 0)), broker(fetched(12, id, set.clone(), &[]))];
    let said: Vec<_> = (0..4).flat_map(exchange).collect();
    let parts = segments(&said, 5, |len| len);
    let (mut connection, mut scratch, mut count) = (Connection::default(), scratch(), Count::default());
    let (warm, last) = parts.split_at(parts.len() - 2);
    for part in warm {
        push(&mut connection, &mut scratch, &mut count, part);
    }
    let before = heap().allocations;
    for part in last {
        push(&mut connection, &mut scratch, &mut count, part);
    }
    let done = heap().allocations - before;
    assert_eq!(count.0, 4 * records.len());
    done
}

#[test]
fn records_are_read_without_an_allocation_each() {
    for compression in CODECS {
        let (few, many) = (allocations(compression, 10, 10), allocations(compression, 10_000, 10));
        eprintln!("{compression:?}: {few} allocations for 10 records, {many} for 10 000");
        assert_eq!(few, many, "{compression:?}");
    }
}

/// What pending requests and the places of consumers take is reported, and so can be bounded.
#[test]
fn what_is_held_is_reported() {
    let waiting = |id: i32| {
        let mut frame = [12_i16.to_be_bytes(), 0_i16.to_be_bytes()].concat();
        frame.extend(id.to_be_bytes());
        frame.extend(1000_i16.to_be_bytes());
        frame.extend(format!("{id:01000}").as_bytes());
        // A group, a generation, a member.
        frame.extend(b"\0\x01g\0\0\0\x01\0\x01m");
        client(framed(&frame))
    };
    let partitions =
        (0..20_000).map(|index| fetch_request::FetchPartition::default().with_partition(index)).collect();
    let mut topic = fetch_request::FetchTopic::default().with_partitions(partitions);
    topic.topic = TopicName(StrBytes::from_static_str(TOPIC));
    let asks = FetchRequest::default().with_topics(vec![topic]);
    let conversations: [Vec<Said>; 2] = [
        (0..1000).map(waiting).collect(),
        vec![client(request(ApiKey::Fetch, 11, 1, &asks)), broker(fetched(11, 1, bytes::Bytes::new(), &[]))],
    ];
    for (said, least) in conversations.iter().zip([1_000_000, 900_000]) {
        let parts = segments(said, 5, |len| len);
        let (mut scratch, mut count) = (scratch(), Count::default());
        let mut connection = Connection::default();
        let before = heap().bytes;
        for part in &parts {
            push(&mut connection, &mut scratch, &mut count, part);
        }
        let (held, reported) = (heap().bytes - before, connection.held_bytes() as i64);
        assert!(held >= least && reported >= held - held / 20, "{held} held, {reported} reported");
        assert!(reported <= held + held / 4, "{held} held, {reported} reported");
        connection.shed(&mut scratch);
        let (held, reported) = (heap().bytes - before, connection.held_bytes());
        assert!(held <= 4096 && reported <= 4096, "{held} held, {reported} reported");
    }
}

/// What an exchange took at most beyond its own bytes.
fn peak_of(said: &[Said]) -> i64 {
    let parts = segments(said, 5, |len| len);
    let (mut connection, mut scratch, mut count) = (Connection::default(), scratch(), Count::default());
    let before = heap().bytes;
    reset_peak();
    for part in &parts {
        push(&mut connection, &mut scratch, &mut count, part);
    }
    heap().peak - before
}

/// Large answers are looked up as far as brokers give them, and no further.
#[test]
fn what_is_looked_up_is_bounded() {
    const PARTITIONS: i32 = 400_000;
    let partitions = (0..PARTITIONS)
        .map(|index| produce_response::PartitionProduceResponse::default().with_index(PARTITIONS - index))
        .collect();
    let mut topic = produce_response::TopicProduceResponse::default().with_partition_responses(partitions);
    topic.name = TopicName(StrBytes::from_static_str(TOPIC));
    let answer = response(9, 1, &ProduceResponse::default().with_responses(vec![topic]));
    let set = batch(&[record(0, None, Some(1), &[])], Compression::None);
    let peak = peak_of(&[client(produce(9, 1, -1, set.clone())), broker(answer)]);
    assert!(peak <= 20 << 20, "{peak} bytes");
    let aborted: Vec<_> = (0..1_000_000).map(|index| (index, index)).collect();
    for isolation in 0..=1 {
        let peak =
            peak_of(&[client(fetch(11, 1, 0, isolation)), broker(fetched(11, 1, set.clone(), &aborted))]);
        assert!(peak <= 12 << 20, "{peak} bytes");
    }
}

/// Memory grows with the bytes that came, not with the size that the frame claims.
#[test]
fn a_large_frame_costs_its_bytes() {
    const SIZE: usize = 100_000_000;
    const SEGMENT: usize = 64 << 10;
    let (mut connection, mut scratch, mut count) = (Connection::default(), scratch(), Count::default());
    let set = batch(&[record(0, None, Some(SIZE - 200), &[])], Compression::None);
    let answer = fetched(12, 1, set, &[]);
    let asks = segments(&[client(fetch(12, 1, 0, 0))], 5, |len| len);
    for part in &asks {
        push(&mut connection, &mut scratch, &mut count, part);
    }
    let start = asks[1].seq.wrapping_add(1);
    let before = heap().bytes;
    reset_peak();
    for (index, bytes) in answer.chunks(SEGMENT).enumerate() {
        let push = Push {
            direction: ktrace_kafka::Direction::ToClient,
            seq: start.wrapping_add((index * SEGMENT) as u32),
            ack: None,
            syn: false,
            fin: false,
            bytes,
            len: bytes.len() as u32,
            time_ns: 0,
        };
        connection.push(&mut scratch, push, &mut count);
        if index == 3 {
            let held = heap().bytes - before;
            assert!(held <= 16 * SEGMENT as i64, "{held} bytes held for {} that came", 4 * SEGMENT);
        }
    }
    let peak = heap().peak - before;
    eprintln!("a frame of {} bytes: {peak} bytes at most", answer.len());
    assert_eq!(count.0, 1);
    assert!(peak <= (answer.len() + 2 * SEGMENT) as i64, "{peak} bytes");
    assert!(heap().bytes <= before + 1024, "all is given back");
}
