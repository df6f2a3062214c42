//! What is said to a proxy before the first request: read behind, however it is cut, or counted
//! with its reason.

use crate::conversation::*;
use kafka_protocol::records::Compression;
use ktrace_kafka::Speaks;
use ktrace_kafka::counters::{Lost, NotKafka};

/// A message and its answer, behind all that.
fn talk() -> [Said; 2] {
    [client(produce(9, 1, -1, batch(&three(0), Compression::None))), broker(produced(9, 1, 100, 0))]
}

const PASSWORD: &[u8] = b"\x01\x04user\x06secret";

/// All that is read, by name.
fn prefaces() -> Vec<(&'static str, Vec<Said>)> {
    let c = |bytes: &[u8]| client(bytes.to_vec());
    let b = |bytes: &[u8]| broker(bytes.to_vec());
    let greeting = [c(b"\x05\x01\0"), b(b"\x05\0")];
    let by_name = c(b"\x05\x01\0\x03\x06broker\x23\x84");
    let granted = b(b"\x05\0\0\x01\x0a\0\0\x02\x23\x84");
    let connect =
        b"CONNECT broker:9092 HTTP/1.1\r\nHost: broker:9092\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n";
    let connected = b(b"HTTP/1.1 200 Connection established\r\nVia: me\r\n\r\n");
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 9092\r\n";
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x23\x84";
    vec![
        ("SOCKS 5", [&greeting[..], &[c(b"\x05\x01\0\x01\x0a\0\0\x02\x23\x84"), granted.clone()]].concat()),
        (
            "SOCKS 5 with a password",
            vec![
                c(b"\x05\x02\0\x02"),
                b(b"\x05\x02"),
                c(PASSWORD),
                b(b"\x01\0"),
                by_name.clone(),
                b(b"\x05\0\0\x03\x04host\x23\x84"),
            ],
        ),
        (
            "SOCKS 5 to IPv6",
            [
                &greeting[..],
                &[c(&[&b"\x05\x01\0\x04"[..], &[0xfd; 16], &[0x23, 0x84]].concat())],
                &[b(&[&b"\x05\0\0\x04"[..], &[0; 16], &[0, 0]].concat())],
            ]
            .concat(),
        ),
        ("SOCKS 4", vec![c(b"\x04\x01\x23\x84\x0a\0\0\x02me\0"), b(b"\0\x5a\0\0\0\0\0\0")]),
        ("SOCKS 4a", vec![c(b"\x04\x01\x23\x84\0\0\0\x01\0broker\0"), b(b"\0\x5a\0\0\0\0\0\0")]),
        ("CONNECT", vec![c(connect), connected.clone()]),
        ("PROXY 1", vec![c(line)]),
        ("PROXY 1 of an unknown client", vec![c(b"PROXY UNKNOWN\r\n")]),
        ("PROXY 2", vec![c(header)]),
        ("PROXY 2 for itself", vec![c(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")]),
        ("several", [&[c(line), c(connect), connected], &greeting[..], &[by_name, granted]].concat()),
    ]
}

fn observe(said: &[Said], cut: usize) -> Observed {
    let mut observed = Observed::default();
    for part in segments(said, 5, |len| len.min(cut)) {
        observed.push(&part);
    }
    observed
}

#[test]
fn is_read_behind() {
    let whole = reported(&talk());
    assert_eq!(whole.len(), 3);
    for (name, preface) in prefaces() {
        for cut in [usize::MAX, 20, 7, 3, 1] {
            let observed = observe(&[&preface[..], &talk()].concat(), cut);
            assert_eq!(observed.connection.speaks(), Speaks::Kafka, "{name} in pieces of {cut}");
            let (lines, scratch) = observed.finish();
            assert_eq!(lines, whole, "{name} in pieces of {cut}");
            let counted: u64 = scratch.counters.lost().map(|(_, count)| count).sum();
            let refused: u64 = scratch.counters.malformed().map(|(_, count)| count).sum();
            assert_eq!((counted, refused), (0, 0), "{name} in pieces of {cut}");
        }
    }
}

/// The size of a request of some 64 or 80 MiB begins as a word to a SOCKS proxy does.
#[test]
fn a_large_first_request_is_none() {
    for first in [4, 5] {
        // Produce 3 of client `me`, and what there is of it by now.
        let head = [&[first, 0xf0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7, 0, 2][..], b"me", &[0xff; 6]].concat();
        for cut in [usize::MAX, 4] {
            let observed = observe(&[client(head.clone())], cut);
            let judged = (observed.connection.speaks(), observed.connection.not_kafka());
            assert_eq!(judged, (Speaks::Unknown, None));
            assert!(observed.connection.held_bytes() > 0);
        }
    }
}

/// As a proxy writes it, where the client has spoken before it was connected.
#[test]
fn the_first_request_may_be_in_the_same_segment() {
    for (name, preface) in prefaces().into_iter().filter(|(name, _)| name.starts_with("PROXY")) {
        let mut said = talk();
        said[0].1.splice(0..0, preface[0].1.iter().copied());
        assert_eq!(reported(&said).len(), 3, "{name}");
    }
}

#[test]
fn what_is_not_read_has_a_reason() {
    let c = |bytes: &[u8]| client(bytes.to_vec());
    let b = |bytes: &[u8]| broker(bytes.to_vec());
    let tls = c(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03");
    let socks = prefaces().remove(0).1;
    let behind = |said: &[Said]| [&socks[..], said].concat();
    let endless = [&b"CONNECT "[..], &[b'x'; 20 << 10]].concat();
    for (said, reason) in [
        (vec![c(b"\x05\x01\x01"), b(b"\x05\x01"), c(b"\x01\x01\0\x02hi")], NotKafka::Preface),
        (vec![c(b"\x05\x01\0"), b(b"\x05\xff")], NotKafka::ProxyRefused),
        (vec![c(b"\x05\x01\x02"), b(b"\x05\x02"), c(PASSWORD), b(b"\x01\x01")], NotKafka::ProxyRefused),
        (vec![c(b"\x04\x01\x23\x84\x0a\0\0\x02\0"), b(b"\0\x5b\0\0\0\0\0\0")], NotKafka::ProxyRefused),
        (vec![c(b"CONNECT a:1 HTTP/1.1\r\n\r\n"), b(b"HTTP/1.1 407 No\r\n\r\n")], NotKafka::ProxyRefused),
        (vec![c(&endless)], NotKafka::Preface),
        (vec![c(&[&b"PROXY "[..], &[b'x'; 200]].concat())], NotKafka::Preface),
        (vec![c(b"PROXY UNKNOWN\r\n"); 5], NotKafka::Preface),
        (vec![c(b"PRINT\r\n")], NotKafka::NoRequest),
        // Cassandra's OPTIONS, of versions 4 and 5.
        (vec![c(b"\x04\0\0\0\x05\0\0\0\0")], NotKafka::NoRequest),
        (vec![c(b"\x05\0\0\0\x05\0\0\0\0")], NotKafka::NoRequest),
        (behind(&[c(b"GET / HTTP/1.1\r\n\r\n")]), NotKafka::NoRequest),
        (behind(&[b(b"SSH-2.0-OpenSSH_9.2\r\n")]), NotKafka::ServerSpeaksFirst),
        (behind(&[]), NotKafka::NothingBehindProxy),
        (behind(std::slice::from_ref(&tls)), NotKafka::TlsBehindProxy),
    ] {
        for cut in [usize::MAX, 3, 1] {
            let mut observed = Observed::default();
            observed.scratch.ports_are_given = false;
            for part in segments(&said, 5, |len| len.min(cut)) {
                observed.push(&part);
            }
            observed.connection.finish(&mut observed.scratch, &mut observed.lines);
            assert_eq!(observed.connection.not_kafka(), Some(reason), "{reason:?} in pieces of {cut}");
            assert_eq!(observed.connection.held_bytes(), 0);
            assert_eq!(observed.scratch.counters.lost_by(Lost::NotKafka), 1);
            assert_eq!(observed.scratch.counters.malformed().map(|(_, count)| count).sum::<u64>(), 0);
        }
    }
    // Where the user has said that it is Kafka, it is TLS of Kafka's.
    assert_eq!(observe(&behind(&[tls]), usize::MAX).connection.speaks(), Speaks::Tls);
}

/// The client may have heard what the capture has not.
#[test]
fn a_hole_in_it_is_no_evidence() {
    let whole = reported(&talk());
    for (name, preface) in prefaces() {
        let said = [&preface[..], &talk()].concat();
        for missing in 0..preface.len() {
            let mut observed = Observed::default();
            for (at, part) in segments(&said, 5, |len| len).iter().filter(|part| !part.syn).enumerate() {
                if at != missing {
                    observed.push(part);
                }
            }
            // Its beginning was not seen: the first request is found where a segment begins with
            // it.
            let (lines, _) = observed.finish();
            assert_eq!(lines, whole, "{name} without {missing}");
        }
    }
}

/// Nothing of it is held, so nothing can leave the agent.
#[test]
fn passwords_are_not_kept() {
    let said = &prefaces().remove(1).1;
    for cut in [usize::MAX, 4] {
        let mut observed = Observed::default();
        for part in segments(said, 5, |len| len.min(cut)) {
            observed.push(&part);
            assert_eq!(observed.connection.held_bytes(), 0, "in pieces of {cut}");
        }
        assert_eq!(observed.scratch.counters.frames, 0);
    }
}
