//! Message sets of before batches, and the versions of Produce and Fetch that have nothing else.

use kafka_protocol::records::Compression;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::counters::Counters;
use ktrace_kafka::counters::{Lost, Malformed};
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Limits, Partition, Scratch, Sink};

use crate::conversation::*;

const TIME: i64 = 1_700_000_000_000;

/// The three messages, with the times of magic 1 where they begin with `stamp`.
fn expected(operation: &str, base: i64, times: [i64; 3]) -> Vec<String> {
    ["key=k0 len=100", "key=null len=0", "key= len=null"]
        .iter()
        .zip(times)
        .zip(base..)
        .map(|((what, t), offset)| {
            format!("{operation} orders[2]@{offset} error=0 t={t} {what} headers=0 - by me")
        })
        .collect()
}

fn times(magic: u8) -> [i64; 3] {
    if magic == 0 { [-1; 3] } else { [TIME, TIME + 1, TIME + 2] }
}

fn talk(said: &[Said], limits: Limits) -> (Vec<String>, Counters) {
    let mut observed = Observed::default();
    observed.scratch = Scratch::new(limits, Extractor::default());
    for part in segments(said, 77, |len| len) {
        observed.push(&part);
    }
    let (lines, scratch) = observed.finish();
    (lines, scratch.counters)
}

fn refused(counters: &Counters, reason: Malformed) -> u64 {
    counters.malformed().find(|(name, _)| *name == reason).unwrap().1
}

/// All that was not shown, for whatever reason.
fn losses(counters: &Counters) -> u64 {
    counters.lost().map(|(_, count)| count).sum::<u64>() + counters.malformed().map(|(_, n)| n).sum::<u64>()
}

fn fetch_reported(from: i64, set: &[u8]) -> (Vec<String>, Counters) {
    talk(&[client(old_fetch(2, 1, from)), broker(old_fetched(2, 1, set))], Limits::default())
}

/// The offsets of what was reported.
fn offsets(lines: &[String]) -> Vec<i64> {
    lines
        .iter()
        .filter(|line| !line.starts_with("aborted"))
        .map(|line| line.split(['@', ' ']).nth(3).unwrap().parse().unwrap())
        .collect()
}

#[test]
fn produce_in_every_version_and_codec() {
    for version in 0..=2 {
        for magic in 0..=1 {
            for wrap in WRAPS {
                for written in [Offsets::Log, Offsets::Librdkafka] {
                    let said = [
                        client(old_produce(version, 1, -1, &old_set(magic, wrap, written, 0))),
                        broker(old_produced(version, 1, 1042, 0, -1)),
                    ];
                    let (lines, counters) = talk(&said, Limits::default());
                    let what = format!("v{version} magic {magic} {wrap:?} {written:?}");
                    assert_eq!(lines, expected("produced acks=-1", 1042, times(magic)), "{what}");
                    assert_eq!((losses(&counters), counters.records), (0, 3), "{what}");
                }
            }
        }
    }
}

#[test]
fn fetch_in_every_version_and_codec() {
    for version in 0..=3 {
        for magic in 0..=1 {
            for wrap in WRAPS {
                let said = [
                    client(old_fetch(version, 1, 7)),
                    broker(old_fetched(version, 1, &old_set(magic, wrap, Offsets::Log, 7))),
                ];
                let (lines, counters) = talk(&said, Limits::default());
                let what = format!("v{version} magic {magic} {wrap:?}");
                assert_eq!(lines, expected("fetched hw=50", 7, times(magic)), "{what}");
                assert_eq!((losses(&counters), counters.records), (0, 3), "{what}");
            }
        }
    }
}

#[test]
fn later_versions_may_have_them_too() {
    for version in 4..=18 {
        let set = old_set(1, Wrap::Gzip, Offsets::Log, 7);
        let said = [client(fetch(version, 1, 7, 1)), broker(fetched(version, 1, set.into(), &[(5, 2)]))];
        let (lines, counters) = talk(&said, Limits::default());
        assert_eq!((offsets(&lines), losses(&counters)), (vec![7, 8, 9], 0), "v{version}");
    }
}

