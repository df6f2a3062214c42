//! A client and a broker that talk: their bytes are encoded by the `kafka-protocol` crate, but for
//! the protocol of before Kafka 0.11, which it does not know; their segments are cut, lost and
//! shuffled as a test wants.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{Compression, Record};
use ktrace_kafka::context::Extractor;
use ktrace_kafka::record::{Batch, Record as Seen};
use ktrace_kafka::{
    Connection, Direction, Event, Head, Limits, Operation, Partition, Push, Scratch, Sink, Topic,
};
use ktrace_testkit::encoder;
pub use ktrace_testkit::encoder::batch;
pub use ktrace_testkit::framed;
use uuid::Uuid;

pub const TOPIC: &str = "orders";
pub const TOPIC_ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
pub const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// What was reported, a line an event; and where requests send messages that wait for their responses.
#[derive(Default)]
pub struct Lines(pub Vec<String>, pub Vec<String>);

fn shown(topic: Topic<'_>) -> String {
    match topic {
        Topic::Name(name) => name.to_owned(),
        Topic::Id(id) => format!("{id:032x}"),
    }
}

impl Sink for Lines {
    fn sends(&mut self, head: &Head<'_>, topic: Topic<'_>, partition: i32) {
        assert!(head.response.is_none());
        self.1.push(format!("{} {}[{partition}]", head.correlation_id, shown(topic)));
    }

    fn event(&mut self, head: &Head<'_>, event: &Event<'_>) {
        self.0.push(match event {
            Event::Topic { id, name } => format!("topic {name} {id:032x}"),
            Event::Broker { host, port, .. } => format!("broker {host}:{port}"),
            Event::Cluster { id } => format!("cluster {id}"),
            Event::Software { name, version } => format!("software {name} {version}"),
            Event::Member(member) => {
                let (group, id, state) = (member.group_id, member.member_id, member.state);
                format!("member {id} of {group} {state:?} by {}", head.client_id.unwrap_or("-"))
            }
            Event::Sasl { mechanism, error } => format!("sasl {mechanism} error={error}"),
            Event::Aborted { producer_id, first_offset, last_offset, .. } => {
                format!("aborted {producer_id} {first_offset} to {last_offset:?}")
            }
            Event::Marker { producer_id, offset, commits, .. } => {
                format!("marker {producer_id} @{offset} commits={commits}")
            }
            other => format!("{other:?}"),
        });
    }

    fn record(&mut self, head: &Head<'_>, partition: &Partition<'_>, _batch: &Batch<'_>, record: &Seen<'_>) {
        let operation = match partition.operation {
            Operation::Produce { acks, .. } => format!("produced acks={acks}"),
            Operation::Fetch { high_watermark, .. } => format!("fetched hw={high_watermark}"),
            Operation::ShareFetch { group_id, member_id, delivery_count } => {
                format!("acquired {delivery_count} {group_id:?} {member_id:?}")
            }
        };
        let context = record.context.context.map_or_else(
            || "-".to_owned(),
            |c| format!("{}/{}/{}", c.format, c.trace_id, c.span_id.map_or("-".into(), |id| id.to_string())),
        );
        self.0.push(format!(
            "{operation} {}[{}]@{} error={} t={} key={} len={} headers={} {context} by {}",
            shown(partition.topic),
            partition.index,
            record.offset,
            partition.error,
            record.timestamp_ms,
            record.key.map_or("null".into(), String::from_utf8_lossy),
            record.value_len().map_or("null".into(), |len| len.to_string()),
            record.headers.len(),
            head.client_id.unwrap_or("-"),
        ));
    }
}

pub fn request<M: Encodable + HeaderVersion>(key: ApiKey, version: i16, id: i32, message: &M) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("me")));
    let mut body = BytesMut::new();
    header.encode(&mut body, M::header_version(version)).unwrap();
    message.encode(&mut body, version).unwrap();
    framed(&body)
}

pub fn response<M: Encodable + HeaderVersion>(version: i16, id: i32, message: &M) -> Vec<u8> {
    let mut body = BytesMut::new();
    ResponseHeader::default().with_correlation_id(id).encode(&mut body, M::header_version(version)).unwrap();
    message.encode(&mut body, version).unwrap();
    framed(&body)
}

