//! Simulated connections: everything that a client and a broker say, in every version, cut, lost
//! and shuffled.

mod began;
mod bombs;
mod bounds;
mod conversation;
mod inside_tls;
mod losses;
mod message_set;
mod middle;
mod others;
mod preface;
mod sasl;
mod surplus;

use bytes::Bytes;
use conversation::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use ktrace_kafka::Direction;
use ktrace_kafka::Speaks;
use ktrace_kafka::counters::{Lost, Malformed};
use uuid::Uuid;

/// How often something was lost for this reason.
fn lost(scratch: &ktrace_kafka::Scratch, reason: Lost) -> u64 {
    scratch.counters.lost().find(|(of, _)| *of == reason).unwrap().1
}

/// How often something was refused for this reason.
fn refused(scratch: &ktrace_kafka::Scratch, reason: Malformed) -> u64 {
    scratch.counters.malformed().find(|(of, _)| *of == reason).unwrap().1
}

const CONTEXT: &str = "4bf92f3577b34da6a3ce929d0e0e4736/00f067aa0ba902b7";

fn expected(operation: &str, topic: &str, base: i64, stamp: i64) -> Vec<String> {
    let t = 1_700_000_000_000 + stamp;
    vec![
        format!(
            "{operation} {topic}[2]@{base} error=0 t={t} key=k0 len=100 headers=2 traceparent/{CONTEXT} by me"
        ),
        format!("{operation} {topic}[2]@{} error=0 t={} key=null len=0 headers=0 - by me", base + 1, t + 1),
        format!(
            "{operation} {topic}[2]@{} error=0 t={} key= len=null headers=1 b3/{CONTEXT} by me",
            base + 2,
            t + 2
        ),
    ]
}

fn topic_of(version: i16) -> String {
    if version >= 13 { format!("{TOPIC_ID:032x}") } else { TOPIC.to_owned() }
}

#[test]
fn produce_in_every_version_and_codec() {
    for version in 3..=13 {
        for codec in CODECS {
            let said = [
                client(produce(version, 1, -1, batch(&three(0), codec))),
                broker(produced(version, 1, 1042, 0)),
            ];
            assert_eq!(
                reported(&said),
                expected("produced acks=-1", &topic_of(version), 1042, 0),
                "v{version} {codec:?}"
            );
        }
    }
}

#[test]
fn fetch_in_every_version_and_codec() {
    for version in 4..=18 {
        for codec in CODECS {
            let said =
                [client(fetch(version, 1, 7, 0)), broker(fetched(version, 1, batch(&three(7), codec), &[]))];
            assert_eq!(
                reported(&said),
                expected("fetched hw=50", &topic_of(version), 7, 7),
                "v{version} {codec:?}"
            );
        }
    }
}

#[test]
fn metadata_in_every_version() {
    for version in 0..=13 {
        let partition = metadata_response::MetadataResponsePartition::default()
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
            .with_isr_nodes(vec![BrokerId(1)]);
        let mut topic = metadata_response::MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))))
            .with_partitions(vec![partition.clone(), partition]);
        if version >= 10 {
            topic.topic_id = Uuid::from_u128(TOPIC_ID);
        }
        let mut message = MetadataResponse::default()
            .with_brokers(vec![
                metadata_response::MetadataResponseBroker::default()
                    .with_host(StrBytes::from_static_str("b"))
                    .with_port(9093),
            ])
            .with_topics(vec![topic]);
        if version >= 2 {
            message.cluster_id = Some(StrBytes::from_static_str("c"));
        }
        let said = [
            client(request(
                ApiKey::Metadata,
                version,
                5,
                &MetadataRequest::default().with_topics(Some(vec![])),
            )),
            broker(response(version, 5, &message)),
        ];
        let mut lines = vec!["broker b:9093".to_owned()];
        if version >= 2 {
            lines.push("cluster c".to_owned());
        }
        if version >= 10 {
            lines.push(format!("topic {TOPIC} {TOPIC_ID:032x}"));
        }
        assert_eq!(reported(&said), lines, "v{version}");
    }
}