#[test]
fn batches_in_the_old_versions_are_read() {
    let said = [
        client(old_produce(2, 1, 1, &batch(&three(0), Compression::Snappy))),
        broker(old_produced(2, 1, 10, 0, -1)),
        client(old_fetch(3, 2, 10)),
        broker(old_fetched(3, 2, &batch(&three(10), Compression::None))),
    ];
    assert_eq!(offsets(&reported(&said)), [10, 11, 12, 10, 11, 12]);
}

/// A wrapper without an offset: those inside count as they are.
#[test]
fn a_wrapper_of_librdkafka_in_the_log() {
    let (lines, counters) = fetch_reported(0, &old_set(1, Wrap::Snappy, Offsets::Librdkafka, 0));
    assert_eq!((lines, losses(&counters)), (expected("fetched hw=50", 0, times(1)), 0));
}

/// Compaction keeps the offsets of what is left, and the wrapper that of its last.
#[test]
fn inner_offsets_may_have_holes() {
    let message = |offset| {
        Message { magic: 1, offset, attributes: 0, timestamp: TIME, key: None, value: None }.encode()
    };
    let inner = [message(1), message(4), message(9)].concat();
    let (lines, counters) = fetch_reported(0, &wrapped(1, Wrap::Lz4, 109, TIME, &inner));
    assert_eq!((offsets(&lines), losses(&counters)), (vec![101, 104, 109], 0));
    // Sent by a producer, they count by their order.
    let said = [
        client(old_produce(2, 1, -1, &wrapped(1, Wrap::Lz4, 9, TIME, &inner))),
        broker(old_produced(2, 1, 50, 0, -1)),
    ];
    assert_eq!(offsets(&reported(&said)), [50, 51, 52]);
    // Whatever offset their wrapper has.
    let said = [
        client(old_produce(2, 1, -1, &wrapped(1, Wrap::Lz4, 1, TIME, &inner))),
        broker(old_produced(2, 1, 50, 0, -1)),
    ];
    assert_eq!(offsets(&reported(&said)), [50, 51, 52]);
}

#[test]
fn below_the_fetch_offset_a_wrappers_messages_are_dropped() {
    for magic in 0..=1 {
        for wrap in WRAPS {
            for (from, left) in [(7, &[7, 8, 9][..]), (8, &[8, 9]), (9, &[9]), (10, &[])] {
                let (lines, _) = fetch_reported(from, &old_set(magic, wrap, Offsets::Log, 7));
                assert_eq!(offsets(&lines), left, "magic {magic} {wrap:?} from {from}");
            }
        }
    }
}

#[test]
fn the_time_of_append_is_that_of_all() {
    for wrap in WRAPS {
        // The producer's times, the broker's answer.
        for magic in 0..=1 {
            let said = [
                client(old_produce(2, 1, -1, &old_set(magic, wrap, Offsets::Log, 0))),
                broker(old_produced(2, 1, 5, 0, TIME + 99)),
            ];
            assert_eq!(reported(&said), expected("produced acks=-1", 5, [TIME + 99; 3]), "{magic} {wrap:?}");
        }
        // The wrapper's bit.
        let mut set = old_set(1, wrap, Offsets::Log, 7);
        if wrap != Wrap::None {
            set[17] |= 0x08;
            let (lines, _) = fetch_reported(7, &set);
            assert_eq!(lines, expected("fetched hw=50", 7, [TIME + 2; 3]), "{wrap:?}");
        }
    }
    // Magic 0 has no such bit.
    let mut set = old_three(0, 7);
    set[17] |= 0x08;
    assert_eq!(fetch_reported(7, &set).0, expected("fetched hw=50", 7, [-1; 3]));
}

#[test]
fn a_set_may_be_cut_anywhere() {
    for wrap in [Wrap::None, Wrap::Gzip] {
        let whole = old_set(1, wrap, Offsets::Log, 7);
        let cut = old_set(0, wrap, Offsets::Log, 10);
        // The first message of the second set.
        let first = 12 + u32::from_be_bytes(cut[8..12].try_into().unwrap()) as usize;
        for keep in 0..first {
            let (lines, counters) = fetch_reported(7, &[&whole[..], &cut[..keep]].concat());
            assert_eq!((offsets(&lines), losses(&counters)), (vec![7, 8, 9], 0), "{wrap:?} {keep}");
        }
    }
}

