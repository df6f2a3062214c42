//! The versions that the encoder lacks, written by hand from Kafka's message schemas
//! (`clients/src/main/resources/common/message/*.json`): of 3.9 for those that 4.0 dropped, of 4.0
//! for the early access of share groups, of 4.4 for the newest. Produce 0–2 and Fetch 0–3 are among
//! the tests of connections.

use ktrace_kafka::context::Extractor;
use ktrace_kafka::{
    Committed, Event, GroupProtocol, Limits, Member, MemberState, Operation, Partition, Scratch, Topic,
    Transaction,
};
use ktrace_testkit::{Fields as Body, framed_parts};

use crate::{Case, check_cuts, read, refused, shown, shown_record};

fn body() -> Body {
    Body::default()
}

/// A frame, and where its body begins.
fn message_of(head: &Body, body: &Body) -> (Vec<u8>, usize) {
    (framed_parts(&[&head.0, &body.0]), head.0.len() + 4)
}

/// The exchange as a client `c` has it. Flexible headers end with their tagged fields, but for
/// ApiVersions' responses.
fn case(
    key: i16,
    version: i16,
    flexible: bool,
    request: &Body,
    response: &Body,
    reported: Vec<String>,
) -> Case {
    let tags = |head: Body, has: bool| if has { head.none() } else { head };
    let head = tags(body().i16(key).i16(version).i32(7).old("c"), flexible);
    let (request, request_body) = message_of(&head, request);
    let (response, response_body) = message_of(&tags(body().i32(7), flexible && key != 18), response);
    let bodies_at = (request_body, response_body);
    Case { request, response, bodies_at, request_counts: true, expected: reported }
}

fn check(key: i16, version: i16, flexible: bool, request: &Body, response: &Body, reported: Vec<String>) {
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    let case = case(key, version, flexible, request, response, reported);
    let lines = read(&mut scratch, &case.request, &case.response);
    assert_eq!((lines, refused(&scratch)), (case.expected.clone(), 0), "{key} v{version}");
    check_cuts(&mut scratch, &case, &format!("{key} v{version}"));
}

const ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// Reports a commit of offset 42 for partition 3.
fn committed(member_id: &str, generation: i32, topic: Topic<'_>, epoch: i32, error: i16) -> Vec<String> {
    vec![shown(&Event::Committed(Committed {
        group_id: "g",
        member_id,
        generation_or_epoch: generation,
        topic,
        partition: 3,
        offset: 42,
        leader_epoch: epoch,
        transaction: None,
        error,
    }))]
}

#[test]
fn offset_commit() {
    let topic = Topic::Name("t");
    let response = body().i32(1).old("t").i32(1).i32(3).i16(22);
    // OffsetCommitRequest.json of 3.9, versions 0 and 1.
    let request = body().old("g").i32(1).old("t").i32(1).i32(3).i64(42).old("meta");
    check(8, 0, false, &request, &response, committed("", -1, topic, -1, 22));
    let request =
        body().old("g").i32(5).old("m").i32(1).old("t").i32(1).i32(3).i64(42).i64(1_700_000_000_000).i16(-1);
    check(8, 1, false, &request, &response, committed("m", 5, topic, -1, 22));
    // Version 10 of 4.4: topic ids.
    let request = body().text("g").i32(5).text("m").none().count(1).id(ID);
    let request = request.count(1).i32(3).i64(42).i32(9).text("meta").none().none().none();
    let response = body().i32(0).count(1).id(ID).count(1).i32(3).i16(0).none().none().none();
    check(8, 10, true, &request, &response, committed("m", 5, Topic::Id(ID), 9, 0));
}

#[test]
fn offset_fetch() {
    let reported =
        |topic| vec![shown(&Event::Position { group_id: "g", topic, partition: 3, offset: 42, error: 16 })];
    // OffsetFetchRequest.json of 3.9, version 0.
    let request = body().old("g").i32(1).old("t").i32(1).i32(3);
    let response = body().i32(1).old("t").i32(1).i32(3).i64(42).old("").i16(16);
    check(9, 0, false, &request, &response, reported(Topic::Name("t")));
    // Version 10 of 4.4: topic ids.
    let request = body().count(1).text("g").text("m").i32(5).count(1).id(ID).count(1).i32(3).none().none();
    let request = request.i8(1).none();
    let response = body().i32(0).count(1).text("g").count(1).id(ID).count(1);
    let response = response.i32(3).i64(42).i32(9).text("").i16(16).none().none().i16(0).none().none();
    check(9, 10, true, &request, &response, reported(Topic::Id(ID)));
}

