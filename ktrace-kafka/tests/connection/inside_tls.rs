//! The same conversations inside TLS give the same events as in the clear, whenever the keys come.

#[expect(dead_code, reason = "the tests of sessions need more of it")]
#[path = "../../../ktrace-tls/tests/session/wire.rs"]
mod wire;

use kafka_protocol::records::Compression;
use ktrace_kafka::Direction;
use ktrace_kafka::Speaks;
use ktrace_kafka::counters::Lost;
use ktrace_tls::Sender;
use ktrace_tls::cipher::Suite;
use ktrace_tls::session::Closed;
use wire::Talk;

use crate::conversation::*;
use crate::lost;

const AES_256: Suite = Suite(0x1302);
const TLS12: Suite = Suite(0xc030);

fn conversation() -> Vec<Said> {
    vec![
        client(produce(9, 1, -1, batch(&three(0), Compression::Lz4))),
        broker(produced(9, 1, 1042, 0)),
        client(fetch(11, 2, 7, 0)),
        broker(fetched(11, 2, batch(&three(7), Compression::None), &[])),
        client(produce(9, 3, -1, batch(&three(0), Compression::None))),
        broker(produced(9, 3, 2042, 0)),
    ]
}

/// The segments of a talk that says this, each message in two records as Java sends them.
fn parts(talk: &mut Talk, said: &[Said]) -> Vec<Part> {
    for (direction, bytes) in said {
        let from = if *direction == Direction::ToBroker { Sender::Client } else { Sender::Server };
        let (head, rest) = bytes.split_at(bytes.len().min(4));
        talk.say(from, head);
        talk.say(from, rest);
    }
    let first = |from| talk.chunks.iter().find(|chunk| chunk.from == from).unwrap().seq;
    let mut next = [first(Sender::Client), first(Sender::Server)];
    let syn = |direction, seq: u32| Part {
        direction,
        seq: seq.wrapping_sub(1),
        ack: None,
        syn: true,
        bytes: vec![],
    };
    let mut parts = vec![syn(Direction::ToBroker, next[0]), syn(Direction::ToClient, next[1])];
    for chunk in &talk.chunks {
        let (own, other, direction) = match chunk.from {
            Sender::Client => (0, 1, Direction::ToBroker),
            Sender::Server => (1, 0, Direction::ToClient),
        };
        let bytes = chunk.bytes.clone();
        parts.push(Part { direction, seq: chunk.seq, ack: Some(next[other]), syn: false, bytes });
        next[own] = chunk.seq.wrapping_add(chunk.bytes.len() as u32);
    }
    parts
}

fn observed() -> Observed {
    let mut observed = Observed::default();
    observed.connection.read_tls();
    observed
}

/// Gives the connection the keys that a search of memory finds now.
fn search(observed: &mut Observed, talk: &Talk) -> usize {
    let samples = observed.connection.tls().map(|session| session.samples());
    let found = wire::find(&samples.unwrap_or_default(), &talk.keys);
    let Observed { connection, scratch, lines, .. } = observed;
    found.into_iter().map(|key| usize::from(connection.take_key(key, scratch, lines))).sum()
}

fn secrets(observed: &mut Observed, talk: &Talk) -> bool {
    let Observed { connection, scratch, lines, .. } = observed;
    connection.take_secrets(&talk.secrets, scratch, lines)
}

#[test]
fn the_same_whenever_the_keys_come() {
    let clear = reported(&conversation());
    for new in [|| Talk::tls13(AES_256), || Talk::tls12(TLS12)] {
        let mut talk = new();
        let parts = parts(&mut talk, &conversation());
        for by_memory in [false, true] {
            for at in 5..=parts.len() {
                let mut observed = observed();
                for (number, part) in parts.iter().enumerate() {
                    observed.push(part);
                    // A search finds a direction's key when it has sent a record with it, and is
                    // asked again.
                    if number + 1 >= at {
                        if by_memory {
                            search(&mut observed, &talk)
                        } else {
                            secrets(&mut observed, &talk).into()
                        };
                    }
                }
                let speaks = observed.connection.speaks();
                let (lines, scratch) = observed.finish();
                assert_eq!((&lines, speaks), (&clear, Speaks::Kafka), "{by_memory} {at}");
                assert!(scratch.counters.lost().all(|(_, count)| count == 0), "{by_memory} {at}");
            }
        }
    }
}

#[test]
fn what_is_not_to_be_read_or_has_no_key_is_counted() {
    let mut talk = Talk::tls13(AES_256);
    let parts = parts(&mut talk, &conversation());
    let (lines, scratch) = {
        let mut unread = Observed::default();
        parts.iter().for_each(|part| unread.push(part));
        assert_eq!(unread.connection.speaks(), Speaks::Tls);
        unread.finish()
    };
    assert_eq!((lines.len(), lost(&scratch, Lost::Tls)), (0, 1));

    let mut keyless = observed();
    parts.iter().for_each(|part| keyless.push(part));
    assert!(keyless.connection.held_bytes() > 1000);
    let Observed { connection, scratch, lines, .. } = &mut keyless;
    connection.give_up_tls(Closed::NoKey, scratch, lines);
    connection.give_up_tls(Closed::NoKey, scratch, lines);
    assert_eq!(connection.tls_unread().unwrap().to_string(), "tls_no_key aes-gcm");
    assert!(connection.held_bytes() < 1000 && connection.tls().is_none());
    let (lines, scratch) = keyless.finish();
    assert_eq!((lines.len(), lost(&scratch, Lost::TlsNoKey), lost(&scratch, Lost::Tls)), (0, 1, 0));
}

/// The response has passed and was lost here, so whether the broker refused is not known.
#[test]
fn a_response_that_was_lost_is_no_failure() {
    let mut talk = Talk::tls13(AES_256);
    let parts = parts(&mut talk, &conversation());
    let mut observed = observed();
    // All but the last response, which is two records.
    let (before, response) = parts.split_at(parts.len() - 2);
    for (number, part) in before.iter().enumerate() {
        observed.push(part);
        if number == 5 {
            assert!(secrets(&mut observed, &talk));
        }
    }
    let end = response[1].seq.wrapping_add(response[1].bytes.len() as u32);
    let next = before.iter().rfind(|part| part.direction == Direction::ToBroker).unwrap();
    let seq = next.seq.wrapping_add(next.bytes.len() as u32);
    observed.close(&Part { direction: Direction::ToBroker, seq, ack: Some(end), syn: false, bytes: vec![] });
    let Observed { connection, scratch, lines, .. } = &mut observed;
    connection.end(scratch, lines);
    let (lines, _) = observed.finish();
    assert!(lines.iter().all(|line| !line.contains("error=13")), "{lines:?}");
    assert_eq!(lines.len(), reported(&conversation()[..4]).len());
}