#[test]
fn software_and_group() {
    let software = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("librdkafka"))
        .with_client_software_version(StrBytes::from_static_str("2.16"));
    let mut said = vec![];
    for version in 0..=4 {
        said.push(client(request(
            ApiKey::ApiVersions,
            version,
            1,
            &if version >= 3 { software.clone() } else { ApiVersionsRequest::default() },
        )));
        said.push(broker(response(version, 1, &ApiVersionsResponse::default())));
    }
    for version in [0, 3, 4] {
        let beat = HeartbeatRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("billing")))
            .with_member_id(StrBytes::from_static_str("m"));
        said.push(client(request(ApiKey::Heartbeat, version, 2, &beat)));
        said.push(broker(response(version, 2, &HeartbeatResponse::default())));
    }
    let software = "software librdkafka 2.16";
    let group = "member m of billing Stable by me";
    assert_eq!(reported(&said), [software, software, group, group, group]);
}

/// All kinds of exchanges one after the other, some pipelined; their ids begin with `id`.
fn long_talk_from(id: i32) -> Vec<Said> {
    vec![
        client(request(ApiKey::ApiVersions, 3, id, &ApiVersionsRequest::default())),
        broker(response(3, id, &ApiVersionsResponse::default())),
        client(
            [
                produce(9, id + 1, -1, batch(&three(0), Compression::Lz4)),
                produce(9, id + 2, 0, batch(&three(0), Compression::None)),
                produce(9, id + 3, 1, batch(&three(0), Compression::Gzip)),
            ]
            .concat(),
        ),
        broker([produced(9, id + 1, 100, 0), produced(9, id + 3, 103, 0)].concat()),
        client(fetch(11, id + 4, 7, 0)),
        broker(fetched(
            11,
            id + 4,
            [batch(&three(7), Compression::Zstd), batch(&three(10), Compression::None)].concat().into(),
            &[],
        )),
        client(fetch(16, id + 5, 7, 0)),
        broker(fetched(16, id + 5, batch(&three(7), Compression::Snappy), &[])),
    ]
}

fn long_talk() -> Vec<Said> {
    long_talk_from(0)
}

/// Several of them, one after the other.
fn long_talks(count: i32) -> Vec<Said> {
    (0..count).flat_map(|talk| long_talk_from(talk * 6)).collect()
}

#[test]
fn cut_at_every_byte_the_same_is_reported() {
    let mut said = long_talk();
    // And a client of old.
    for version in 0..=2 {
        let (id, magic) = (100 + i32::from(version), u8::from(version == 2));
        said.extend([
            client(old_produce(version, id, 1, &old_set(magic, Wrap::Xerial, Offsets::Log, 0))),
            broker(old_produced(version, id, 50, 0, -1)),
            client(old_fetch(version + 1, id + 10, 50)),
            broker(old_fetched(version + 1, id + 10, &old_set(magic, Wrap::Lz4, Offsets::Log, 50))),
        ]);
    }
    let whole = reported(&said);
    assert_eq!(whole.len(), 36);
    let longest = said.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
    for at in 1..longest {
        let mut observed = Observed::default();
        let mut first = true;
        for part in segments(&said, 77, |len| {
            // Each message in two parts, the first of `at` bytes.
            first = !first || len <= at;
            if first { len } else { at }
        }) {
            observed.push(&part);
        }
        assert_eq!(observed.finish().0, whole, "cut at {at}");
    }
    for size in [1, 4, 8, 1448] {
        let mut observed = Observed::default();
        for part in segments(&said, u32::MAX - 50, |_| size) {
            observed.push(&part);
        }
        assert_eq!(observed.finish().0, whole, "in parts of {size}");
    }
}

#[test]
fn no_acks_and_errors_have_no_offset() {
    for version in 3..=13 {
        let said = [
            client(produce(version, 1, 0, batch(&three(0), Compression::None))),
            client(produce(version, 2, -1, batch(&three(0), Compression::None))),
            broker(produced(version, 2, -1, 6)),
        ];
        let (lines, topic) = (reported(&said), topic_of(version));
        assert_eq!(lines.len(), 6);
        let begins = |at: usize, with: String| assert!(lines[at].starts_with(&with), "{}", lines[at]);
        begins(0, format!("produced acks=0 {topic}[2]@-1 error=0"));
        begins(3, format!("produced acks=-1 {topic}[2]@-1 error=6"));
    }
}

