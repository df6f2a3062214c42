//! Identity: ids that all agents derive alike for the same message, without talking to each other.
//!
//! All integers are big endian, all hashes are XXH3 with seed 0; ids are their canonical (big
//! endian) bytes.
//!
//! | id | hash | of |
//! | --- | --- | --- |
//! | derived trace id | XXH3-128 | partition (4 bytes), offset (8), record timestamp in ms (8), key length (4; −1 for null), key, value length (4; −1 for null) |
//! | `send` span id | XXH3-64 | `send`, the derived trace id (16), the topic's name |
//! | `poll` span id | XXH3-64 | `poll`, the derived trace id (16), the fetch's correlation id (4), the response's TCP sequence number (4), length of the topic's name (4), the name, the client id |
//! | place of a commit | XXH3-64 | `comm`, partition (4), committed offset (8), the request's correlation id (4) and TCP sequence number (4), the group |
//! | `commit` span id | XXH3-64 | `comm`, the place (8), the topic's name |
//! | trace id of a commit whose last message is not known | XXH3-128 | `comm`, the place (8) |
//! | place of an acknowledgement | XXH3-64 | `ackn`, partition (4), its first and its last offset (8 each), the request's correlation id (4) and TCP sequence number (4), the group |
//! | `ack` span id | XXH3-64 | `ackn`, the place (8), the topic's name |
//! | trace id of an acknowledgement whose last message is not known | XXH3-128 | `ackn`, the place (8) |
//! | what is refused | XXH3-64 | `refu`, API key (2), error (2), partition (4; −1 for none), length of the topic as the wire names it (4; name, or the 16 bytes of its id), the topic, the group |
//! | place of a refusal | XXH3-64 | `refu`, what is refused (8), correlation id (4), the response's TCP sequence number (4) |
//! | span and trace id of a refusal | XXH3-64, XXH3-128 | `refu`, the place (8) |
//!
//! Producer and consumer both know what the trace id is made of: the producer's host from the
//! request and from the response's base offset and append time, the consumer's host from the
//! fetched batch. Neither the topic, nor the codec, nor the protocol's version is part of it.
//! `docs/semantics.md` has test vectors.

use ktrace_kafka::context::{SpanId, TraceId};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_128};

/// Inputs up to this many bytes are put together on the stack and hashed at once, which costs a
/// fraction of setting up XXH3's state. Up to 240 bytes XXH3 has its short paths; few keys and
/// names are longer.
const SHORT: usize = 240;

/// Hashes what these are one behind the other. Inlined, so that what has a fixed length is stored,
/// and not copied by a call.
#[inline(always)]
fn hash<const N: usize, H>(
    head: [u8; N],
    text: &[u8],
    tail: &[u8],
    at_once: impl FnOnce(&[u8]) -> H,
    in_pieces: impl FnOnce(&Xxh3Default) -> H,
) -> H {
    let mut buffer = [0; SHORT];
    let len = head.len().saturating_add(text.len()).saturating_add(tail.len());
    if let Some(whole) = buffer.get_mut(..len)
        && let Some((start, rest)) = whole.split_first_chunk_mut()
        && let Some((middle, end)) = rest.split_at_mut_checked(text.len())
    {
        *start = head;
        middle.copy_from_slice(text);
        end.copy_from_slice(tail);
        return at_once(whole);
    }
    let mut state = Xxh3Default::new();
    state.update(&head);
    state.update(text);
    state.update(tail);
    in_pieces(&state)
}

/// Puts parts of fixed length one behind the other.
macro_rules! joined {
    ($len:literal: $($part:expr),+) => {{
        let mut all = [0_u8; $len];
        let rest = &mut all[..];
        $(
            let part = $part;
            let rest = match rest.split_first_chunk_mut() {
                Some((place, rest)) => {
                    *place = part;
                    rest
                }
                None => rest,
            };
        )+
        debug_assert!(rest.is_empty());
        all
    }};
}

/// What names one delivery of a message: two deliveries of the same message, to the same consumer
/// or to two, differ.
///
/// The sequence number stands for the connection: unlike addresses and ports it is the same on both
/// ends of a translation of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub correlation_id: i32,
    /// TCP sequence number of the response's first byte.
    pub response_seq: u32,
}

/// A length as the hash takes it, −1 for null.
fn length(bytes: Option<usize>) -> [u8; 4] {
    bytes.map_or(-1, |len| i32::try_from(len).unwrap_or(i32::MAX)).to_be_bytes()
}

/// The trace id of a message whose headers name none.
#[must_use]
pub fn derived_trace_id(
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&[u8]>,
    value_len: Option<usize>,
) -> TraceId {
    let head = joined!(
        24: partition.to_be_bytes(), offset.to_be_bytes(), timestamp_ms.to_be_bytes(),
        length(key.map(<[u8]>::len))
    );
    let key = key.unwrap_or_default();
    trace_id(hash(head, key, &length(value_len), xxh3_128, Xxh3Default::digest128))
}

