//! What is not Kafka, and what Kafka will say one day.

use crate::conversation::*;
use kafka_protocol::messages::*;
use kafka_protocol::records::Compression;
use ktrace_kafka::Speaks;
use ktrace_kafka::counters::{Lost, NotKafka};

/// What a connection was found to be when each segment but the last was there, and in the end;
/// nothing was reported.
fn found(said: &[Said], cut: usize) -> (Vec<Speaks>, u64) {
    let mut observed = Observed::default();
    let mut speaks = vec![];
    for part in segments(said, 5, |len| len.min(cut)) {
        observed.push(&part);
        if !part.syn {
            speaks.push(observed.connection.speaks());
        }
        assert!(observed.connection.held_bytes() < 4096);
    }
    let (lines, scratch) = observed.finish();
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(scratch.counters.exchanges, 0);
    (speaks, losses(&scratch, &[Lost::NotKafka, Lost::Tls]))
}

fn losses(scratch: &ktrace_kafka::Scratch, reasons: &[Lost]) -> u64 {
    scratch.counters.lost().filter(|(reason, _)| reasons.contains(reason)).map(|(_, count)| count).sum()
}

#[test]
fn what_is_not_kafka_is_given_up_at_its_first_bytes() {
    for (bytes, speaks) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Speaks::Other),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Speaks::Other),
        (b"*1\r\n$4\r\nPING\r\n*1\r\n", Speaks::Other),
        (b"PING\r\n", Speaks::Other),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Speaks::Other),
        (b"\0\0\0\x54\0\x03\0\0user\0postgres\0", Speaks::Other),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Speaks::Other),
        (b"AMQP\0\0\x09\x01 and more", Speaks::Other),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", Speaks::Tls),
        // MongoDB: length 57 (little endian), request 1, response to 0, OP_MSG.
        (b"\x39\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x24\0\0\0\x10hello\0", Speaks::Other),
        // The same, of a length that might be Kafka's.
        (b"\0\0\0\x00\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x24\0\0\0\x10hello\0", Speaks::Other),
    ] {
        let said = [client(bytes.to_vec()), broker(bytes.to_vec())];
        let (found, lost) = found(&said, usize::MAX);
        assert_eq!((found[0], lost), (speaks, 1), "{}", String::from_utf8_lossy(bytes));
    }
}

/// A broker never does.
#[test]
fn who_speaks_first_is_no_broker() {
    for greeting in [
        // MySQL.
        &b"\x4a\0\0\0\x0a8.0.36\0\x0b\0\0\0\x0c\x3b\x43\x27\x4c\x51\x2b\x5f\0\xff\xff"[..],
        b"220 mail.example.org ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        // What might be Kafka's.
        b"\0\0\0\x08\0\0\0\x01\0\0\0\0",
    ] {
        let said =
            [broker(greeting.to_vec()), client(b"\x20\0\0\x01\x85\xa6\xff\x19\0\0\0\x01 and more".to_vec())];
        let (found, lost) = found(&said, usize::MAX);
        assert_eq!((found[0], lost), (Speaks::Other, 1), "{}", String::from_utf8_lossy(greeting));
    }
}

/// What passes a connection whose beginning was not seen, in segments of at most `size` bytes.
fn amid(said: &[Said], cut: usize) -> (Speaks, u64, Vec<String>) {
    let mut observed = Observed::default();
    for part in segments(said, 5, |len| len.min(cut)).iter().filter(|part| !part.syn) {
        observed.push(part);
    }
    let speaks = observed.connection.speaks();
    let (lines, scratch) = observed.finish();
    (speaks, losses(&scratch, &[Lost::Tls]), lines)
}