pub fn record(offset: i64, key: Option<&str>, value: Option<usize>, headers: &[(&str, &str)]) -> Record {
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(|len| Bytes::from(vec![b'v'; len])),
        headers: headers
            .iter()
            .map(|(key, value)| {
                (StrBytes::from_string((*key).into()), Some(Bytes::copy_from_slice(value.as_bytes())))
            })
            .collect::<IndexMap<_, _>>(),
        ..encoder::record(offset)
    }
}

pub const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Three records: with a traceparent, with nothing, a tombstone with b3.
pub fn three(base: i64) -> Vec<Record> {
    vec![
        record(base, Some("k0"), Some(100), &[("traceparent", PARENT), ("content-type", "x")]),
        record(base + 1, None, Some(0), &[]),
        record(base + 2, Some(""), None, &[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1")]),
    ]
}

pub fn name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

pub fn produce(version: i16, id: i32, acks: i16, records: Bytes) -> Vec<u8> {
    let partition =
        produce_request::PartitionProduceData::default().with_index(2).with_records(Some(records));
    let mut topic = produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
    if version >= 13 {
        topic.topic_id = Uuid::from_u128(TOPIC_ID);
    } else {
        topic.name = name();
    }
    let message =
        ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    request(ApiKey::Produce, version, id, &message)
}

pub fn produced(version: i16, id: i32, base_offset: i64, error: i16) -> Vec<u8> {
    let mut partition = produce_response::PartitionProduceResponse::default()
        .with_index(2)
        .with_error_code(error)
        .with_base_offset(base_offset)
        .with_log_append_time_ms(-1);
    if version >= 8 && error != 0 {
        partition.error_message = Some(StrBytes::from_static_str("no"));
    }
    let mut topic =
        produce_response::TopicProduceResponse::default().with_partition_responses(vec![partition]);
    if version >= 13 {
        topic.topic_id = Uuid::from_u128(TOPIC_ID);
    } else {
        topic.name = name();
    }
    response(version, id, &ProduceResponse::default().with_responses(vec![topic]))
}

pub fn fetch(version: i16, id: i32, offset: i64, isolation: i8) -> Vec<u8> {
    let partition = fetch_request::FetchPartition::default()
        .with_partition(2)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let mut topic = fetch_request::FetchTopic::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic.topic_id = Uuid::from_u128(TOPIC_ID);
    } else {
        topic.topic = name();
    }
    let mut message = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    if version >= 7 {
        message.session_epoch = -1;
    }
    request(ApiKey::Fetch, version, id, &message)
}

pub fn fetched(version: i16, id: i32, records: Bytes, aborted: &[(i64, i64)]) -> Vec<u8> {
    let aborted = aborted
        .iter()
        .map(|(producer, first)| {
            fetch_response::AbortedTransaction::default()
                .with_producer_id(ProducerId(*producer))
                .with_first_offset(*first)
        })
        .collect();
    let partition = fetch_response::PartitionData::default()
        .with_partition_index(2)
        .with_high_watermark(50)
        .with_last_stable_offset(50)
        .with_aborted_transactions(Some(aborted))
        .with_records(Some(records));
    let mut topic = fetch_response::FetchableTopicResponse::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic.topic_id = Uuid::from_u128(TOPIC_ID);
    } else {
        topic.topic = name();
    }
    response(version, id, &FetchResponse::default().with_responses(vec![topic]))
}

/// Who sends, and the bytes.
pub type Said = (Direction, Vec<u8>);

pub fn client(bytes: Vec<u8>) -> Said {
    (Direction::ToBroker, bytes)
}

pub fn broker(bytes: Vec<u8>) -> Said {
    (Direction::ToClient, bytes)
}

/// A segment with its place.
#[derive(Clone)]
pub struct Part {
    pub direction: Direction,
    pub seq: u32,
    /// `None`: not known, so that a hole is not known to be one.
    pub ack: Option<u32>,
    pub syn: bool,
    pub bytes: Vec<u8>,
}