#[test]
fn requests_say_where_they_send_before_they_are_answered() {
    let records = || batch(&three(0), Compression::None);
    for version in 3..=13 {
        // Its record set is said to be longer than the request.
        let mut cut = produce(version, 4, -1, records());
        cut.truncate(cut.len() - 20);
        let len = cut.len() as u32 - 4;
        cut[..4].copy_from_slice(&len.to_be_bytes());
        let said = [
            client(produce(version, 1, 0, records())),
            client(produce(version, 2, -1, records())),
            broker(produced(version, 2, 1042, 0)),
            client(produce(version, 3, 1, records())),
            client(cut),
        ];
        let sends = |from_its_beginning: bool| {
            let mut observed = Observed::default();
            for part in segments(&said, 77, |len| len).iter().filter(|part| from_its_beginning || !part.syn) {
                observed.push(part);
            }
            observed.lines.1
        };
        let waits = |id: i32| format!("{id} {}[2]", topic_of(version));
        assert_eq!(sends(true), [waits(2), waits(3)], "v{version}");
        assert_eq!(sends(false), [waits(3)], "v{version}: not what only a search has found");
    }
}

#[test]
fn the_append_time_of_the_broker_counts_on_both_sides() {
    let answer = produced(9, 1, 5, 0);
    let mut message = answer.clone();
    // The only −1 of eight bytes is the append time.
    let at = message.windows(8).position(|w| w == [0xff; 8]).unwrap();
    message[at..at + 8].copy_from_slice(&1_800_000_000_000_i64.to_be_bytes());
    let said = [client(produce(9, 1, -1, batch(&three(0), Compression::None))), broker(message)];
    assert!(reported(&said).iter().all(|line| line.contains("t=1800000000000")), "{:?}", reported(&said));
    let mut stamped = batch(&three(7), Compression::None).to_vec();
    stamped[22] |= 0x08;
    stamped[35..43].copy_from_slice(&1_800_000_000_000_i64.to_be_bytes());
    let said = [client(fetch(11, 1, 7, 0)), broker(fetched(11, 1, stamped.into(), &[]))];
    assert!(reported(&said).iter().all(|line| line.contains("t=1800000000000")), "{:?}", reported(&said));
}

#[test]
fn a_consumer_drops_what_lies_below_its_offset_and_cut_batches() {
    let cut = batch(&three(10), Compression::None);
    for keep in [5, 14, 40, cut.len() - 1] {
        let set = [&batch(&three(7), Compression::None)[..], &cut[..keep]].concat();
        let said = [client(fetch(11, 1, 9, 0)), broker(fetched(11, 1, set.into(), &[]))];
        let lines = reported(&said);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("orders[2]@9 "), "{}", lines[0]);
    }
}

/// Only a slice of the log may end inside a batch.
#[test]
fn a_cut_batch_of_a_producer_is_counted() {
    let whole = batch(&three(0), Compression::None);
    let cut = whole.slice(..whole.len() - 1);
    let mut observed = Observed::default();
    let said = [client(produce(9, 1, -1, cut)), broker(produced(9, 1, 5, 0))];
    for part in segments(&said, 5, |len| len) {
        observed.push(&part);
    }
    let (lines, scratch) = observed.finish();
    assert!(lines.is_empty());
    assert!(scratch.counters.malformed().any(|(why, count)| why.name() == "batch" && count == 1));
}

