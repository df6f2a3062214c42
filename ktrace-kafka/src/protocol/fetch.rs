//! Fetch (key 1), versions 0–18: what a consumer asks for and the records that it gets.
//!
//! KIP-13 (throttle time, v1), KIP-74 (max bytes, v3), KIP-98 (isolation, aborted transactions, v4), KIP-227 (sessions,
//! v7), KIP-320 (v9), KIP-392 (v11), KIP-482 (flexible, v12), KIP-516 (topic ids, v13), KIP-903 (replica state, v15).
//! Brokers of 4.0 and later refuse versions 0–3 (KIP-896); their schemas are those of 3.9.

use super::reader::{ParseError, Reader, Result};
use super::sink::Topic;

/// Versions that are read.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 0..=18;

/// A request's fields beside its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The follower's broker id; negative for a consumer.
    pub replica_id: i32,
    /// Only committed messages are wanted.
    pub read_committed: bool,
    /// 0 wants a session, −1 wants none, else an incremental fetch of a session (KIP-227).
    pub session_epoch: i32,
}

impl Request {
    /// Whether the request lists all partitions and not only what has changed since the one before.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.session_epoch <= 0
    }
}

/// What a request says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Records from this offset on.
    From(i64),
    /// Nothing any more (incremental fetch).
    Forgotten,
}

/// Reads a request; `each` gets every partition. The replica's id may stand behind them, so the whole comes last.
pub fn read_request<'a>(
    version: i16,
    mut body: Reader<'a>,
    mut each: impl FnMut(Topic<'a>, i32, Asked),
) -> Result<Request> {
    if !VERSIONS.contains(&version) {
        return Err(ParseError::Unsupported("Fetch"));
    }
    let mut request = Request { replica_id: -1, read_committed: false, session_epoch: -1 };
    if version <= 14 {
        request.replica_id = body.i32("replica id")?;
    }
    body.i32("max wait")?;
    body.i32("min bytes")?;
    if version >= 3 {
        body.i32("max bytes")?;
    }
    if version >= 4 {
        request.read_committed = body.i8("isolation level")? == 1;
    }
    if version >= 7 {
        body.i32("session id")?;
        request.session_epoch = body.i32("session epoch")?;
    }
    for _ in 0..body.array("topics")? {
        let topic = read_topic(version, &mut body)?;
        for _ in 0..body.array("partitions")? {
            let index = body.i32("partition")?;
            if version >= 9 {
                body.i32("current leader epoch")?;
            }
            let offset = body.i64("fetch offset")?;
            if version >= 12 {
                body.i32("last fetched epoch")?;
            }
            if version >= 5 {
                body.i64("log start offset")?;
            }
            body.i32("partition max bytes")?;
            body.skip_tagged_fields()?;
            each(topic, index, Asked::From(offset));
        }
        body.skip_tagged_fields()?;
    }
    if version >= 7 {
        for _ in 0..body.array("forgotten topics")? {
            let topic = read_topic(version, &mut body)?;
            for _ in 0..body.array("partitions")? {
                each(topic, body.i32("partition")?, Asked::Forgotten);
            }
            body.skip_tagged_fields()?;
        }
    }
    if version >= 11 {
        body.string("rack id")?;
    }
    body.tagged_fields(|tag, bytes| {
        if tag == 1
            && version >= 15
            && let Ok(id) = Reader::new(bytes, true).i32("replica id")
        {
            request.replica_id = id;
        }
    })?;
    body.end("fetch request")?;
    Ok(request)
}

/// Producers whose transaction was aborted, and from which offset on.
#[derive(Clone, Copy, Debug)]
pub struct Aborted<'a> {
    list: Reader<'a>,
    count: usize,
}

impl<'a> Aborted<'a> {
    /// None at all.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// (producer id, first offset), in the order of the wire, which is that of the offsets.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + use<'a> {
        let mut reader = self.list;
        (0..self.count).map_while(move |_| {
            let producer = reader.i64("producer id").ok()?;
            let offset = reader.i64("first offset").ok()?;
            reader.skip_tagged_fields().ok()?;
            Some((producer, offset))
        })
    }
}

/// One partition of a response.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub topic: Topic<'a>,
    pub index: i32,
    /// 0 for none.
    pub error: i16,
    pub high_watermark: i64,
    pub aborted: Aborted<'a>,
    /// A slice of the log: batches, or messages of before them, the last perhaps cut.
    pub records: &'a [u8],
}

/// Reads a response; `each` gets every partition.
pub fn read_response<'a>(
    version: i16,
    mut body: Reader<'a>,
    mut each: impl FnMut(Fetched<'a>),
) -> Result<()> {
    if !VERSIONS.contains(&version) {
        return Err(ParseError::Unsupported("Fetch"));
    }
    if version >= 1 {
        body.i32("throttle time")?;
    }
    if version >= 7 {
        body.i16("error code")?;
        body.i32("session id")?;
    }
    for _ in 0..body.array("topics")? {
        let topic = read_topic(version, &mut body)?;
        for _ in 0..body.array("partitions")? {
            let index = body.i32("partition")?;
            let error = body.i16("error code")?;
            let high_watermark = body.i64("high watermark")?;
            if version >= 4 {
                body.i64("last stable offset")?;
            }
            if version >= 5 {
                body.i64("log start offset")?;
            }
            let count = if version >= 4 { body.array("aborted transactions")? } else { 0 };
            let aborted = Aborted { list: body, count };
            for _ in 0..count {
                body.take(16, "aborted transaction")?;
                body.skip_tagged_fields()?;
            }
            if version >= 11 {
                body.i32("preferred read replica")?;
            }
            let records = body.nullable_bytes("records")?.unwrap_or(&[]);
            body.skip_tagged_fields()?;
            each(Fetched { topic, index, error, high_watermark, aborted, records });
        }
        body.skip_tagged_fields()?;
    }
    body.skip_tagged_fields()?;
    body.end("fetch response")
}

fn read_topic<'a>(version: i16, body: &mut Reader<'a>) -> Result<Topic<'a>> {
    if version >= 13 { body.uuid("topic id").map(Topic::Id) } else { body.topic("topic").map(Topic::Name) }
}