/// The segments of a conversation, each message cut by `cut` into the lengths that it gives.
pub fn segments(said: &[Said], isn: u32, mut cut: impl FnMut(usize) -> usize) -> Vec<Part> {
    let (mut client, mut broker) = (isn, isn.wrapping_mul(3));
    let mut parts = vec![
        Part { direction: Direction::ToBroker, seq: client, ack: Some(0), syn: true, bytes: vec![] },
        Part {
            direction: Direction::ToClient,
            seq: broker,
            ack: Some(client.wrapping_add(1)),
            syn: true,
            bytes: vec![],
        },
    ];
    client = client.wrapping_add(1);
    broker = broker.wrapping_add(1);
    for (direction, bytes) in said {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
            rest = tail;
            let (mine, ack) = match direction {
                Direction::ToBroker => (&mut client, broker),
                Direction::ToClient => (&mut broker, client),
            };
            parts.push(Part {
                direction: *direction,
                seq: *mine,
                ack: Some(ack),
                syn: false,
                bytes: head.to_vec(),
            });
            *mine = mine.wrapping_add(head.len() as u32);
        }
    }
    parts
}

/// A connection with its scratch, and what it reported.
pub struct Observed {
    pub connection: Connection,
    pub scratch: Scratch,
    pub lines: Lines,
    time_ns: u64,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            scratch: Scratch::new(Limits::default(), Extractor::default()),
            lines: Lines::default(),
            time_ns: 0,
        }
    }
}

impl Observed {
    /// What is pushed next passes behind this time.
    pub fn wait_until(&mut self, time_ns: u64) {
        self.time_ns = time_ns;
    }

    pub fn push(&mut self, part: &Part) {
        self.take(part, false);
    }

    /// The same, with a FIN behind the part's last byte.
    pub fn close(&mut self, part: &Part) {
        self.take(part, true);
    }

    fn take(&mut self, part: &Part, fin: bool) {
        self.time_ns += 1000;
        let push = Push {
            direction: part.direction,
            seq: part.seq,
            ack: part.ack,
            syn: part.syn,
            fin,
            bytes: &part.bytes,
            len: part.bytes.len() as u32,
            time_ns: self.time_ns,
        };
        self.connection.push(&mut self.scratch, push, &mut self.lines);
    }

    pub fn finish(mut self) -> (Vec<String>, Scratch) {
        self.connection.finish(&mut self.scratch, &mut self.lines);
        (self.lines.0, self.scratch)
    }
}

/// What is reported of a conversation in which each message is a segment.
pub fn reported(said: &[Said]) -> Vec<String> {
    let mut observed = Observed::default();
    for part in segments(said, 77, |len| len) {
        observed.push(&part);
    }
    observed.finish().0
}

/// A small generator of numbers, the same for the same seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// How a message of before batches is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    None,
    Gzip,
    Snappy,
    /// Snappy in the frames of snappy-java.
    Xerial,
    /// With a wrong header checksum where the magic is 0.
    Lz4,
}

pub const WRAPS: [Wrap; 5] = [Wrap::None, Wrap::Gzip, Wrap::Snappy, Wrap::Xerial, Wrap::Lz4];

/// What offsets a set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// As a broker writes them: a wrapper has its last message's, those inside are absolute in
    /// magic 0 and count from the wrapper's first in magic 1.
    Log,
    /// Those inside count from the set's first, the wrapper's is 0.
    Librdkafka,
}

/// A message of before batches.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub magic: u8,
    pub offset: i64,
    pub attributes: u8,
    /// In magic 1.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

impl Message<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.magic, self.attributes];
        if self.magic == 1 {
            body.extend(self.timestamp.to_be_bytes());
        }
        for bytes in [self.key, self.value] {
            body.extend(bytes.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
            body.extend(bytes.unwrap_or_default());
        }
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let mut out = self.offset.to_be_bytes().to_vec();
        out.extend((body.len() as u32 + 4).to_be_bytes());
        out.extend(crc.sum().to_be_bytes());
        out.extend(body);
        out
    }
}

/// [`three`], but for the headers and, in magic 0, the times.
pub fn old_three(magic: u8, base: i64) -> Vec<u8> {
    let message = |place: i64, key, value| {
        let timestamp = 1_700_000_000_000 + place;
        Message { magic, offset: base + place, attributes: 0, timestamp, key, value }.encode()
    };
    [
        message(0, Some(&b"k0"[..]), Some(&[b'v'; 100][..])),
        message(1, None, Some(&[])),
        message(2, Some(b""), None),
    ]
    .concat()
}

