//! What a worker has seen: counts for the summary.

use std::collections::BTreeMap;

use crate::losses::Lossy;

/// What a worker has seen, as the summary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    /// Of them, those that are not read: their other end is shown, or their client has an agent of its own.
    pub left_out: u64,
    pub segments: u64,
    pub bytes: u64,
    pub frames: u64,
    pub exchanges: u64,
    pub batches: u64,
    pub records: u64,
    /// Frames of raw SASL tokens.
    pub sasl_tokens: u64,
    /// Bytes that came to an end that had closed.
    pub unread_bytes: u64,
    /// Bytes behind the bodies of requests and responses.
    pub surplus_bytes: u64,
    /// TLS connections that were not read, by service.
    pub tls: BTreeMap<String, u64>,
    /// Of them, those that were to be read, by service, and by reason and cipher.
    pub tls_unread: BTreeMap<String, BTreeMap<String, u64>>,
    /// TLS connections that were read, by service.
    pub tls_read: BTreeMap<String, u64>,
    /// Records of TLS that were opened.
    pub tls_records: u64,
    /// Connections that were found not to be Kafka's, by [`NotKafka`](ktrace_kafka::counters::NotKafka).
    pub not_kafka: BTreeMap<&'static str, u64>,
    /// The connections that lost most bytes.
    pub lossy: Vec<Lossy>,
    /// What did not become spans, by reason: this worker's part of [`Shared::losses`](super::Shared::losses).
    pub lost: BTreeMap<&'static str, u64>,
    /// What could not be read, by reason: this worker's part of [`Shared::malformed`](super::Shared::malformed).
    pub malformed: BTreeMap<&'static str, u64>,
    /// Of `malformed.context`, those of each format.
    pub malformed_contexts: BTreeMap<&'static str, u64>,
}
