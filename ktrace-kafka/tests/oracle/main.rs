//! Every version of every API that is read, against an independent encoder: random messages of the
//! `kafka-protocol` crate are reported as they were meant, and cut anywhere nothing is reported.
//!
//! Versions that the crate lacks are written by hand, in [`by_hand`]. 50 messages a version; 10 000
//! with `KTRACE_FULL=1`.

mod by_hand;
mod cluster;
mod groups;
mod offsets;
mod random;
mod records;
mod share;
mod transactions;

use kafka_protocol::messages::ApiKey;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::internal::Reader;
use ktrace_kafka::protocol::api::Api;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Connection, Direction, Event, Head, Limits, Partition, Push, Scratch, Sink};
use random::Random;

/// An exchange, and what is to be reported of it.
pub struct Case {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    /// Where the bodies begin, behind size and header.
    pub bodies_at: (usize, usize),
    /// Whether the request has a part in what is reported.
    pub request_counts: bool,
    pub expected: Vec<String>,
}

/// What was reported, a line each.
#[derive(Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn event(&mut self, _head: &Head<'_>, event: &Event<'_>) {
        self.0.push(shown(event));
    }

    fn record(&mut self, _head: &Head<'_>, partition: &Partition<'_>, _: &Batch<'_>, record: &Record<'_>) {
        self.0.push(shown_record(partition, record.offset, record.key, record.value_len()));
    }
}

pub fn shown(event: &Event<'_>) -> String {
    format!("{event:?}")
}

pub fn shown_record(
    partition: &Partition<'_>,
    offset: i64,
    key: Option<&[u8]>,
    value_len: Option<usize>,
) -> String {
    format!("{partition:?} @{offset} {key:?} {value_len:?}")
}

fn read(scratch: &mut Scratch, request: &[u8], response: &[u8]) -> Vec<String> {
    let (mut connection, mut lines) = (Connection::default(), Lines::default());
    for (direction, bytes) in [(Direction::ToBroker, request), (Direction::ToClient, response)] {
        for (syn, bytes) in [(true, &[][..]), (false, bytes)] {
            let seq = u32::from(!syn);
            let len = bytes.len() as u32;
            let push =
                Push { direction, seq, ack: None, syn, fin: false, bytes, len, time_ns: 1_000_000_000 };
            connection.push(scratch, push, &mut lines);
        }
    }
    connection.finish(scratch, &mut lines);
    lines.0
}

/// A message whose body is cut, with the size that it then has.
fn cut(message: &[u8], at: usize) -> Vec<u8> {
    let mut cut = message[..at].to_vec();
    let size = at as u32 - 4;
    cut[..4].copy_from_slice(&size.to_be_bytes());
    cut
}

fn refused(scratch: &Scratch) -> u64 {
    scratch.counters.malformed().map(|(_, count)| count).sum()
}

/// What confirms a search reads both bodies to their ends too, and nothing less or more: else their
/// ends would be taken for a surplus.
fn check_bodies(case: &Case, what: &str) {
    let [_, _, _, _, k0, k1, v0, v1, ..] = case.request[..] else { panic!("{what}") };
    let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
    let api = Api::of(key).unwrap();
    api.check(version).unwrap();
    let readers = api.bodies().unwrap();
    let request = |bytes| {
        let mut body = Reader::new(bytes, api.is_flexible(version));
        readers.check_request(version, &mut body).map(|()| body.left().len())
    };
    let response = |bytes| {
        let mut body = Reader::new(bytes, api.is_flexible(version));
        readers.check_response(version, &mut body).map(|()| body.left().len())
    };
    let bodies = (&case.request[case.bodies_at.0..], &case.response[case.bodies_at.1..]);
    assert_eq!((request(bodies.0), response(bodies.1)), (Ok(0), Ok(0)), "{what}");
    for at in 0..bodies.0.len() {
        assert!(request(&bodies.0[..at]).is_err(), "{what}: request cut at {at}");
    }
    for at in 0..bodies.1.len() {
        assert!(response(&bodies.1[..at]).is_err(), "{what}: response cut at {at}");
    }
}

/// Nothing is reported of a body that cannot be read to its end, wherever that is missing.
fn check_cuts(scratch: &mut Scratch, case: &Case, what: &str) {
    check_bodies(case, what);
    for at in case.bodies_at.0..case.request.len() {
        let lines = read(scratch, &cut(&case.request, at), &case.response);
        assert!(lines.is_empty() || !case.request_counts, "{what}: request cut at {at}: {lines:?}");
    }
    for at in case.bodies_at.1..case.response.len() {
        let before = refused(scratch);
        let lines = read(scratch, &case.request, &cut(&case.response, at));
        assert!(lines.is_empty(), "{what}: response cut at {at}: {lines:?}");
        assert!(case.expected.is_empty() || refused(scratch) > before, "{what}: response cut at {at}");
    }
    // One that goes on beyond its end reads the same, and what is beyond it is counted.
    let surplus = |scratch: &Scratch| scratch.counters.surplus_bytes;
    let whole = (read(scratch, &case.request, &case.response), surplus(scratch));
    let longer = |message: &[u8]| cut(&[message, &[0, 7]].concat(), message.len() + 2);
    assert_eq!(read(scratch, &case.request, &longer(&case.response)), whole.0, "{what}");
    assert_eq!(read(scratch, &longer(&case.request), &case.response), whole.0, "{what}");
    let (bodies, counted) = (1 + u64::from(case.request_counts), surplus(scratch) - whole.1);
    // A body that says nothing need not have been read.
    assert!(counted == 2 * bodies || (case.expected.is_empty() && counted < 2 * bodies), "{what}: {counted}");
}