/// Records of application data, and an alert at the end.
#[test]
fn tls_is_recognised_in_its_middle_too() {
    let record = |kind: u8, len: u16| {
        let body = (0..len).map(|at| (at % 251) as u8);
        [kind, 3, 3].into_iter().chain(len.to_be_bytes()).chain(body).collect::<Vec<_>>()
    };
    let request = [record(23, 200), record(23, 5000)].concat();
    for said in [
        &[client(request.clone()), broker(record(23, 16_401)), client(request.clone())][..],
        &[client(record(23, 40)), client(record(23, 40))],
        &[broker(record(23, 40)), broker([record(23, 300), record(21, 26)].concat())],
    ] {
        for cut in [usize::MAX, 1448] {
            assert_eq!(amid(said, cut), (Speaks::Tls, 1, vec![]), "{cut}");
        }
    }
    // One segment may be chance, and what is not records all along is none.
    assert_eq!(amid(&[client(request.clone())], usize::MAX).0, Speaks::Unknown);
    let almost = [record(23, 200), b"other bytes".to_vec()].concat();
    assert_eq!(amid(&[client(almost.clone()), client(almost)], usize::MAX).0, Speaks::Unknown);
}

/// A value may hold whatever looks like TLS.
#[test]
fn kafka_in_its_middle_is_not_tls() {
    let said = [
        client(vec![23, 3, 3, 0, 2, 9, 9]),
        client(produce(9, 3, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 3, 100, 0)),
        client(vec![23, 3, 3, 0, 2, 9, 9]),
    ];
    let (speaks, tls, lines) = amid(&said, usize::MAX);
    assert_eq!((speaks, tls, lines.len()), (Speaks::Kafka, 0, 3));
}

/// A response whose request was not captured is no greeting: the broker acknowledges what was never
/// seen.
#[test]
fn a_lost_first_request_is_no_silence() {
    let said = [
        client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
        broker(response(3, 0, &ApiVersionsResponse::default())),
        client(produce(9, 3, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 3, 100, 0)),
    ];
    let mut observed = Observed::default();
    for part in
        segments(&said, 5, |len| len).iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, part)| part)
    {
        observed.push(part);
    }
    assert_eq!(observed.connection.speaks(), Speaks::Kafka);
    assert_eq!(observed.finish().0.len(), 3);
}

#[test]
fn random_bytes_are_not_kafka() {
    let mut random = Random(17);
    for round in 0..2000 {
        let mut bytes = |len: u64| (0..len).map(|_| random.below(256) as u8).collect::<Vec<_>>();
        let said = [client(bytes(200)), broker(bytes(200)), client(bytes(200))];
        let said = if round % 4 == 0 { vec![said[1].clone(), said[0].clone()] } else { said.to_vec() };
        // Also where the first segments are short.
        let cut = [usize::MAX, 100, 20, 7][round % 4];
        let (found, lost) = found(&said, cut);
        let soon = found[20_usize.div_ceil(cut)];
        assert_eq!((soon, lost), (Speaks::Other, 1), "{round}");
    }
}

/// Whether it waits for a response is not known before its header is.
#[test]
fn a_produce_of_a_version_to_come_may_have_a_response() {
    let future = |acks: u8| {
        // No tagged fields, no transactional id.
        framed(&[b"\0\0\0\x0e\0\0\0\x01\0\x02me\0\0\0", &[acks][..], b"\0\0\0\0\x01\0"].concat())
    };
    let answer = framed(&[0, 0, 0, 1, 0, 9]);
    let next =
        [client(produce(9, 3, -1, batch(&three(0), Compression::None))), broker(produced(9, 3, 100, 0))];
    let reported = |said: &[Said]| {
        let mut observed = Observed::default();
        for part in segments(said, 77, |len| len) {
            observed.push(&part);
        }
        let (lines, scratch) = observed.finish();
        assert_eq!(lines.len(), 3);
        assert_eq!(scratch.counters.malformed().map(|(_, count)| count).sum::<u64>(), 0);
        (scratch.counters.exchanges, losses(&scratch, Lost::ALL))
    };
    assert_eq!(reported(&[&[client(future(1)), broker(answer)], &next[..]].concat()), (2, 1));
    // One that has none is passed over.
    assert_eq!(reported(&[&[client(future(0))], &next[..]].concat()), (1, 1));
}

#[test]
fn a_client_id_that_is_no_text_is_kafkas_too() {
    let said = [
        client(framed(b"\0\x0c\0\0\0\0\0\x07\0\x02b\xfc\0\x01g\0\0\0\x01\0\x01m")),
        broker(framed(&[0, 0, 0, 7, 0, 0])),
    ];
    assert_eq!(reported(&said), ["member m of g Stable by -"]);
}

