//! Capture files built by hand: formats, byte orders, clocks, and files that end early.

use std::io::Write;

use etherparse::PacketBuilder;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::blocks::TLS_KEY_LOG;
use super::*;
use crate::capture::PortSet;
use crate::seen::{ConnectionId, Direction, Segment};

const RAW_IP: u32 = 101;

fn tcp(to_broker: bool, seq: u32, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if to_broker { (40000, 9092) } else { (9092, 40000) };
    let mut out = Vec::new();
    PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64)
        .tcp(from, to, seq, 1000)
        .ack(1)
        .write(&mut out, payload)
        .unwrap();
    out
}

/// A pcap file with one packet a second, the fraction being its index.
fn pcap(magic: u32, big_endian: bool, packets: &[Vec<u8>]) -> Vec<u8> {
    let word = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let version = if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut file = [word(magic), version, word(0), word(0), word(65535), word(RAW_IP)].concat();
    for (index, packet) in (0..).zip(packets) {
        let len = u32::try_from(packet.len()).unwrap();
        file.extend([word(100 + index), word(index), word(len), word(len)].concat());
        file.extend(packet);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

fn interface(resolution: u8) -> Vec<u8> {
    block(1, &[101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0])
}

fn enhanced(interface: u32, ticks: u64, packet: &[u8]) -> Vec<u8> {
    let len = u32::try_from(packet.len()).unwrap().to_le_bytes();
    let high = u32::try_from(ticks >> 32).unwrap().to_le_bytes();
    let low = u32::try_from(ticks & 0xffff_ffff).unwrap().to_le_bytes();
    block(6, &[&interface.to_le_bytes()[..], &high, &low, &len, &len, packet].concat())
}

/// What a file gave: events in short, and how it ended.
fn read(file: Vec<u8>) -> (Vec<String>, Result<FileCounters, FileError>) {
    let mut seen = Vec::new();
    let mut file = match CaptureFile::new("test".to_owned(), Cursor::new(file)) {
        Ok(file) => file,
        Err(error) => return (seen, Err(error)),
    };
    let mut connections = Connections::new(PortSet::default());
    let mut each = |event: Event<'_>| {
        seen.push(match event {
            Event::Opened { connection: ConnectionId(id), owner: None, .. } => format!("open {id}"),
            Event::Segment(Segment { push, .. }) => {
                let arrow = if push.direction == Direction::ToBroker { '>' } else { '<' };
                format!("{arrow}{} {} @{}", push.seq, push.bytes.len(), push.time_ns)
            }
            Event::Closed { connection: ConnectionId(id) } => format!("close {id}"),
            other => format!("{other:?}"),
        });
    };
    let end = file.run(&mut connections, &AtomicBool::new(false), &mut each);
    let mut counters = file.counters();
    connections.finish(&mut counters, &mut each);
    (seen, end.map(|()| counters))
}

fn two() -> Vec<Vec<u8>> {
    vec![tcp(true, 10, b"hello"), tcp(false, 20, b"hi")]
}

#[test]
fn pcap_in_both_byte_orders_and_precisions() {
    let micros = ["open 1", ">10 5 @100000000000", "<20 2 @101000001000"];
    let nanos = ["open 1", ">10 5 @100000000000", "<20 2 @101000000001"];
    for (magic, expected) in [(0xa1b2_c3d4, micros), (0xa1b2_3c4d, nanos)] {
        for big_endian in [false, true] {
            let (seen, end) = read(pcap(magic, big_endian, &two()));
            assert_eq!(seen, expected);
            assert_eq!(end.unwrap().packets, 2);
        }
    }
}

#[test]
fn pcapng_with_clocks_of_each_interface_and_several_sections() {
    let [request, response] = [&two()[0], &two()[1]].map(Clone::clone);
    let file = [
        section(),
        interface(6),
        interface(9),
        interface(0x80 | 10),
        block(0xbad, b"unknown blocks are skipped"),
        enhanced(0, 100_000_001, &request),
        enhanced(1, 100_000_000_002, &response),
        enhanced(2, 100 * 1024 + 512, &response),
        block(3, &[&u32::try_from(request.len()).unwrap().to_le_bytes()[..], &request].concat()),
        section(),
        interface(9),
        enhanced(0, 7, &response),
    ]
    .concat();
    let expected = [
        "open 1",
        ">10 5 @100000001000",
        "<20 2 @100000000002",
        "<20 2 @100500000000",
        ">10 5 @100500000000",
        "<20 2 @7",
    ];
    assert_eq!(read(file).0, expected);
}

fn secrets(kind: u32, text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    block(0xa, &[&kind.to_le_bytes()[..], &len.to_le_bytes(), text].concat())
}

/// With the byte order of the other kind of machine: all words of what is above, with the text as
/// it is.
fn swapped(file: &[u8], text: &[u8]) -> Vec<u8> {
    let at = file.windows(text.len()).position(|window| window == text).unwrap();
    let mut file = file.to_vec();
    let (words, rest) = file.split_at_mut(at);
    words.as_chunks_mut::<4>().0.iter_mut().for_each(|word| word.reverse());
    let end = rest.len() - 4;
    rest[end..].reverse();
    // The version is two halves.
    words[12..16].copy_from_slice(&[0, 1, 0, 0]);
    file
}

#[test]
fn secrets_go_to_the_key_log_before_the_packets_behind_them() {
    let line = |number: u8| {
        let random = format!("{number:02x}").repeat(32);
        format!("CLIENT_RANDOM {random} {}\n", "77".repeat(48))
    };
    // Without an end of the last line, and of a length that is padded.
    let text = format!("# two\r\n{}{}", line(1), line(2).trim_end());
    assert_ne!(text.len() % 4, 0);
    let one = [
        section(),
        interface(6),
        secrets(TLS_KEY_LOG, text.as_bytes()),
        // of SSH, and of a type that no one has
        secrets(0x5353_484b, line(8).as_bytes()),
        secrets(7, line(9).as_bytes()),
        enhanced(0, 1, &two()[0]),
        secrets(TLS_KEY_LOG, line(3).as_bytes()),
        enhanced(0, 2, &two()[1]),
    ];
    let known = |log: &SharedKeyLog| -> Vec<u8> {
        log.read(|log| (0..10).filter(|number| log.secrets(&[*number; 32]).is_some()).collect())
    };
    let log = SharedKeyLog::default();
    let file = CaptureFile::new("test".to_owned(), Cursor::new(one.concat())).unwrap();
    let mut file = file.with_key_log(Arc::clone(&log));
    let mut seen = Vec::new();
    file.run(&mut Connections::new(PortSet::default()), &AtomicBool::new(false), |event| {
        if matches!(event, Event::Segment(_)) {
            seen.push((known(&log), log.version()));
        }
    })
    .unwrap();
    assert_eq!(seen, [(vec![1, 2], 1), (vec![1, 2, 3], 2)]);
    // Written on a machine of the other byte order, and by who has not asked for secrets.
    let big = swapped(&[section(), secrets(TLS_KEY_LOG, text.as_bytes())].concat(), text.as_bytes());
    let log = SharedKeyLog::default();
    let file = CaptureFile::new("test".to_owned(), Cursor::new(big)).unwrap();
    let end = file.with_key_log(Arc::clone(&log)).run(
        &mut Connections::new(PortSet::default()),
        &AtomicBool::new(false),
        |_| {},
    );
    assert_eq!((end.is_ok(), known(&log)), (true, vec![1, 2]));
    assert_eq!(read(one.concat()).0.len(), 3);
    // Cut within the secrets.
    let cut = [section(), one[2][..one[2].len() - 30].to_vec()].concat();
    assert!(matches!(read(cut).1, Err(FileError::Cut { .. })));
}

#[test]
fn gzip_is_told_by_its_magic_number() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&pcap(0xa1b2_c3d4, false, &two())).unwrap();
    let whole = gzip.finish().unwrap();
    assert_eq!(read(whole.clone()).0.len(), 3);
    let cut = whole[..whole.len() - 12].to_vec();
    assert!(matches!(read(cut).1, Err(FileError::Cut { .. })));
}