#[test]
fn list_offsets() {
    let reported = |timestamp, offset| {
        let topic = Topic::Name("t");
        vec![shown(&Event::LogOffset { topic, partition: 3, timestamp, offset, error: 0 })]
    };
    // ListOffsetsRequest.json of 3.9, version 0: several offsets.
    let request = body().i32(-1).i32(1).old("t").i32(1).i32(3).i64(-1).i32(2);
    let response = body().i32(1).old("t").i32(1).i32(3).i16(0).i32(2).i64(42).i64(40);
    check(2, 0, false, &request, &response, reported(-1, 42));
    let response = body().i32(1).old("t").i32(1).i32(3).i16(0).i32(0);
    check(2, 0, false, &request, &response, reported(-1, -1));
    // Version 11 of 4.4 is laid out as version 10.
    let request = body().i32(-1).i8(1).count(1).text("t").count(1).i32(3).i32(8).i64(-6);
    let request = request.none().none().i32(30_000).none();
    let response = body().i32(0).count(1).text("t").count(1).i32(3).i16(0).i64(-1).i64(42).i32(8);
    check(2, 11, true, &request, &response.none().none().none(), reported(-6, 42));
}

#[test]
fn api_versions() {
    let reported = || vec![shown(&Event::Software { name: "java", version: "4.4.0" })];
    // ApiVersionsRequest.json of 4.4, version 5: the cluster and node that are meant (KIP-1242).
    let request = body().text("java").text("4.4.0").text("cluster").i32(2).none();
    let response = body().i16(0).count(1).i16(18).i16(0).i16(5).none().i32(0).none();
    check(18, 5, true, &request, &response, reported());
    // A broker that does not know the version answers as in version 0: since 2.4 with the versions
    // of this API, before with none (KIP-511).
    for (version, request) in [
        (3, body().text("java").text("4.4.0").none()),
        (4, body().text("java").text("4.4.0").none()),
        (5, request),
    ] {
        let answer = body().i16(35).i32(1).i16(18).i16(0).i16(3);
        check(18, version, true, &request, &answer, reported());
        check(18, version, true, &request, &body().i16(35).i32(0), reported());
    }
}

#[test]
fn init_producer_id() {
    // InitProducerIdRequest.json of 4.4, version 6 (KIP-939).
    let request = body().text("tx").i32(60_000).i64(-1).i16(-1).i8(0).i8(1).none();
    let response = body().i32(0).i16(0).i64(4000).i16(2).i64(-1).i16(-1).none();
    let reported =
        Event::Producer { transactional_id: Some("tx"), producer_id: 4000, producer_epoch: 2, error: 0 };
    check(22, 6, true, &request, &response, vec![shown(&reported)]);
}

#[test]
fn txn_offset_commit() {
    // TxnOffsetCommitRequest.json of 4.4, version 6: topic ids (KIP-1319).
    let request = body().text("tx").text("g").i64(4000).i16(2).i32(5).text("m").none().count(1).id(ID);
    let request = request.count(1).i32(3).i64(42).i32(-1).text("").none().none().none();
    let response = body().i32(0).count(1).id(ID).count(1).i32(3).i16(0).none().none().none();
    let reported = Event::Committed(Committed {
        group_id: "g",
        member_id: "m",
        generation_or_epoch: 5,
        topic: Topic::Id(ID),
        partition: 3,
        offset: 42,
        leader_epoch: -1,
        transaction: Some(Transaction { transactional_id: "tx", producer_id: 4000, producer_epoch: 2 }),
        error: 0,
    });
    check(28, 6, true, &request, &response, vec![shown(&reported)]);
}

#[test]
fn share_group_heartbeat() {
    // ShareGroupHeartbeatRequest.json of 4.0, version 0: the early access.
    let request = body().text("g").text("m").i32(0).text("rack").count(1).text("t").none();
    let response = body().i32(0).i16(0).none().text("m").i32(1).i32(5000);
    let response = response.i8(1).count(1).id(ID).count(1).i32(3).none().none().none();
    let member = Member {
        protocol: GroupProtocol::Share,
        group_id: "g",
        member_id: "m",
        instance_id: None,
        generation_or_epoch: 1,
        state: MemberState::Joining,
        error: 0,
    };
    let topic = Topic::Id(ID);
    let reported = vec![
        shown(&Event::Member(member)),
        shown(&Event::AssignmentBegins { group_id: "g", member_id: "m", generation_or_epoch: 1 }),
        shown(&Event::Assigned { group_id: "g", member_id: "m", topic, partition: 3 }),
    ];
    check(76, 0, true, &request, &response, reported);
}

fn acknowledged(types: &[u8], error: i16) -> String {
    shown(&Event::Acknowledged {
        group_id: "g",
        member_id: "m",
        topic: Topic::Id(ID),
        partition: 3,
        first_offset: 40,
        last_offset: 41,
        types,
        error,
    })
}

/// A message of magic 1 (`LegacyRecord.java`), as small as a log has it.
fn message(offset: i64) -> Body {
    body().i64(offset).i32(23).i32(0).i8(1).i8(0).i64(1_700_000_000_000).i32(-1).i32(1).i8(120)
}