#[test]
fn markers_and_aborted_messages_are_no_messages() {
    let transactional = |base, producer| {
        let mut records = three(base);
        for record in &mut records {
            (record.transactional, record.producer_id, record.producer_epoch) = (true, producer, 0);
        }
        batch(&records, Compression::None)
    };
    let marker = |offset, producer, kind: u8| {
        let mut marker = record(offset, None, Some(6), &[]);
        (marker.transactional, marker.control, marker.producer_id, marker.producer_epoch) =
            (true, true, producer, 0);
        marker.key = Some(Bytes::copy_from_slice(&[0, 0, 0, kind]));
        batch(&[marker], Compression::None)
    };
    let log = [
        transactional(10, 1), // aborted
        transactional(13, 2), // committed
        marker(16, 1, 0),
        transactional(17, 1), // committed, by the producer that aborted before
        marker(20, 2, 1),
        marker(21, 1, 1),
    ]
    .concat();
    let offsets = |isolation| -> Vec<String> {
        let said =
            [client(fetch(11, 1, 10, isolation)), broker(fetched(11, 1, log.clone().into(), &[(1, 10)]))];
        let lines = reported(&said);
        let reported =
            |what: &str| lines.iter().filter(|line| line.starts_with(what)).cloned().collect::<Vec<_>>();
        assert_eq!(
            reported("marker"),
            ["marker 1 @16 commits=false", "marker 2 @20 commits=true", "marker 1 @21 commits=true"]
        );
        assert_eq!(reported("aborted"), ["aborted 1 10 to Some(16)"]);
        reported("fetched").iter().map(|l| l.split(['@', ' ']).nth(3).unwrap().to_owned()).collect()
    };
    assert_eq!(offsets(1), ["13", "14", "15", "17", "18", "19"]);
    assert_eq!(offsets(0), ["10", "11", "12", "13", "14", "15", "17", "18", "19"]);
}

#[test]
fn a_replica_is_no_consumer() {
    for version in [11, 16] {
        let mut bytes = fetch(version, 1, 7, 0);
        if version == 11 {
            // size, header with the client id `me`, then the replica id.
            bytes[16..20].copy_from_slice(&2_i32.to_be_bytes());
        } else {
            let message = FetchRequest::default()
                .with_replica_state(
                    fetch_request::ReplicaState::default().with_replica_id(BrokerId(2)).with_replica_epoch(1),
                )
                .with_session_epoch(-1);
            bytes = request(ApiKey::Fetch, version, 1, &message);
        }
        let said = [client(bytes), broker(fetched(version, 1, batch(&three(7), Compression::None), &[]))];
        assert_eq!(reported(&said), Vec::<String>::new(), "v{version}");
    }
}

#[test]
fn in_a_session_the_offsets_of_requests_before_count() {
    let full = {
        let mut bytes = fetch(11, 1, 8, 0);
        // size, header with the client id `me`, 17 bytes, the session id, the session epoch: a new
        // session.
        bytes[37..41].copy_from_slice(&0_i32.to_be_bytes());
        bytes
    };
    let answered = |id, session: i32, records| {
        let mut bytes = fetched(11, id, records, &[]);
        // size, correlation id, throttle time, error code, the session id.
        bytes[14..18].copy_from_slice(&session.to_be_bytes());
        broker(bytes)
    };
    let again = |id, session| {
        let empty = FetchRequest::default().with_session_id(session).with_session_epoch(1);
        client(request(ApiKey::Fetch, 11, id, &empty))
    };
    let records = || batch(&three(7), Compression::None);
    let said = [client(full.clone()), answered(1, 9, Bytes::new()), again(2, 9), answered(2, 9, records())];
    assert_eq!(reported(&said).len(), 2, "{:?}", reported(&said));
    // Of a proxy's clients each has its own.
    let mut other = full.clone();
    other[8..12].copy_from_slice(&2_i32.to_be_bytes());
    let from = FETCH_OFFSET_FROM_END;
    let at = other.len() - from;
    assert_eq!(other[at..at + 8], 8_i64.to_be_bytes());
    other[at..at + 8].copy_from_slice(&9_i64.to_be_bytes());
    let said = [
        client(full),
        answered(1, 9, Bytes::new()),
        client(other),
        answered(2, 10, Bytes::new()),
        again(3, 9),
        answered(3, 9, records()),
        again(4, 10),
        answered(4, 10, records()),
    ];
    let offsets: Vec<_> =
        reported(&said).iter().map(|line| line.split(['@', ' ']).nth(3).unwrap().to_owned()).collect();
    assert_eq!(offsets, ["8", "9", "9"]);
}

