//! Fetch (key 1), versions 0–18: what a consumer asks for and the records that it gets.
//!
//! KIP-13 (throttle time, v1), KIP-74 (max bytes, v3), KIP-98 (isolation, aborted transactions,
//! v4), KIP-227 (sessions, v7), KIP-320 (v9), KIP-392 (v11), KIP-482 (flexible, v12), KIP-516
//! (topic ids, v13), KIP-903 (replica state, v15). Brokers of 4.0 and later refuse versions 0–3
//! (KIP-896); their schemas are those of 3.9.

use super::exchange::Exchange;
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};

/// The [`Exchange`] of Fetch.
pub struct Fetch;

/// From this version on topics are named by their ids.
const TOPIC_IDS: i16 = 13;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The follower's broker id; negative for a consumer.
    pub replica_id: i32,
    /// Only committed messages are wanted.
    pub read_committed: bool,
    /// Of the session that it is of, or ends; 0 for none.
    pub session_id: i32,
    /// 0 wants a session, −1 wants none, else an incremental fetch of a session (KIP-227).
    pub session_epoch: i32,
    pub topics: List<'a, OfTopic<'a, Asked, TOPIC_IDS>>,
    /// Of an incremental fetch: what is wanted no more.
    pub forgotten: List<'a, OfTopic<'a, i32, TOPIC_IDS>>,
}

/// From which offset on a partition's records are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub partition: i32,
    pub offset: i64,
}

impl Request<'_> {
    /// Whether the request lists all partitions and not only what has changed since the one before.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.session_epoch <= 0
    }
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let mut replica_id = if version <= 14 { body.i32("replica id")? } else { -1 };
        body.i32("max wait")?;
        body.i32("min bytes")?;
        if version >= 3 {
            body.i32("max bytes")?;
        }
        let read_committed = if version >= 4 { body.i8("isolation level")? == 1 } else { false };
        let (mut session_id, mut session_epoch) = (0, -1);
        if version >= 7 {
            session_id = body.i32("session id")?;
            session_epoch = body.i32("session epoch")?;
        }
        let topics = List::read(version, body, "topics")?;
        let forgotten =
            if version >= 7 { List::read(version, body, "forgotten topics")? } else { List::empty() };
        if version >= 11 {
            body.string("rack id")?;
        }
        body.tagged_fields(|tag, bytes| {
            if tag == 1
                && version >= 15
                && let Ok(id) = Reader::new(bytes, true).i32("replica id")
            {
                replica_id = id;
            }
        })?;
        Ok(Self { replica_id, read_committed, session_id, session_epoch, topics, forgotten })
    }
}

impl<'a> Struct<'a> for Asked {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
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
        Ok(Self { partition, offset })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Of the request as a whole, 0 for none.
    pub error: i16,
    /// Of the session that the broker keeps; 0 for none.
    pub session_id: i32,
    pub topics: List<'a, OfTopic<'a, Fetched<'a>, TOPIC_IDS>>,
}

/// One partition of a response.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub partition: i32,
    /// 0 for none.
    pub error: i16,
    pub high_watermark: i64,
    /// −1 if unknown.
    pub log_start: i64,
    /// Given to those who read committed messages alone.
    pub aborted: List<'a, AbortedTransaction>,
    /// A slice of the log: batches, or messages of before them, the last perhaps cut.
    pub records: &'a [u8],
}

/// A producer whose transaction was aborted, and from which offset on.
#[derive(Clone, Copy, Debug)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 1 {
            body.i32("throttle time")?;
        }
        let (mut error, mut session_id) = (0, 0);
        if version >= 7 {
            error = body.i16("error code")?;
            session_id = body.i32("session id")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { error, session_id, topics })
    }
}

impl<'a> Struct<'a> for Fetched<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let error = body.i16("error code")?;
        let high_watermark = body.i64("high watermark")?;
        if version >= 4 {
            body.i64("last stable offset")?;
        }
        let log_start = if version >= 5 { body.i64("log start offset")? } else { -1 };
        let aborted =
            if version >= 4 { List::read(version, body, "aborted transactions")? } else { List::empty() };
        if version >= 11 {
            body.i32("preferred read replica")?;
        }
        let records = body.nullable_bytes("records")?.unwrap_or_default();
        body.skip_tagged_fields()?;
        Ok(Self { partition, error, high_watermark, log_start, aborted, records })
    }
}

impl<'a> Struct<'a> for AbortedTransaction {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transaction =
            Self { producer_id: body.i64("producer id")?, first_offset: body.i64("first offset")? };
        body.skip_tagged_fields()?;
        Ok(transaction)
    }
}

impl Exchange for Fetch {
    const THROTTLED_SINCE: i16 = 1;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}