/// ApiVersions 0 and its answer, then a message, of a client of this name.
fn named(id: &[u8]) -> Vec<Said> {
    let head = |api: i16, version: i16, correlation: i32| {
        let numbers = [&api.to_be_bytes()[..], &version.to_be_bytes(), &correlation.to_be_bytes()].concat();
        [&numbers[..], &(id.len() as i16).to_be_bytes(), id].concat()
    };
    // As `produce` writes it, behind its own name of two bytes.
    let body = produce(7, 2, -1, batch(&three(0), Compression::None)).split_off(4 + 8 + 2 + 2);
    vec![
        client(framed(&head(18, 0, 1))),
        broker(framed(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])),
        client(framed(&[head(0, 7, 2), body].concat())),
        broker(produced(7, 2, 100, 0)),
    ]
}

/// A broker takes any.
#[test]
fn any_client_id_is_kafkas() {
    let long = vec![b'x'; i16::MAX as usize];
    for id in [&b"a\x01\x1b[2J"[..], b"a\0b", b"\0", b"\xfc\xff", &long] {
        for cut in [usize::MAX, 1448, 7] {
            let mut observed = Observed::default();
            for part in segments(&named(id), 5, |len| len.min(cut)) {
                observed.push(&part);
            }
            assert_eq!(observed.connection.speaks(), Speaks::Kafka, "{} in pieces of {cut}", id.len());
            let (lines, scratch) = observed.finish();
            assert_eq!(lines.len(), 3);
            assert_eq!(losses(&scratch, Lost::ALL), 0);
        }
    }
}

/// What else could be one of an odd name has not the body of its API.
#[test]
fn why_a_connection_is_not_kafka() {
    let reason = |said: &[Said]| {
        let mut observed = Observed::default();
        for part in segments(said, 5, |len| len) {
            observed.push(&part);
        }
        observed.connection.not_kafka()
    };
    let c = |bytes: &[u8]| client(bytes.to_vec());
    // PostgreSQL, of a user whose name begins so that a client id of 97 bytes could follow.
    let startup = [&b"\0\x03\0\0user\0alice\0database\0"[..], &[b'd'; 120], b"\0\0"].concat();
    assert_eq!(reason(&[client(framed(&startup))]), Some(NotKafka::ClientId));
    assert_eq!(reason(&[c(b"\x07\0\0\0\0\x12\0\0\0\0\0\x01\0\x02me")]), Some(NotKafka::Size));
    assert_eq!(reason(&[c(b"GET / HTTP/1.1\r\n\r\n")]), Some(NotKafka::NoRequest));
    assert_eq!(reason(&[broker(b"220 here\r\n".to_vec())]), Some(NotKafka::ServerSpeaksFirst));
    assert_eq!(reason(&named(b"me")), None);
}

#[test]
fn unknown_apis_and_versions_do_not_disturb_their_neighbours() {
    let unknown = framed(&[&2000_i16.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1], b"whatever"].concat());
    let future = framed(
        &[&1_i16.to_be_bytes()[..], &99_i16.to_be_bytes(), &[0, 0, 0, 2, 0, 1, b'x'], b"what"].concat(),
    );
    let said = [
        client(request(ApiKey::ApiVersions, 3, 0, &ApiVersionsRequest::default())),
        broker(response(3, 0, &ApiVersionsResponse::default())),
        client([unknown, future, produce(9, 3, -1, batch(&three(0), Compression::None))].concat()),
        broker([framed(&[0, 0, 0, 1, 9, 9]), framed(&[0, 0, 0, 2, 0, 9]), produced(9, 3, 100, 0)].concat()),
    ];
    let mut observed = Observed::default();
    for part in segments(&said, 77, |len| len) {
        observed.push(&part);
    }
    let (lines, scratch) = observed.finish();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.starts_with("produced acks=-1 orders[2]@10")), "{lines:?}");
    assert_eq!(scratch.counters.exchanges, 4);
    assert_eq!(losses(&scratch, &[Lost::UnsupportedApi]), 1);
    assert_eq!(losses(&scratch, &[Lost::UnsupportedVersion]), 1);
    assert_eq!(losses(&scratch, Lost::ALL), 2);
    assert_eq!(scratch.counters.malformed().map(|(_, count)| count).sum::<u64>(), 0);
}