/// In version 11: the offset, the log start offset, the partition's bytes, no forgotten topic, an
/// empty rack id.
const FETCH_OFFSET_FROM_END: usize = 8 + 8 + 4 + 4 + 2;

#[test]
fn begun_in_the_middle_it_finds_its_step() {
    let said = long_talks(20);
    let whole = reported(&said);
    let parts = segments(&said, 9, |len| len.min(200));
    let mut random = Random(1);
    for _ in 0..200 {
        let skip = 2 + random.below(parts.len() as u64 / 2) as usize;
        let mut observed = Observed::default();
        for part in &parts[skip..] {
            observed.push(part);
        }
        let (lines, _) = observed.finish();
        // What is reported is a tail of the whole, but for at most the exchanges that were under way.
        assert!(lines.len() >= whole.len() / 2 - 18, "{skip}: {}", lines.len());
        assert!(whole.ends_with(&lines[lines.len().saturating_sub(whole.len() / 2 - 18)..]), "{skip}");
        assert!(lines.iter().all(|line| whole.contains(line)), "{skip}");
    }
}

/// Segments are lost for good (captured never, acknowledged by the other side), lost and sent
/// again, sent twice, and swapped: nothing wrong is reported, and what follows a loss is.
#[test]
fn lossy_transport() {
    let seeds = if std::env::var_os("KTRACE_FULL").is_some() { 1_000_000 } else { 3_000 };
    let said = long_talks(6);
    let whole = reported(&said);
    let tail = reported(&long_talk());
    for seed in 0..seeds {
        let mut random = Random(seed);
        let (lose, again, twice, swap) =
            (random.below(40), random.below(60), random.below(60), random.below(100));
        let size = 40 + random.below(1400) as usize;
        let mut parts = segments(&said, random.below(1 << 32) as u32, |_| size);
        // The last talk is whole, so that what was lost before it shows in nothing else.
        let safe = segments(&long_talk(), 0, |_| size).len() - 2;
        let end = parts.len() - safe;
        let mut sent: Vec<Part> = parts.drain(..2).collect();
        let mut late: Vec<Part> = vec![];
        for (index, part) in parts.into_iter().enumerate() {
            let lossy = index + 2 < end;
            if lossy && random.below(1000) < lose {
                continue;
            }
            if lossy && random.below(1000) < again && late.is_empty() {
                late.push(part);
                continue;
            }
            // A segment sent again comes before anything that acknowledges it: while the same side
            // talks.
            if let Some(other) = late.first()
                && (other.direction != part.direction || random.below(3) == 0)
            {
                sent.push(late.remove(0));
            }
            if random.below(1000) < twice {
                sent.push(part.clone());
            }
            sent.push(part);
            let last = sent.len() - 1;
            if random.below(1000) < swap
                && sent[last].direction == sent[last - 1].direction
                && !sent[last - 1].syn
            {
                sent.swap(last, last - 1);
            }
        }
        let mut observed = Observed::default();
        for part in &sent {
            observed.push(part);
        }
        let (lines, scratch) = observed.finish();
        let mut left = whole.iter();
        for line in &lines {
            assert!(left.any(|l| l == line), "seed {seed}: reported and never said, or out of order: {line}");
        }
        let recovered = lines.ends_with(&tail[tail.len() - 6..]);
        assert!(recovered, "seed {seed}: {} of {} lines; {:?}", lines.len(), whole.len(), scratch.counters);
        if lines.len() < whole.len() {
            assert!(scratch.counters.lost().any(|(_, count)| count > 0), "seed {seed}: lost without a count");
        }
    }
}

