//! What a connection reports, and to whom.

use crate::protocol::event::Event;
use crate::protocol::topic::Topic;
use crate::record::{Batch, Record};

/// One exchange: a request and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The API's number ([`crate::protocol::api::Api::of`]).
    pub api_key: i16,
    /// The API's version.
    pub version: i16,
    /// The number that the client gave the request.
    pub correlation_id: i32,
    /// The name that the client gives itself; `None` if it has none, or none of text.
    pub client_id: Option<&'a str>,
    /// When the request's first byte passed the socket; all times are in nanoseconds, of the clock
    /// that [`crate::Connection::push`] was given.
    pub request_start_ns: u64,
    /// When its last byte did.
    pub request_end_ns: u64,
    /// TCP sequence number of the request's first byte.
    pub request_seq: u32,
    /// The response's first and last byte, and the sequence number of its first; `None` where there
    /// is none (acks=0, or the connection ended before it).
    pub response: Option<ResponseHead>,
}

impl Head<'_> {
    /// When the exchange was over: the response's last byte, or the request's where there is none.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.response.map_or(self.request_end_ns, |response| response.end_ns)
    }
}

/// When a response passed the socket, and where in its stream it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// When the first byte passed.
    pub start_ns: u64,
    /// When the last byte passed.
    pub end_ns: u64,
    /// TCP sequence number of the first byte.
    pub seq: u32,
}

/// Where and when a client began to read a partition on a connection; anew where it goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// The first byte of the request that asked for it first.
    pub ns: u64,
    /// From where on.
    pub offset: i64,
    /// The high watermark of its answer: what lies before was there already, or came while the
    /// request was held.
    pub log_end: i64,
    /// The log has nothing before that offset.
    pub is_log_start: bool,
}

/// What an exchange does with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Messages are produced.
    Produce {
        /// −1 (all), 0 or 1.
        acks: i16,
        /// Of a transactional producer.
        transactional_id: Option<&'a str>,
    },
    /// Messages are fetched.
    Fetch {
        /// Where the consumer asked to go on; −1 if unknown.
        fetch_offset: i64,
        /// The partition's high watermark: the offset after the last message that every replica
        /// has; −1 if unknown.
        high_watermark: i64,
        /// Whether the consumer reads only committed messages.
        read_committed: bool,
        /// When the client began to read the partition on this connection, as far as that was seen.
        began: Option<Began>,
    },
    /// A member of a share group has acquired the message (KIP-932).
    ShareFetch {
        /// The share group's id, where the request names it.
        group_id: Option<&'a str>,
        /// The member's id, where the request names it.
        member_id: Option<&'a str>,
        /// How often the message was delivered, this time included.
        delivery_count: i16,
    },
}

/// One partition of a Produce, Fetch or ShareFetch exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition<'a> {
    /// Its topic.
    pub topic: Topic<'a>,
    /// Its number in the topic.
    pub index: i32,
    /// What is done with its records.
    pub operation: Operation<'a>,
    /// Kafka's error code, 0 for none.
    pub error: i16,
}

/// Listens to a connection. Calls come in the order of the responses.
///
/// For each exchange first [`Sink::exchange`], then what its body holds.
pub trait Sink {
    /// A request got its response (or needs none).
    fn exchange(&mut self, _head: &Head<'_>) {}
    /// A Produce request is whole: it sends messages to this partition, and waits for its response.
    /// Called before its exchange is, if that ever comes, and not for a request that only a search
    /// has found.
    fn sends(&mut self, _head: &Head<'_>, _topic: Topic<'_>, _partition: i32) {}
    /// The broker asks the client to wait this long by its quota (in the current exchange).
    fn throttled(&mut self, _head: &Head<'_>, _throttle_ms: u32) {}
    /// Bytes of the connection are missing before what is reported next: messages may be among
    /// them.
    fn missed(&mut self, _bytes: u64) {}
    /// Something that its request and response say, beside records.
    fn event(&mut self, _head: &Head<'_>, _event: &Event<'_>) {}
    /// One message of a Produce request, or of a Fetch or ShareFetch response.
    ///
    /// Not called for control records, for what lies below the fetch offset, for aborted messages
    /// that a read-committed consumer never sees, or for what a member of a share group has not
    /// acquired.
    fn record(
        &mut self,
        _head: &Head<'_>,
        _partition: &Partition<'_>,
        _batch: &Batch<'_>,
        _record: &Record<'_>,
    ) {
    }
}