#[test]
fn share_fetch() {
    // ShareFetchRequest.json: version 0 of 4.0, the early access; version 2 of 4.4 (KIP-1206,
    // KIP-1222).
    for version in [0, 2] {
        let request = body().text("g").text("m").i32(1).i32(500).i32(1).i32(1 << 20);
        let request = if version == 2 { request.i32(500).i32(500).i8(1).i8(0) } else { request };
        let request = request.count(1).id(ID).count(1).i32(3);
        let request = if version == 0 { request.i32(1 << 20) } else { request };
        let request = request.count(1).i64(40).i64(41).count(2).i8(1).i8(3).none().none().none();
        let request = request.count(1).id(ID + 1).count(1).i32(9).none().none();
        let set = [message(42).0, message(43).0, message(44).0].concat();
        let response = body().i32(0).i16(0).none();
        let response = if version == 2 { response.i32(30_000) } else { response };
        let response = response.count(1).id(ID).count(1).i32(3).i16(0).none().i16(121).text("no");
        let response = response.i32(1).i32(8).none().text(set);
        let response = response.count(1).i64(43).i64(44).i16(2).none().none().none();
        let response = response.count(1).i32(1).text("host").i32(9092).none().none().none();
        let operation =
            Operation::ShareFetch { group_id: Some("g"), member_id: Some("m"), delivery_count: 2 };
        let partition = Partition { topic: Topic::Id(ID), index: 3, operation, error: 0 };
        let reported = vec![
            acknowledged(&[1, 3], 121),
            shown_record(&partition, 43, None, Some(1)),
            shown_record(&partition, 44, None, Some(1)),
        ];
        check(78, version, true, &request, &response, reported);
    }
}

#[test]
fn share_acknowledge() {
    // ShareAcknowledgeRequest.json: version 0 of 4.0, the early access; version 2 of 4.4
    // (KIP-1222).
    for version in [0, 2] {
        let request = body().text("g").text("m").i32(1);
        let request = if version == 2 { request.i8(1) } else { request };
        let request = request.count(1).id(ID).count(1).i32(3);
        let request = request.count(1).i64(40).i64(41).count(1).i8(4).none().none().none().none();
        let response = body().i32(0).i16(0).none();
        let response = if version == 2 { response.i32(30_000) } else { response };
        let response = response.count(1).id(ID).count(1).i32(3).i16(0).none().i32(1).i32(8).none();
        let response = response.none().none().count(0).none();
        check(79, version, true, &request, &response, vec![acknowledged(&[4], 0)]);
    }
}

#[test]
fn streams_group_heartbeat() {
    let tasks =
        |body: Body| body.count(2).text("0").count(2).i32(0).i32(1).none().text("1").count(1).i32(7).none();
    let pair = |body: Body| body.count(1).text("key").text("value").none();
    let info = |body: Body| body.count(1).text("t").i32(4).i16(3).then(pair).none();
    let offsets = |body: Body| body.count(1).text("0").i32(1).i64(99).none();
    // StreamsGroupHeartbeatRequest.json of 4.4; both versions are laid out alike (KIP-1071).
    let head = body().text("g").text("m").i32(0).i32(2).text("instance").text("rack").i32(45_000);
    let topology = head.clone().i8(1).i32(1).count(1).text("0").count(1).text("t").count(1).text(".*");
    let topology = topology.then(info).count(1).text("sink").then(info);
    let topology = topology.count(1).count(1).i16(0).count(0).count(2).i16(1).i16(2).none().none().none();
    let request = topology.then(tasks).then(tasks).then(tasks).text("process");
    let request =
        request.i8(1).text("host").i16(-1).none().then(pair).then(offsets).then(offsets).i8(0).none();
    let unchanged = head.i8(-1).none().none().none().none().i8(-1).none().none().none().i8(0).none();

    let member = Member {
        protocol: GroupProtocol::Streams,
        group_id: "g",
        member_id: "m",
        instance_id: Some("instance"),
        generation_or_epoch: 3,
        state: MemberState::Joining,
        error: 0,
    };
    let task = |subtopology_id, partition| {
        shown(&Event::AssignedTask { group_id: "g", member_id: "m", subtopology_id, partition })
    };
    let whole = vec![
        shown(&Event::Member(member)),
        shown(&Event::AssignmentBegins { group_id: "g", member_id: "m", generation_or_epoch: 3 }),
        task("0", 0),
        task("0", 1),
        task("1", 7),
    ];
    for version in [0, 1] {
        // StreamsGroupHeartbeatResponse.json of 4.4: in version 1 (KIP-1331) the recovery lag is
        // wider and behind the interval, and a flag follows the tasks.
        let response = body().i32(0).i16(0).none().text("m").i32(3).i32(5000);
        let response =
            if version == 0 { response.i32(10_000).i32(60_000) } else { response.i32(60_000).i64(10_000) };
        let flag = |body: Body| if version == 0 { body } else { body.i8(1) };
        let unassigned = response.clone().none().none().none().none().then(flag).i32(4).none().none();
        check(88, version, true, &unchanged, &unassigned, whole[..1].to_vec());
        let response = response.count(1).i8(1).text("no such topic").none();
        let response = response.then(tasks).then(tasks).then(tasks).then(flag).i32(4);
        let topics = |body: Body| body.count(1).text("t").count(1).i32(0).none();
        let response = response.count(1).text("host").i16(80).none().then(topics).then(topics).none().none();
        check(88, version, true, &request, &response, whole.clone());
    }
}