/// The trace id of a message that got no offset (acks=0, or an error). No other agent can derive
/// it, but it is unique. `place` is the record's index in its batch.
#[must_use]
pub fn lone_trace_id(
    partition: i32,
    request_seq: u32,
    correlation_id: i32,
    timestamp_ms: i64,
    place: i32,
) -> TraceId {
    let whole = joined!(
        28: *b"lone", partition.to_be_bytes(), request_seq.to_be_bytes(), correlation_id.to_be_bytes(),
        timestamp_ms.to_be_bytes(), place.to_be_bytes()
    );
    trace_id(xxh3_128(&whole))
}

/// The id of the span that sent a message.
#[must_use]
pub fn send_span_id(derived: TraceId, topic: &str) -> SpanId {
    let head = joined!(20: *b"send", derived.to_bytes());
    span_id(hash(head, topic.as_bytes(), &[], xxh3_64, Xxh3Default::digest))
}

/// The id of the span that delivered a message.
#[must_use]
pub fn poll_span_id(derived: TraceId, topic: &str, client_id: Option<&str>, delivery: Delivery) -> SpanId {
    let head = joined!(
        32: *b"poll", derived.to_bytes(), delivery.correlation_id.to_be_bytes(),
        delivery.response_seq.to_be_bytes(), length(Some(topic.len()))
    );
    let client_id = client_id.unwrap_or_default().as_bytes();
    span_id(hash(head, topic.as_bytes(), client_id, xxh3_64, Xxh3Default::digest))
}

/// Which commit of a group's offset this is.
#[derive(Clone, Copy, Debug)]
pub struct CommitPlace<'a> {
    pub group: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub correlation_id: i32,
    /// TCP sequence number of the request's first byte.
    pub request_seq: u32,
}

/// What the ids of a commit's span are made of, beside its topic.
#[must_use]
pub fn commit_hash(place: CommitPlace<'_>) -> u64 {
    let head = joined!(
        24: *b"comm", place.partition.to_be_bytes(), place.offset.to_be_bytes(),
        place.correlation_id.to_be_bytes(), place.request_seq.to_be_bytes()
    );
    hash(head, place.group.as_bytes(), &[], xxh3_64, Xxh3Default::digest)
}

/// The trace of a commit whose messages are not known.
#[must_use]
pub fn commit_trace_id(place: CommitPlace<'_>) -> TraceId {
    trace_id(xxh3_128(&joined!(12: *b"comm", commit_hash(place).to_be_bytes())))
}

/// The id of the span that shows a commit.
#[must_use]
pub fn commit_span_id(place: u64, topic: &str) -> SpanId {
    let head = joined!(12: *b"comm", place.to_be_bytes());
    span_id(hash(head, topic.as_bytes(), &[], xxh3_64, Xxh3Default::digest))
}

/// Which message of an idempotent producer this is.
#[derive(Clone, Copy, Debug)]
pub struct SequencePlace<'a> {
    /// The cluster's name, empty where it is not known.
    pub cluster: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
}

/// Identifies a message of an idempotent producer within this agent.
#[must_use]
pub(super) fn sequence_hash(place: SequencePlace<'_>) -> u128 {
    let head = joined!(
        26: *b"seq.", place.producer_id.to_be_bytes(), place.producer_epoch.to_be_bytes(),
        place.sequence.to_be_bytes(), place.partition.to_be_bytes(), length(Some(place.topic.len()))
    );
    hash(head, place.topic.as_bytes(), place.cluster.as_bytes(), xxh3_128, Xxh3Default::digest128)
}

/// Which acknowledgement of a share group this is: of these offsets, all in the same way.
#[derive(Clone, Copy, Debug)]
pub struct AckPlace<'a> {
    pub group: &'a str,
    pub partition: i32,
    pub first_offset: i64,
    pub last_offset: i64,
    pub correlation_id: i32,
    /// TCP sequence number of the request's first byte.
    pub request_seq: u32,
}

/// What the ids of an acknowledgement's span are made of, beside its topic.
#[must_use]
pub fn ack_hash(place: AckPlace<'_>) -> u64 {
    let head = joined!(
        32: *b"ackn", place.partition.to_be_bytes(), place.first_offset.to_be_bytes(),
        place.last_offset.to_be_bytes(), place.correlation_id.to_be_bytes(),
        place.request_seq.to_be_bytes()
    );
    hash(head, place.group.as_bytes(), &[], xxh3_64, Xxh3Default::digest)
}

/// The trace of an acknowledgement whose messages are not known.
#[must_use]
pub fn ack_trace_id(place: u64) -> TraceId {
    trace_id(xxh3_128(&joined!(12: *b"ackn", place.to_be_bytes())))
}

/// The id of the span that shows an acknowledgement.
#[must_use]
pub fn ack_span_id(place: u64, topic: &str) -> SpanId {
    let head = joined!(12: *b"ackn", place.to_be_bytes());
    span_id(hash(head, topic.as_bytes(), &[], xxh3_64, Xxh3Default::digest))
}

/// What a broker refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub api_key: i16,
    pub error: i16,
    /// As the wire names it: its name, or the bytes of its id; empty where all is refused.
    pub topic: &'a [u8],
    /// −1 for none.
    pub partition: i32,
    pub group: &'a str,
}