/// A client that gives all its requests the same id, and a response that was lost: it is
/// no longer certain which request a response is for, so nothing is reported until it is clear again.
#[test]
fn ids_that_come_again_are_not_guessed_at() {
    let talk = |offset: i64| {
        [client(produce(9, 7, -1, batch(&three(0), Compression::None))), broker(produced(9, 7, offset, 0))]
    };
    let said: Vec<Said> = [10, 20, 30, 40].into_iter().flat_map(talk).collect();
    let mut parts = segments(&said, 5, |len| len);
    // The first response.
    parts.remove(3);
    let mut observed = Observed::default();
    for part in &parts {
        observed.push(part);
    }
    let (lines, scratch) = observed.finish();
    assert_eq!(lines, reported(&said)[6..], "the second response is passed over with the first two requests");
    assert_eq!(lost(&scratch, Lost::AmbiguousResponse), 1);
    assert_eq!(lost(&scratch, Lost::Unanswered), 2);
}

/// What a connection gives back is lost, and nothing else.
#[test]
fn what_was_shed_is_lost_and_what_follows_is_not() {
    let said = [
        client(produce(9, 1, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 1, 10, 0)),
        client(fetch(11, 2, 7, 0)),
        broker(fetched(11, 2, batch(&three(7), Compression::None), &[])),
        client(produce(9, 3, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 3, 20, 0)),
    ];
    let whole = reported(&said);
    for (shed_at, lost) in [(2, 0..3), (3, 0..3), (5, 3..6), (6, 3..6)] {
        let mut observed = Observed::default();
        for (index, part) in segments(&said, 5, |len| len.min(200)).iter().enumerate() {
            observed.push(part);
            if index == shed_at {
                observed.connection.shed(&mut observed.scratch);
                // A head, and some places in the queue.
                assert!(observed.connection.held_bytes() <= 2048 + 1024);
            }
        }
        let mut expected = whole.clone();
        expected.drain(lost);
        assert_eq!(observed.finish().0, expected, "shed after segment {shed_at}");
    }
}

/// What a hole has hidden may show it too: then no segment follows, and nothing may stay.
#[test]
fn what_is_not_kafka_is_given_up_behind_a_hole_too() {
    let request = produce(9, 1, -1, batch(&three(0), Compression::None));
    let said = [client(request), client(vec![0xee; 40]), broker(vec![0; 40]), broker(vec![0; 40])];
    let mut parts = segments(&said, 5, |len| len.min(40));
    // The request's second part and the first of the other side are lost.
    parts.remove(parts.len() - 2);
    parts.remove(3);
    let mut observed = Observed::default();
    for part in &mut parts {
        part.ack = None;
        observed.push(part);
    }
    assert!(observed.connection.held_bytes() > 0);
    observed.connection.give_up_holes(&mut observed.scratch, &mut observed.lines);
    assert_eq!(observed.connection.speaks(), Speaks::Other);
    assert_eq!(observed.connection.held_bytes(), 0);
    let (_, scratch) = observed.finish();
    assert!(scratch.counters.lost().any(|(why, count)| why.name() == "not_kafka" && count == 1));
}

#[test]
fn damaged_bodies_are_counted_and_tell_nothing() {
    let good = fetched(11, 1, batch(&three(7), Compression::None), &[]);
    let said = [client(fetch(11, 1, 7, 0)), broker(good.clone())];
    assert_eq!(reported(&said).len(), 3);
    let mut random = Random(3);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..=random.below(3) {
            // The size and the correlation id stay.
            let at = 8 + random.below(bad.len() as u64 - 8) as usize;
            bad[at] = random.below(256) as u8;
        }
        let mut observed = Observed::default();
        for part in segments(&[client(fetch(11, 1, 7, 0)), broker(bad)], 5, |len| len) {
            observed.push(&part);
        }
        assert!(observed.connection.held_bytes() <= 1024);
        observed.finish();
    }
}

#[test]
fn directions_may_come_in_any_order_at_the_start() {
    // The first request is seen late, as its first transmission was lost before the capture.
    let said = long_talk();
    let mut parts = segments(&said, 5, |len| len);
    let whole = reported(&said);
    let first = parts.iter().position(|part| part.direction == Direction::ToBroker && !part.syn).unwrap();
    let again = parts[first].clone();
    parts.insert(first + 1, again);
    let mut observed = Observed::default();
    for part in &parts {
        observed.push(part);
    }
    assert_eq!(observed.finish().0, whole);
}
