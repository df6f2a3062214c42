//! The traffic that benches read: one Fetch exchange of many records, encoded by the
//! `kafka-protocol` crate.

use std::io::{Cursor, Read as _};

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, RequestHeader, ResponseHeader, TopicName, fetch_request,
};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion as _, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchDecoder};
use ktrace_kafka::context::Extractor;
use ktrace_kafka::internal::{Batches, Next};
use ktrace_kafka::{Connection, Direction, Limits, Push, Scratch, Sink};
use ktrace_testkit::{encoder, framed};

/// The version that is spoken: the last with topic names.
const VERSION: i16 = 12;

/// What is read.
pub struct Case {
    pub name: &'static str,
    pub records: usize,
    /// Bytes of a value.
    pub value: usize,
    /// 0, or 3 with a `traceparent` among them.
    pub headers: usize,
    pub codec: Compression,
    /// Bytes of a TCP segment.
    pub segment: usize,
}

const fn case(name: &'static str, records: usize, value: usize, headers: usize, codec: Compression) -> Case {
    Case { name, records, value, headers, codec, segment: usize::MAX }
}

/// All cases. Records of a batch are as many as make about a megabyte, Kafka's default for a
/// partition's fetch.
pub const CASES: &[Case] = &[
    case("1 KB", 1000, 1000, 0, Compression::None),
    case("1 KB, 3 headers", 1000, 1000, 3, Compression::None),
    case("100 B", 5000, 100, 0, Compression::None),
    case("100 B, 3 headers", 5000, 100, 3, Compression::None),
    Case { segment: 64 << 10, ..case("100 B, 3 headers, 64 KiB segments", 5000, 100, 3, Compression::None) },
    Case { segment: 1448, ..case("100 B, 3 headers, 1448 B segments", 5000, 100, 3, Compression::None) },
    case("1 KB, gzip", 1000, 1000, 0, Compression::Gzip),
    case("1 KB, snappy", 1000, 1000, 0, Compression::Snappy),
    case("1 KB, lz4", 1000, 1000, 0, Compression::Lz4),
    case("1 KB, zstd", 1000, 1000, 0, Compression::Zstd),
    case("1 KB, 3 headers, gzip", 1000, 1000, 3, Compression::Gzip),
    case("1 KB, 3 headers, snappy", 1000, 1000, 3, Compression::Snappy),
    case("1 KB, 3 headers, lz4", 1000, 1000, 3, Compression::Lz4),
    case("1 KB, 3 headers, zstd", 1000, 1000, 3, Compression::Zstd),
];

/// One exchange as it passes the socket.
pub struct Traffic {
    pub request: Vec<u8>,
    pub response: Bytes,
    /// Of the records, not compressed.
    pub plain_bytes: usize,
    codec: Compression,
    /// The compressed part of the batch.
    packed: Bytes,
}

impl Case {
    pub fn traffic(&self) -> Traffic {
        let set = self.set(self.codec);
        let Some(Next::Batch(batch)) = Batches::new(&set).next() else { panic!("no batch") };
        let packed = Bytes::copy_from_slice(batch.records);
        let (request, response) = exchange(set);
        let plain_bytes = self.set(Compression::None).len();
        Traffic { request, response, plain_bytes, codec: self.codec, packed }
    }

    fn set(&self, compression: Compression) -> Bytes {
        let records: Vec<Record> = (0..self.records).map(|place| self.record(place)).collect();
        encoder::batch(&records, compression)
    }

    fn record(&self, place: usize) -> Record {
        let header =
            |name: &'static str, value: String| (StrBytes::from_static_str(name), Some(value.into()));
        // Ids as random as a tracer's.
        let id = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Record {
            key: Some(format!("key-{place}").into()),
            value: Some(self.json(place).into()),
            headers: [
                header(
                    "traceparent",
                    format!("00-{id:016x}{:016x}-{:016x}-01", id ^ 0xffff, id.rotate_left(9)),
                ),
                header("content-type", "application/json".into()),
                header("x-source", "bench".into()),
            ]
            .into_iter()
            .take(self.headers)
            .collect(),
            ..encoder::record(place as i64)
        }
    }

    /// A value as services write them: JSON that compresses to about a third.
    fn json(&self, place: usize) -> Vec<u8> {
        let mut state = place as u64 + 1;
        let mut text = String::from("{");
        while text.len() < self.value {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text += &format!(
                r#""field{}":"{:x}","amount":{},"#,
                (state >> 60),
                state >> 24,
                (state >> 40) % 10_000
            );
        }
        text.truncate(self.value);
        text.into_bytes()
    }
}