/// A set wrapped in a message.
pub fn wrapped(magic: u8, wrap: Wrap, offset: i64, timestamp: i64, inner: &[u8]) -> Vec<u8> {
    let (codec, value) = compressed(magic, wrap, inner);
    Message { magic, offset, attributes: codec, timestamp, key: None, value: Some(&value) }.encode()
}

/// The attributes' codec, and the bytes.
pub fn compressed(magic: u8, wrap: Wrap, inner: &[u8]) -> (u8, Vec<u8>) {
    use std::io::Write as _;
    let snappy = |plain: &[u8]| snap::raw::Encoder::new().compress_vec(plain).unwrap();
    match wrap {
        Wrap::None => (0, inner.to_vec()),
        Wrap::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            encoder.write_all(inner).unwrap();
            (1, encoder.finish().unwrap())
        }
        Wrap::Snappy => (2, snappy(inner)),
        Wrap::Xerial => {
            let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for part in inner.chunks(50) {
                let block = snappy(part);
                out.extend((block.len() as u32).to_be_bytes());
                out.extend(block);
            }
            (2, out)
        }
        Wrap::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(vec![]);
            encoder.write_all(inner).unwrap();
            let mut out = encoder.finish().unwrap();
            if magic == 0 {
                out[6] = !out[6];
            }
            (3, out)
        }
    }
}

/// The three messages as a set whose first has the offset `base`.
pub fn old_set(magic: u8, wrap: Wrap, offsets: Offsets, base: i64) -> Vec<u8> {
    if wrap == Wrap::None {
        return old_three(magic, base);
    }
    let (inner, offset) = match (offsets, magic) {
        (Offsets::Librdkafka, _) => (0, 0),
        (Offsets::Log, 0) => (base, base + 2),
        (Offsets::Log, _) => (0, base + 2),
    };
    wrapped(magic, wrap, offset, 1_700_000_000_002, &old_three(magic, inner))
}

fn old_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn old_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// A header with the client id `me`.
fn old_request(key: ApiKey, version: i16, id: i32) -> Vec<u8> {
    let mut out = [(key as i16).to_be_bytes(), version.to_be_bytes()].concat();
    out.extend(id.to_be_bytes());
    old_string(&mut out, "me");
    out
}

/// One topic with its one partition.
fn old_topic(out: &mut Vec<u8>) {
    out.extend(1_i32.to_be_bytes());
    old_string(out, TOPIC);
    out.extend(1_i32.to_be_bytes());
    out.extend(2_i32.to_be_bytes());
}

/// A Produce request of version 0, 1 or 2.
pub fn old_produce(version: i16, id: i32, acks: i16, set: &[u8]) -> Vec<u8> {
    let mut out = old_request(ApiKey::Produce, version, id);
    out.extend(acks.to_be_bytes());
    out.extend(30_000_i32.to_be_bytes());
    old_topic(&mut out);
    old_bytes(&mut out, set);
    framed(&out)
}

/// Its response; `append_time` in version 2.
pub fn old_produced(version: i16, id: i32, base_offset: i64, error: i16, append_time: i64) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    old_topic(&mut out);
    out.extend(error.to_be_bytes());
    out.extend(base_offset.to_be_bytes());
    if version >= 2 {
        out.extend(append_time.to_be_bytes());
    }
    if version >= 1 {
        out.extend(3_i32.to_be_bytes());
    }
    framed(&out)
}

/// A Fetch request of version 0 to 3.
pub fn old_fetch(version: i16, id: i32, offset: i64) -> Vec<u8> {
    let mut out = old_request(ApiKey::Fetch, version, id);
    for number in [-1_i32, 500, 1] {
        out.extend(number.to_be_bytes());
    }
    if version >= 3 {
        out.extend((50_i32 << 20).to_be_bytes());
    }
    old_topic(&mut out);
    out.extend(offset.to_be_bytes());
    out.extend((1_i32 << 20).to_be_bytes());
    framed(&out)
}

/// Its response.
pub fn old_fetched(version: i16, id: i32, set: &[u8]) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    if version >= 1 {
        out.extend(3_i32.to_be_bytes());
    }
    old_topic(&mut out);
    out.extend(0_i16.to_be_bytes());
    out.extend(50_i64.to_be_bytes());
    old_bytes(&mut out, set);
    framed(&out)
}