fn check(key: ApiKey, versions: std::ops::RangeInclusive<i16>, make: fn(&mut Random) -> Case) {
    let rounds = if std::env::var_os("KTRACE_FULL").is_some_and(|full| full == "1") { 10_000 } else { 50 };
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    for version in versions {
        let mut reported = 0;
        for round in 0..rounds {
            let mut random = Random::new(key, version, round);
            let case = make(&mut random);
            let before = refused(&scratch);
            let lines = read(&mut scratch, &case.request, &case.response);
            assert_eq!(lines, case.expected, "{key:?} v{version}, round {round}");
            assert_eq!(refused(&scratch), before, "{key:?} v{version}, round {round}");
            reported += lines.len();
            // Every cut of every message would be the square of the work.
            if round % 25 != 0 || round >= 100 {
                continue;
            }
            check_cuts(&mut scratch, &case, &format!("{key:?} v{version}"));
        }
        let reports_nothing = key == ApiKey::ApiVersions && version < 3;
        assert_eq!(reported == 0, reports_nothing, "{key:?} v{version}");
    }
}

macro_rules! oracle {
    ($($name:ident $key:ident $versions:expr, $make:path;)+) => {
        $(#[test]
        fn $name() {
            check(ApiKey::$key, $versions, $make);
        })+
    };
}

oracle! {
    produce Produce 3..=13, records::produce;
    fetch Fetch 4..=18, records::fetch;
    list_offsets ListOffsets 1..=10, offsets::list_offsets;
    metadata Metadata 0..=13, cluster::metadata;
    offset_commit OffsetCommit 2..=9, offsets::offset_commit;
    offset_fetch OffsetFetch 1..=9, offsets::offset_fetch;
    find_coordinator FindCoordinator 0..=6, cluster::find_coordinator;
    join_group JoinGroup 0..=9, groups::join_group;
    heartbeat Heartbeat 0..=4, groups::heartbeat;
    leave_group LeaveGroup 0..=5, groups::leave_group;
    sync_group SyncGroup 0..=5, groups::sync_group;
    sasl_handshake SaslHandshake 0..=1, cluster::sasl_handshake;
    api_versions ApiVersions 0..=4, cluster::api_versions;
    init_producer_id InitProducerId 0..=5, transactions::init_producer_id;
    add_partitions_to_txn AddPartitionsToTxn 0..=5, transactions::add_partitions_to_txn;
    add_offsets_to_txn AddOffsetsToTxn 0..=4, transactions::add_offsets_to_txn;
    end_txn EndTxn 0..=5, transactions::end_txn;
    txn_offset_commit TxnOffsetCommit 0..=5, transactions::txn_offset_commit;
    sasl_authenticate SaslAuthenticate 0..=2, cluster::sasl_authenticate;
    consumer_group_heartbeat ConsumerGroupHeartbeat 0..=1, groups::consumer_group_heartbeat;
    describe_topic_partitions DescribeTopicPartitions 0..=0, cluster::describe_topic_partitions;
    share_group_heartbeat ShareGroupHeartbeat 1..=1, share::share_group_heartbeat;
    share_fetch ShareFetch 1..=1, share::share_fetch;
    share_acknowledge ShareAcknowledge 1..=1, share::share_acknowledge;
}

/// The versions above are all that the encoder has, but for those whose other half it lacks.
#[test]
fn no_version_of_the_encoder_is_left_out() {
    for (key, newest) in [
        (ApiKey::Produce, 13),
        (ApiKey::Fetch, 18),
        (ApiKey::ListOffsets, 10),
        (ApiKey::Metadata, 13),
        (ApiKey::FindCoordinator, 6),
        (ApiKey::JoinGroup, 9),
        (ApiKey::Heartbeat, 4),
        (ApiKey::LeaveGroup, 5),
        (ApiKey::SyncGroup, 5),
        (ApiKey::ApiVersions, 4),
        (ApiKey::AddPartitionsToTxn, 5),
        (ApiKey::AddOffsetsToTxn, 4),
        (ApiKey::EndTxn, 5),
        (ApiKey::TxnOffsetCommit, 5),
        (ApiKey::SaslAuthenticate, 2),
        (ApiKey::ConsumerGroupHeartbeat, 1),
        (ApiKey::ShareGroupHeartbeat, 1),
        (ApiKey::ShareFetch, 1),
        (ApiKey::ShareAcknowledge, 1),
    ] {
        assert_eq!(key.valid_versions().max, newest, "{key:?}");
    }
}