fn exchange(records: Bytes) -> (Vec<u8>, Bytes) {
    let topic = || TopicName(StrBytes::from_static_str("orders"));
    let asked = fetch_request::FetchTopic::default()
        .with_topic(topic())
        .with_partitions(vec![fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20)]);
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(ApiKey::Fetch as i16)
        .with_request_api_version(VERSION)
        .with_client_id(Some(StrBytes::from_static_str("bench")))
        .encode(&mut body, FetchRequest::header_version(VERSION))
        .expect("a header");
    let request = FetchRequest::default().with_session_epoch(-1).with_topics(vec![asked]);
    request.encode(&mut body, VERSION).expect("a request");
    let request = framed(&body);

    let mut body = BytesMut::new();
    ResponseHeader::default().encode(&mut body, FetchResponse::header_version(VERSION)).expect("a header");
    let partition = PartitionData::default().with_high_watermark(1 << 30).with_records(Some(records));
    let got = FetchableTopicResponse::default().with_topic(topic()).with_partitions(vec![partition]);
    let response = FetchResponse::default().with_responses(vec![got]);
    response.encode(&mut body, VERSION).expect("a response");
    (request, framed(&body).into())
}

/// ktrace, on one connection that goes on and on.
pub struct Reader {
    connection: Connection,
    scratch: Scratch,
    sequences: [u32; 2],
}

impl Default for Reader {
    fn default() -> Self {
        let mut reader = Self {
            connection: Connection::default(),
            scratch: Scratch::new(Limits::default(), Extractor::default()),
            sequences: [1; 2],
        };
        for direction in [Direction::ToBroker, Direction::ToClient] {
            let syn = Push { syn: true, ..segment(direction, 0, &[]) };
            reader.connection.push(&mut reader.scratch, syn, &mut Ignore);
        }
        reader
    }
}

struct Ignore;
impl Sink for Ignore {}

fn segment(direction: Direction, seq: u32, bytes: &[u8]) -> Push<'_> {
    let len = u32::try_from(bytes.len()).expect("a small segment");
    Push { direction, seq, ack: None, syn: false, fin: false, bytes, len, time_ns: 0 }
}

impl Reader {
    pub fn read(&mut self, traffic: &Traffic, size: usize, sink: &mut impl Sink) {
        let Self { connection, scratch, sequences: [to_broker, to_client] } = self;
        for (direction, seq, bytes) in [
            (Direction::ToBroker, to_broker, &traffic.request[..]),
            (Direction::ToClient, to_client, &traffic.response[..]),
        ] {
            for part in bytes.chunks(size) {
                connection.push(scratch, segment(direction, *seq, part), sink);
                *seq = seq.wrapping_add(part.len() as u32);
            }
        }
    }
}

/// The other: the number of records of a response.
pub fn read_by_the_other(response: &Bytes) -> u64 {
    let mut left = response.slice(4..);
    ResponseHeader::decode(&mut left, FetchResponse::header_version(VERSION)).expect("a header");
    let response = FetchResponse::decode(&mut left, VERSION).expect("a response");
    assert!(!left.has_remaining());
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let sets = partitions.filter_map(|partition| partition.records.clone());
    let sets = sets.flat_map(|mut set| RecordBatchDecoder::decode_all(&mut set).expect("whole records"));
    sets.map(|set| set.records.len() as u64).sum()
}

/// A codec's own crate, as its documentation shows it, into a buffer that is used again.
pub struct CodecAlone {
    packed: Bytes,
    output: Vec<u8>,
    codec: Compression,
    /// Snappy's blocks: what is between them is Java's framing, not the codec's.
    blocks: Vec<std::ops::Range<usize>>,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Traffic {
    pub fn codec_alone(&self) -> Option<CodecAlone> {
        (self.codec != Compression::None).then(|| CodecAlone {
            packed: self.packed.clone(),
            output: Vec::with_capacity(2 * self.plain_bytes),
            codec: self.codec,
            blocks: java_blocks(&self.packed),
            zstd: zstd::bulk::Decompressor::new().expect("a context"),
        })
    }
}

/// Where snappy's blocks lie in snappy-java's framing: a header of 16 bytes, then blocks with their
/// length before them.
fn java_blocks(packed: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut blocks = vec![];
    let mut at = 16;
    while packed.starts_with(b"\x82SNAPPY\0") && at < packed.len() {
        let (len, _) = packed[at..].split_first_chunk().expect("a length");
        let start = at + 4;
        at = start + u32::from_be_bytes(*len) as usize;
        blocks.push(start..at);
    }
    blocks
}

impl CodecAlone {
    pub fn run(&mut self) {
        let Self { packed, output, codec, blocks, zstd } = self;
        let packed = &packed[..];
        match codec {
            Compression::None => {}
            Compression::Gzip => {
                output.clear();
                flate2::bufread::MultiGzDecoder::new(packed).read_to_end(output).expect("gzip");
            }
            Compression::Snappy => {
                output.resize(output.capacity(), 0);
                let mut left = &mut output[..];
                for block in blocks {
                    let len =
                        snap::raw::Decoder::new().decompress(&packed[block.clone()], left).expect("snappy");
                    left = &mut left[len..];
                }
            }
            Compression::Lz4 => {
                output.clear();
                lz4_flex::frame::FrameDecoder::new(packed).read_to_end(output).expect("lz4");
            }
            Compression::Zstd => {
                output.clear();
                zstd.decompress_to_buffer(packed, &mut Cursor::new(output)).expect("zstd");
            }
        }
    }
}
