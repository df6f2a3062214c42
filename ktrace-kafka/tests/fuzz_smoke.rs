//! The fuzz functions on stable Rust: the corpus, and some mutations of each of its files.
//! `./dev fuzz` goes on from here.
//!
//! The first corpus comes from the tests' own client and broker:
//! `cargo test --test fuzz_smoke -- --ignored`.

#[path = "connection/conversation.rs"]
#[expect(dead_code, reason = "this is the vocabulary of other tests too")]
mod conversation;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

use conversation::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::Compression;

/// Mutations of each file.
const MUTATIONS: usize = 40;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(corpus(target))
        .expect("a corpus for each target")
        .map(|entry| entry.expect("a file").path())
        .map(|path| (path.display().to_string(), fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let len = random.below(16).min((bytes.len() - at) as u64) as usize;
        match random.below(6) {
            0 => drop(bytes.drain(at..at + len)),
            1 => bytes.insert(at, random.below(256) as u8),
            2 => {
                let from = random.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            3 => bytes[at..at + len].fill([0, 0xff, 0x7f, 0x80][random.below(4) as usize]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

fn smoke(target: &str) {
    let (_, run) = fuzz::TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let files = files(target);
    let mut random = Random(7);
    run(&[]);
    for (name, bytes) in &files {
        run(bytes);
        for index in 0..MUTATIONS {
            let mut mutated = bytes.clone();
            let other = random.below(files.len() as u64) as usize;
            mutate(&mut mutated, &files[other].1, &mut random);
            if let Err(panic) = std::panic::catch_unwind(|| run(&mutated)) {
                let kept = std::env::temp_dir().join(format!("ktrace-fuzz-{target}"));
                fs::write(&kept, &mutated).expect("a place for the input");
                eprintln!("mutation {index} of {name}, kept in {}", kept.display());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn stream() {
    smoke("stream");
}

#[test]
fn api() {
    smoke("api");
}

#[test]
fn records() {
    smoke("records");
}

#[test]
fn codec() {
    smoke("codec");
}

#[test]
fn context() {
    smoke("context");
}

#[test]
fn session() {
    smoke("session");
}

#[test]
fn keylog() {
    smoke("keylog");
}

/// Its first corpus comes from the captures of `ktrace-user/tests/tls`.
#[test]
fn tls() {
    smoke("tls");
    for (name, bytes) in files("tls") {
        assert!(!name.contains("-tls1") || fuzz::tls::opened(&bytes) > 0, "{name}");
    }
}

/// One of each kind of exchange, pipelined in places; every correlation id is another.
fn talk() -> Vec<Said> {
    let mut id = 0;
    let mut said = vec![];
    let mut next = || {
        id += 1;
        id
    };
    let at = next();
    said.push(client(request(ApiKey::ApiVersions, 3, at, &ApiVersionsRequest::default())));
    said.push(broker(response(3, at, &ApiVersionsResponse::default())));
    let at = next();
    let message =
        MetadataResponse::default().with_cluster_id(Some(StrBytes::from_static_str("c"))).with_topics(vec![
            metadata_response::MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))))
                .with_topic_id(uuid::Uuid::from_u128(TOPIC_ID)),
        ]);
    said.push(client(request(
        ApiKey::Metadata,
        12,
        at,
        &MetadataRequest::default().with_topics(Some(vec![])),
    )));
    said.push(broker(response(12, at, &message)));
    for (index, version) in [3, 9, 13, 7].into_iter().enumerate() {
        let codec = CODECS[index + 1];
        let base = 100 * (index as i64 + 1);
        let ids = [next(), next(), next()];
        said.push(client(produce(version, ids[0], -1, batch(&three(0), codec))));
        said.push(client(produce(version, ids[1], 0, batch(&three(0), Compression::None))));
        said.push(client(produce(version, ids[2], 1, batch(&three(0), Compression::None))));
        said.push(broker(produced(version, ids[0], base, 0)));
        said.push(broker(produced(version, ids[2], base + 3, 0)));
        let id = next();
        let version = [4, 11, 13, 16][index];
        said.push(client(fetch(version, id, base, 1)));
        let set = [batch(&three(base), codec), batch(&three(base + 3), Compression::None)].concat();
        said.push(broker(fetched(version, id, set.into(), &[(5, 2)])));
        let beat = HeartbeatRequest::default().with_group_id(GroupId(StrBytes::from_static_str("billing")));
        let id = next();
        said.push(client(request(ApiKey::Heartbeat, 4, id, &beat)));
        said.push(broker(response(4, id, &HeartbeatResponse::default())));
    }
    for version in 0..=2 {
        let (first, second, magic) = (next(), next(), u8::from(version == 2));
        said.push(client(old_produce(version, first, 1, &old_set(magic, Wrap::Xerial, Offsets::Log, 0))));
        said.push(broker(old_produced(version, first, 50, 0, -1)));
        said.push(client(old_fetch(version + 1, second, 50)));
        said.push(broker(old_fetched(version + 1, second, &old_set(magic, Wrap::Lz4, Offsets::Log, 50))));
    }
    said
}

/// What the header of a request, or a response, of these lengths leaves.
fn body(frame: &[u8], header: usize) -> &[u8] {
    frame.get(header..).unwrap_or_default()
}

fn api_seed(key: i16, version: i16, request: &[u8], response: &[u8]) -> Vec<u8> {
    let api = ktrace_kafka::protocol::api::Api::of(key).expect("an API of the table");
    // Size, key, version, correlation id and the client id `me`; tags.
    let head = 16 + usize::from(api.is_flexible(version));
    let answer = 8 + usize::from(api.response_header_is_flexible(version));
    fuzz::api::encode(key, version, body(request, head), body(response, answer))
}

/// A body, where its defaults fit the version.
fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut body = bytes::BytesMut::new();
    if message.encode(&mut body, version).is_ok() { body.to_vec() } else { vec![] }
}

/// Many APIs in every version that the encoder knows, with nothing in their arrays.
fn empty_exchanges() -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    macro_rules! each {
        ($($api:ident $request:ident $response:ident),+ $(,)?) => {$(
            for version in ApiKey::$api.valid_versions().min..=ApiKey::$api.valid_versions().max {
                let (asks, answers) = ($request::default(), $response::default());
                seeds.push(fuzz::api::encode(
                    ApiKey::$api as i16,
                    version,
                    &encoded(&asks, version),
                    &encoded(&answers, version),
                ));
            }
        )+};
    }
    each!(
        ListOffsets ListOffsetsRequest ListOffsetsResponse,
        OffsetCommit OffsetCommitRequest OffsetCommitResponse,
        OffsetFetch OffsetFetchRequest OffsetFetchResponse,
        FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
        JoinGroup JoinGroupRequest JoinGroupResponse,
        SyncGroup SyncGroupRequest SyncGroupResponse,
        LeaveGroup LeaveGroupRequest LeaveGroupResponse,
        CreateTopics CreateTopicsRequest CreateTopicsResponse,
        InitProducerId InitProducerIdRequest InitProducerIdResponse,
        AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
        EndTxn EndTxnRequest EndTxnResponse,
        TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse,
        SaslHandshake SaslHandshakeRequest SaslHandshakeResponse,
        SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse,
        DescribeCluster DescribeClusterRequest DescribeClusterResponse,
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    );
    seeds
}

/// A record set as the `records` target reads it.
fn raw_set(set: &[u8]) -> Vec<u8> {
    [&[0], set].concat()
}

#[test]
#[ignore = "writes the corpus anew"]
fn write_seeds() {
    let write = |target: &str, seeds: &[Vec<u8>]| {
        let folder = corpus(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{index:03}")), seed).expect("a file");
        }
    };
    let said = talk();
    fs::write(corpus("").join("../talk.bin"), fuzz::stream::encode(&said)).expect("a file");

    // A start, four bytes of sequence number, a place in the talk; then operations.
    let script = |start: u8, operations: &[u8]| [&[start, 0, 0, 0, 9, start], operations].concat();
    write(
        "stream",
        &[
            script(0, &vec![0; said.len()]),
            script(1, &vec![0; said.len()]),
            script(12, &vec![0; said.len()]),
            script(0, &[1, 100].repeat(48)),
            script(2, &[1, 40, 3, 30, 4, 0].repeat(16)),
            script(0, &[0, 0, 0, 2, 0, 90, 0, 0].repeat(6)),
            script(0, &[0, 5, 10, 6, 40, 11, 7].repeat(8)),
            script(0, &[&[0; 6][..], &[12, 0, 40, 9, 0, 0, 9, 10, 0]].concat().repeat(4)),
        ],
    );

    // Which talk, and two starts of sequence numbers; then operations.
    let script =
        |talk: u8, operations: &[u8]| [&[talk, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0], operations].concat();
    let whole = [0; 40];
    let pieces = [6, 0, 99].repeat(16);
    let lossy = [0, 0, 9, 0, 30, 0, 9, 0, 200, 0].repeat(5);
    let own = [0, 10, 9, 23, 3, 3, 0, 4, 1, 2, 3, 4, 0, 11, 5, 21, 3, 3, 0, 2];
    let mut sessions = vec![];
    for talk in [0, 1, 2, 4] {
        for operations in [&whole[..], &pieces, &lossy, &own.repeat(3)] {
            for key in [12, 13] {
                let (before, behind) = operations.split_at(operations.len() / 2);
                sessions.push(script(talk, &[&[0, 0, key][..], operations].concat()));
                sessions.push(script(talk, &[before, &[key], behind, &[15, key]].concat()));
            }
        }
    }
    write("session", &sessions);

    let mut api = empty_exchanges();
    for pair in said.windows(2) {
        let [(asks, request), (_, response)] = pair else { continue };
        let id = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(<[u8]>::to_vec);
        if *asks == ktrace_kafka::Direction::ToBroker && id(request, 8) == id(response, 4) {
            let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            api.push(api_seed(number(4), number(6), request, response));
        }
    }
    write("api", &api);

    let mut sets: Vec<Vec<u8>> = CODECS.iter().map(|codec| raw_set(&batch(&three(7), *codec))).collect();
    for magic in 0..=1 {
        sets.extend(WRAPS.iter().map(|wrap| raw_set(&old_set(magic, *wrap, Offsets::Log, 7))));
    }
    sets.push([&[1, 2][..], &[3; 40], &[0, 55], PARENT.as_bytes(), &[9; 60]].concat());
    write("records", &sets);

    let mut packed = vec![];
    for (place, codec) in CODECS.iter().skip(1).enumerate() {
        // A batch's records follow 61 bytes of head.
        packed.push([&[12 | place as u8], &batch(&three(7), *codec)[61..]].concat());
    }
    packed.push([&[1], &compressed(1, Wrap::Xerial, &old_three(1, 0)).1[..]].concat());
    write("codec", &packed);

    let values: &[&[u8]] = &[
        PARENT.as_bytes(),
        b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        b"4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1",
        b"Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1",
        b"1-YWJj-ZGVm-3-c2Vydg==-aW5z-L3A=-MTA=",
        b"1234567890",
        b"_dd.p.tid=4bf92f3577b34da6",
        br#"{"v":[0,1],"d":{"ty":"App","ac":"1","ap":"2","tr":"4bf92f3577b34da6a3ce929d0e0e4736","id":"00f067aa0ba902b7","sa":true}}"#,
        b"\0\0\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36\x01\0\xf0\x67\xaa\x0b\xa9\x02\xb7\x02\x01",
        b"105445aa7843bc8bf206b12000100000/1;o=1",
        b"agent^1700000000000^1",
        b"123e4567-e89b-12d3-a456-426614174000",
    ];
    let mut contexts = vec![];
    for key in 0..ktrace_kafka::context::keys().count() {
        for value in values {
            contexts.push([&[key as u8 & 1, key as u8, value.len() as u8], *value].concat());
        }
    }
    write("context", &contexts);
}