#[test]
fn a_cut_file_gives_what_was_whole() {
    let file = pcap(0xa1b2_c3d4, false, &two());
    for cut in [1, 20, 41, 50] {
        let (seen, end) = read(file[..file.len() - cut].to_vec());
        assert_eq!(seen.len(), 2, "without the last {cut} bytes");
        assert!(matches!(end, Err(FileError::Cut { packets: 1, .. })), "{end:?}");
    }
}

#[test]
fn what_is_no_capture_file_is_refused() {
    assert!(matches!(read(vec![]).1, Err(FileError::Empty { .. })));
    for bytes in [&b"x"[..], b"#!/bin/sh\necho hello\n", &[0x1f, 0x8b, 8], &PCAPNG, &PCAP[0]] {
        let (seen, end) = read(bytes.to_vec());
        assert!(seen.is_empty());
        assert!(matches!(end, Err(FileError::NotACapture { .. })), "{bytes:?}: {end:?}");
    }
}

#[test]
fn a_block_that_claims_too_much_is_damage_or_a_cut() {
    let mut file = pcap(0xa1b2_c3d4, false, &two());
    let second = 24 + 16 + two()[0].len();
    file[second + 8..second + 12].copy_from_slice(&0x7000_0000_u32.to_le_bytes());
    let (seen, end) = read(file.clone());
    assert_eq!(seen.len(), 2);
    assert!(matches!(end, Err(FileError::Cut { .. } | FileError::Damaged { .. })), "{end:?}");
}