#[test]
fn a_set_may_mix_all_formats() {
    let set = [
        old_set(0, Wrap::None, Offsets::Log, 1),
        old_set(1, Wrap::Gzip, Offsets::Log, 4),
        batch(&three(7), Compression::Zstd).to_vec(),
        old_set(0, Wrap::Lz4, Offsets::Log, 10),
        old_set(1, Wrap::None, Offsets::Log, 13),
    ]
    .concat();
    let (lines, counters) = fetch_reported(1, &set);
    assert_eq!((offsets(&lines), losses(&counters)), ((1..16).collect(), 0));
    // Several wrappers of one producer count on.
    let set = [
        old_set(1, Wrap::Gzip, Offsets::Log, 0),
        old_set(1, Wrap::None, Offsets::Log, 0),
        old_set(0, Wrap::Xerial, Offsets::Librdkafka, 0),
    ]
    .concat();
    let said = [client(old_produce(2, 1, -1, &set)), broker(old_produced(2, 1, 100, 0, -1))];
    assert_eq!(offsets(&reported(&said)), (100..109).collect::<Vec<_>>());
}

#[test]
fn no_acks_and_errors_have_no_offset() {
    let set = old_set(0, Wrap::Gzip, Offsets::Log, 0);
    let said = [
        client(old_produce(0, 1, 0, &set)),
        client(old_produce(0, 2, 1, &set)),
        broker(old_produced(0, 2, -1, 6, -1)),
    ];
    let lines = reported(&said);
    assert_eq!(offsets(&lines), [-1; 6]);
    assert!(lines[0].starts_with("produced acks=0 orders[2]@-1 error=0"), "{}", lines[0]);
    assert!(lines[3].starts_with("produced acks=1 orders[2]@-1 error=6"), "{}", lines[3]);
}

/// It is unknown how many messages a broken wrapper held, so what a broker called those behind it.
#[test]
fn behind_a_broken_wrapper_a_producers_offsets_are_not_known() {
    let mut broken = old_set(1, Wrap::Gzip, Offsets::Log, 0);
    let last = broken.len() - 1;
    broken[last] ^= 0xff;
    let plain = old_three(1, 0);
    let set = [&plain[..], &broken, &plain].concat();
    let said = [client(old_produce(2, 1, -1, &set)), broker(old_produced(2, 1, 100, 0, -1))];
    let (lines, counters) = talk(&said, Limits::default());
    assert_eq!(offsets(&lines), [100, 101, 102, -1, -1, -1]);
    assert_eq!(refused(&counters, Malformed::Compression), 1);
    // The log's own do not depend on it.
    let (lines, _) = fetch_reported(0, &set);
    assert_eq!(offsets(&lines), [0, 1, 2, 0, 1, 2]);
}

/// What a set inside a wrapper must not be; what stands behind the wrapper is reported all the same.
#[test]
fn wrappers_that_are_refused() {
    let good = old_three(1, 0);
    let wrapper = |offset, inner: &[u8]| wrapped(1, Wrap::Gzip, offset, TIME, inner);
    let mut cut = good.clone();
    cut.pop();
    let null = Message { magic: 1, offset: 9, attributes: 1, timestamp: 0, key: None, value: None }.encode();
    let with_codec = |attributes| {
        Message { magic: 1, offset: 9, attributes, timestamp: 0, key: None, value: Some(b"x") }.encode()
    };
    let behind = old_three(1, 10);
    for (what, set, reason) in [
        ("nested", wrapper(9, &wrapper(2, &good)), Malformed::Record),
        ("nested behind others", wrapper(9, &[&good[..], &wrapper(2, &good)].concat()), Malformed::Record),
        ("empty", wrapper(9, b""), Malformed::Record),
        ("cut inside", wrapper(9, &cut), Malformed::Record),
        ("a batch inside", wrapper(9, &batch(&three(0), Compression::None)), Malformed::Record),
        ("past its wrapper", wrapper(1, &good), Malformed::Record),
        ("null", null, Malformed::Compression),
        ("zstd", with_codec(4), Malformed::Batch),
        ("no codec", with_codec(7), Malformed::Batch),
    ] {
        let (lines, counters) = fetch_reported(0, &[&set[..], &behind].concat());
        assert_eq!(offsets(&lines), [10, 11, 12], "{what}");
        assert_eq!((refused(&counters, reason), losses(&counters)), (1, 1), "{what}");
    }
}