/// The same for what is refused again on a connection, and for nothing else.
#[must_use]
pub fn refused_hash(of: Refused<'_>) -> u64 {
    let head = joined!(
        16: *b"refu", of.api_key.to_be_bytes(), of.error.to_be_bytes(), of.partition.to_be_bytes(),
        length(Some(of.topic.len()))
    );
    hash(head, of.topic, of.group.as_bytes(), xxh3_64, Xxh3Default::digest)
}

/// What the ids of a refusal's span are made of.
#[must_use]
pub fn refusal_hash(refused: u64, correlation_id: i32, response_seq: u32) -> u64 {
    xxh3_64(&joined!(20: *b"refu", refused.to_be_bytes(), correlation_id.to_be_bytes(),
            response_seq.to_be_bytes()))
}

/// The trace of a refusal: it stands alone.
#[must_use]
pub fn refusal_trace_id(place: u64) -> TraceId {
    trace_id(xxh3_128(&joined!(12: *b"refu", place.to_be_bytes())))
}

/// The id of the span that shows a refusal.
#[must_use]
pub fn refusal_span_id(place: u64) -> SpanId {
    span_id(xxh3_64(&joined!(12: *b"refu", place.to_be_bytes())))
}

/// A hash of all zeros is no id; its neighbour is as good.
fn trace_id(hash: u128) -> TraceId {
    TraceId::new(hash.max(1).to_be_bytes()).unwrap_or_else(|| trace_id(u128::from(xxh3_64(b"zero"))))
}

fn span_id(hash: u64) -> SpanId {
    SpanId::new(hash.max(1).to_be_bytes()).unwrap_or_else(|| span_id(xxh3_64(b"zero")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_other_programs_can_check() {
        let derived = derived_trace_id(2, 1042, 1_700_000_000_123, Some(b"order-7"), Some(100));
        let delivery = Delivery { correlation_id: 9, response_seq: 0x8000_0001 };
        assert_eq!(derived.to_string(), "bcb70c265e1df6823785a32671bc007b");
        assert_eq!(derived_trace_id(0, 0, 0, None, None).to_string(), "107d9ac6f3076d6d6b48bb46b56f0e71");
        assert_eq!(send_span_id(derived, "orders").to_string(), "05a03fdd8c686dde");
        assert_eq!(
            poll_span_id(derived, "orders", Some("billing-1"), delivery).to_string(),
            "8aca963028c6b113"
        );
        let place = ack_hash(AckPlace {
            group: "billing",
            partition: 2,
            first_offset: 1040,
            last_offset: 1042,
            correlation_id: 9,
            request_seq: 0x8000_0001,
        });
        assert_eq!(place, 0xff7d_75ec_8a41_ca95);
        assert_eq!(ack_span_id(place, "orders").to_string(), "1050db48faa97b80");
        assert_eq!(ack_trace_id(place).to_string(), "a62fad4bb27a7417bb9eefcf40527489");
    }

    #[test]
    fn what_is_hashed_at_once_is_hashed_as_in_pieces() {
        let bytes: Vec<u8> = (0..2 * SHORT).map(|at| at as u8).collect();
        for len in [0, 1, 16, 17, SHORT - 6, SHORT - 5, SHORT - 4, SHORT, 2 * SHORT] {
            let text = &bytes[..len];
            let mut state = Xxh3Default::new();
            state.update(b"key:");
            state.update(text);
            state.update(b".");
            let once = hash(*b"key:", text, b".", xxh3_128, Xxh3Default::digest128);
            assert_eq!(once, state.digest128(), "{len}");
            let once = hash(*b"key:", text, b".", xxh3_64, Xxh3Default::digest);
            assert_eq!(once, state.digest(), "{len}");
        }
    }

    #[test]
    fn every_part_counts() {
        let base = derived_trace_id(2, 1042, 5, Some(b"k"), Some(1));
        for other in [
            derived_trace_id(3, 1042, 5, Some(b"k"), Some(1)),
            derived_trace_id(2, 1043, 5, Some(b"k"), Some(1)),
            derived_trace_id(2, 1042, 6, Some(b"k"), Some(1)),
            derived_trace_id(2, 1042, 5, Some(b"l"), Some(1)),
            derived_trace_id(2, 1042, 5, Some(b""), Some(1)),
            derived_trace_id(2, 1042, 5, None, Some(1)),
            derived_trace_id(2, 1042, 5, Some(b"k"), Some(0)),
            derived_trace_id(2, 1042, 5, Some(b"k"), None),
        ] {
            assert_ne!(base, other);
        }
        let delivery = Delivery { correlation_id: 9, response_seq: 1 };
        let poll = poll_span_id(base, "orders", None, delivery);
        for other in [
            poll_span_id(base, "orders2", None, delivery),
            poll_span_id(base, "orders", Some("2"), delivery),
            poll_span_id(base, "orders", None, Delivery { correlation_id: 10, ..delivery }),
            poll_span_id(base, "orders", None, Delivery { response_seq: 2, ..delivery }),
            send_span_id(base, "orders"),
        ] {
            assert_ne!(poll, other);
        }
    }
}