/// A packet between a client of its own address and the broker, with flags beside ACK.
fn between(client: [u8; 4], to_broker: bool, (seq, ack): (u32, u32), syn: bool, payload: &[u8]) -> Vec<u8> {
    let ((from, to), ports) = match to_broker {
        true => ((client, [10, 0, 0, 2]), (40000, 9092)),
        false => (([10, 0, 0, 2], client), (9092, 40000)),
    };
    let mut headers = PacketBuilder::ipv4(from, to, 64).tcp(ports.0, ports.1, seq, 1000);
    if syn {
        headers = headers.syn();
    }
    if ack > 0 {
        headers = headers.ack(ack);
    }
    let mut out = Vec::new();
    headers.write(&mut out, payload).unwrap();
    out
}

/// A conversation with the same numbers as every other one.
fn conversation(client: u8, said: &[(bool, &str)]) -> Vec<Vec<u8>> {
    let client = [10, 0, 1, client];
    let (mut asked, mut answered) = (1001, 5001);
    let mut packets = vec![
        between(client, true, (1000, 0), true, b""),
        between(client, false, (5000, 1001), true, b""),
        between(client, true, (1001, 5001), false, b""),
    ];
    for (to_broker, text) in said {
        let len = u32::try_from(text.len()).unwrap();
        let numbers = if *to_broker { (asked, answered) } else { (answered, asked) };
        packets.push(between(client, *to_broker, numbers, false, text.as_bytes()));
        *(if *to_broker { &mut asked } else { &mut answered }) += len;
    }
    packets
}

/// What a file of these packets gives, without the times; and the packets that were there already.
fn without_times(packets: &[Vec<u8>]) -> (Vec<String>, u64) {
    let (seen, end) = read(pcap(0xa1b2_3c4d, false, packets));
    let seen = seen.iter().map(|line| line.split(" @").next().unwrap().to_owned()).collect();
    (seen, end.unwrap().duplicates)
}

/// Two that began alike, but say something else: at once, in an answer, or later. Synthetic
/// captures have such.
#[test]
fn connections_that_begin_alike_are_two_if_their_bytes_differ() {
    let one: [(bool, &str); 4] = [(true, "hello"), (false, "welcome"), (true, "one"), (false, "uno")];
    for differs in 0..one.len() {
        let mut other = one;
        other[differs].1 = ["HELLO, you", "WELCOME", "ONE", "UNO"][differs];
        let packets = [conversation(1, &one), conversation(2, &other)];
        let interleaved: Vec<_> =
            packets[0].iter().zip(&packets[1]).flat_map(|(a, b)| [a, b]).cloned().collect();
        // What is the same in both as far as the beginning goes is given for one alone.
        let shared = if differs < 2 { 0 } else { differs };
        for packets in [packets.concat(), interleaved] {
            // A second apart, they are not even looked at: so closer here.
            let file = pcap(0xa1b2_3c4d, false, &packets);
            let (seen, end) = read(at_once(file));
            let data = seen.iter().filter(|line| !line.contains(" 0 ") && !line.starts_with("open")).count();
            let opened = seen.iter().filter(|line| line.starts_with("open")).count();
            assert_eq!((opened, data), (2, 2 * one.len() - shared), "{differs}: {seen:?}");
            assert_eq!(end.unwrap().duplicates > 0, shared > 0);
        }
    }
    // A second apart they are two whatever they say.
    let packets = [conversation(1, &one), conversation(2, &one)].concat();
    assert_eq!(without_times(&packets).1, 0);
    // A moment apart they are one.
    let (seen, end) = read(at_once(pcap(0xa1b2_3c4d, false, &packets)));
    assert_eq!((seen.len(), end.unwrap().duplicates), (1 + 7, 7));
}

/// The same file with all packets within one second.
fn at_once(mut file: Vec<u8>) -> Vec<u8> {
    let mut at = 24;
    while at < file.len() {
        let len = u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
        file[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
        at += 16 + len;
    }
    file
}

/// Hostile: as many connections as there may be, all of which begin alike.
#[test]
fn what_is_held_of_connections_that_may_be_copies_is_bounded() {
    let big = "x".repeat(60_000);
    let mut connections = Connections::new(PortSet::default());
    let mut counters = FileCounters::default();
    let mut given = 0;
    for client in 0..200_u8 {
        for packet in conversation(client, &[(true, "hello"), (true, &big), (true, &big), (true, &big)]) {
            let packet = packet::parse(Linktype::RAW, &packet, packet.len()).unwrap();
            connections.take(&packet, 1, &mut counters, &mut |_| given += 1);
        }
        assert!(connections.copies.held_bytes <= copies::MAX_HELD_BYTES + (1 << 20));
    }
    connections.finish(&mut counters, |_| given += 1);
    assert_eq!(connections.copies.held_bytes, 0);
    assert!(given > 1000);
}

#[test]
fn a_file_larger_than_the_buffer_streams() {
    let packets: Vec<_> = (0..60_u32).map(|n| tcp(true, n * 60_000, &[7; 60_000])).collect();
    let (seen, end) = read(pcap(0xa1b2_c3d4, false, &packets));
    assert_eq!((seen.len(), end.unwrap().packets), (61, 60));
}