#[test]
fn a_deep_nest_is_not_descended() {
    let mut set = old_three(1, 0);
    for _ in 0..50 {
        set = wrapped(1, Wrap::Snappy, 2, TIME, &set);
    }
    let (lines, counters) = fetch_reported(0, &set);
    assert_eq!((lines.len(), refused(&counters, Malformed::Record), counters.batches), (0, 1, 1));
}

#[test]
fn unknown_magics_are_lost_and_passed_over() {
    let mut future = old_three(1, 0);
    future[16] = 3;
    let first = 12 + u32::from_be_bytes(future[8..12].try_into().unwrap()) as usize;
    let (lines, counters) = fetch_reported(0, &[&future[..first], &old_three(1, 10)].concat());
    assert_eq!(offsets(&lines), [10, 11, 12]);
    let lost = counters.lost().find(|(name, _)| *name == Lost::UnsupportedMagic).unwrap().1;
    assert_eq!((lost, losses(&counters)), (1, 1));
}

#[test]
fn the_cap_holds_inside_a_wrapper() {
    let big = vec![0; 100_000];
    let inner = Message { magic: 1, offset: 0, attributes: 0, timestamp: TIME, key: None, value: Some(&big) }
        .encode();
    for wrap in &WRAPS[1..] {
        let set = wrapped(1, *wrap, 0, TIME, &inner);
        let said = [client(old_fetch(2, 1, 0)), broker(old_fetched(2, 1, &set))];
        for (cap, count) in [(inner.len(), 1), (inner.len() - 1, 0)] {
            let limits = Limits { decompressed_bytes: cap, ..Limits::default() };
            let (lines, counters) = talk(&said, limits);
            let bombs = refused(&counters, Malformed::DecompressionBomb);
            assert_eq!((lines.len(), bombs), (count, 1 - count as u64), "{wrap:?}");
        }
        // A wrapper in a wrapper is refused before its bytes are looked at.
        let nest = wrapped(1, *wrap, 0, TIME, &set);
        let limits = Limits { decompressed_bytes: set.len(), ..Limits::default() };
        let said = [client(old_fetch(2, 1, 0)), broker(old_fetched(2, 1, &nest))];
        let (lines, counters) = talk(&said, limits);
        assert_eq!((lines.len(), refused(&counters, Malformed::Record)), (0, 1), "{wrap:?}");
    }
}

/// What a batch that stands for messages says.
#[test]
fn the_batch_that_stands_for_a_message() {
    #[derive(Default)]
    struct Seen(Vec<(i64, i32, i32, i64, i32)>);
    impl Sink for Seen {
        fn record(&mut self, _: &Head<'_>, _: &Partition<'_>, batch: &Batch<'_>, record: &Record<'_>) {
            assert_eq!((batch.producer_id, batch.producer_epoch, batch.base_sequence), (-1, -1, -1));
            assert!(!batch.is_control() && !batch.is_transactional());
            assert!(record.headers.is_empty() && record.context.context.is_none());
            self.0.push((
                batch.base_offset,
                batch.last_offset_delta,
                batch.count,
                record.offset,
                record.offset_delta,
            ));
        }
    }
    // Bits that only batches have say nothing here.
    let mut set = [old_three(0, 4), old_set(1, Wrap::Gzip, Offsets::Log, 7)].concat();
    set[17] |= 0xf8;
    let mut seen = Seen::default();
    let mut observed = Observed::default();
    for part in segments(&[client(old_fetch(2, 1, 0)), broker(old_fetched(2, 1, &set))], 77, |len| len) {
        let push = ktrace_kafka::Push {
            direction: part.direction,
            seq: part.seq,
            ack: part.ack,
            syn: part.syn,
            fin: false,
            bytes: &part.bytes,
            len: part.bytes.len() as u32,
            time_ns: 0,
        };
        observed.connection.push(&mut observed.scratch, push, &mut seen);
    }
    assert_eq!(
        seen.0,
        [
            (4, 0, 1, 4, 0),
            (5, 0, 1, 5, 1),
            (6, 0, 1, 6, 2),
            (7, 2, 3, 7, 3),
            (7, 2, 3, 8, 4),
            (7, 2, 3, 9, 5)
        ]
    );
}

/// Bytes of every kind, flipped, and lengths set to the worst: nothing panics, and what is reported has
/// a count.
#[test]
fn damaged_sets_are_counted_and_do_no_harm() {
    let mut random = Random(11);
    let mut good = vec![];
    for magic in 0..=1 {
        for wrap in WRAPS {
            good.push(old_fetched(2, 1, &old_set(magic, wrap, Offsets::Log, 7)));
        }
    }
    for round in 0..20_000 {
        let mut bad = good[round % good.len()].clone();
        for _ in 0..=random.below(3) {
            // The size and the correlation id stay.
            let at = 8 + random.below(bad.len() as u64 - 8) as usize;
            bad[at] = random.below(256) as u8;
        }
        let (lines, counters) = talk(&[client(old_fetch(2, 1, 7)), broker(bad)], Limits::default());
        // Damaged error codes are no messages.
        let messages = lines.iter().filter(|line| !line.starts_with("Refused")).count();
        assert!(messages as u64 <= counters.records, "{round}");
    }
    // Damage inside, compressed as it should be: the lengths of the inner messages.
    for round in 0..10_000_u64 {
        let magic = (round % 2) as u8;
        let mut inner = old_three(magic, 0);
        let at = random.below(inner.len() as u64 - 4) as usize;
        match round % 3 {
            0 => inner[at] = random.below(256) as u8,
            1 => inner[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes()),
            _ => inner[at..at + 4].copy_from_slice(&(-2_i32).to_be_bytes()),
        }
        let offset = [0, 2, 9, i64::MAX, i64::MIN, -1][random.below(6) as usize];
        let set = wrapped(magic, WRAPS[1 + random.below(4) as usize], offset, TIME, &inner);
        let said = [
            client(old_produce(2, 1, -1, &set)),
            broker(old_produced(2, 1, i64::MAX - 1, 0, -1)),
            client(old_fetch(2, 2, 0)),
            broker(old_fetched(2, 2, &set)),
        ];
        let (lines, counters) = talk(&said, Limits::default());
        assert!(lines.len() as u64 <= counters.records, "{round}");
    }
}

/// Attached late, in the middle of what a client of old says.
#[test]
fn begun_in_the_middle_it_finds_its_step() {
    let talk = |round: i32| {
        let (id, base) = (round * 2, i64::from(round) * 3);
        [
            client(old_produce((round % 3) as i16, id, 1, &old_set(1, Wrap::Gzip, Offsets::Log, 0))),
            broker(old_produced((round % 3) as i16, id, base, 0, -1)),
            client(old_fetch((round % 4) as i16, id + 1, base)),
            broker(old_fetched((round % 4) as i16, id + 1, &old_set(0, Wrap::None, Offsets::Log, base))),
        ]
    };
    let said: Vec<Said> = (0..40).flat_map(talk).collect();
    let whole = reported(&said);
    assert_eq!(whole.len(), 240);
    let parts = segments(&said, 9, |len| len.min(60));
    for skip in 2..parts.len() / 2 {
        let mut observed = Observed::default();
        for part in &parts[skip..] {
            observed.push(part);
        }
        let (lines, _) = observed.finish();
        assert!(lines.len() >= 108, "{skip}: {}", lines.len());
        assert!(whole.ends_with(&lines[lines.len() - 108..]), "{skip}");
        assert!(lines.iter().all(|line| whole.contains(line)), "{skip}");
    }
}
