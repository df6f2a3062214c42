//! What hostile or damaged bytes may cost.

use bytes::Bytes;
use kafka_protocol::records::Compression;
use ktrace_kafka::Limits;
use ktrace_kafka::counters::{Lost, Malformed};

use crate::conversation::*;
use crate::{lost, refused};

/// Of a batch, decompressed.
const LARGE: usize = 1 << 20;

/// A zstd batch of that size, which fails at its very end if `damaged`.
fn large(damaged: bool) -> Vec<u8> {
    let mut set = batch(&[record(0, None, Some(LARGE), &[])], Compression::Zstd).to_vec();
    if damaged {
        // Behind its frame one begins that is none.
        set.push(0xff);
        let len = u32::from_be_bytes(set[8..12].try_into().unwrap()) + 1;
        set[8..12].copy_from_slice(&len.to_be_bytes());
    }
    set
}

/// What came of `count` of them, and a good one behind them, where two may be decompressed: lines,
/// and how many were refused by the codec and as bombs.
fn of_many(set: &[u8], decompressed_bytes: usize) -> (usize, u64, u64) {
    let set = [set.repeat(20), batch(&three(0), Compression::Zstd).to_vec()].concat();
    let mut observed = Observed::default();
    observed.scratch = ktrace_kafka::Scratch::new(
        Limits { decompressed_bytes, exchange_bytes: 2 * LARGE, ..Limits::default() },
        ktrace_kafka::context::Extractor::default(),
    );
    for part in segments(&[client(produce(9, 1, 0, set.into()))], 5, |len| len) {
        observed.push(&part);
    }
    let (lines, scratch) = observed.finish();
    let (damaged, bombs) =
        (refused(&scratch, Malformed::Compression), refused(&scratch, Malformed::DecompressionBomb));
    (lines.len(), damaged, bombs)
}

#[test]
fn decompression_that_fails_costs_as_much() {
    let (lines, damaged, bombs) = of_many(&large(true), 2 * LARGE);
    assert!((1..=2).contains(&damaged), "{damaged}");
    assert_eq!((lines, damaged + bombs), (0, 21));
    // Its first record says that it will be too large: that costs so little that the good one is
    // read.
    let (lines, damaged, bombs) = of_many(&large(false), LARGE);
    assert_eq!((lines, damaged, bombs), (3, 0, 20));
}

#[test]
fn early_segments_are_shed_too() {
    let mut observed = Observed::default();
    let said = [client(produce(9, 1, -1, vec![0; 100_000].into()))];
    for (index, part) in segments(&said, 5, |len| len.min(1000)).iter().enumerate() {
        // A hole in the first.
        if index != 3 {
            observed.push(part);
        }
    }
    assert!(observed.connection.held_bytes() > 90_000);
    observed.connection.shed(&mut observed.scratch);
    assert!(observed.connection.held_bytes() < 4096, "{}", observed.connection.held_bytes());
}

/// Their heads are dropped with them where there are many.
#[test]
fn what_many_requests_hold_is_shed() {
    let mut observed = Observed::default();
    let beat = |id: i32| {
        let mut frame = [12_i16.to_be_bytes(), 0_i16.to_be_bytes()].concat();
        frame.extend(id.to_be_bytes());
        frame.extend(900_i16.to_be_bytes());
        frame.extend(format!("{id:0900}").as_bytes());
        // A group, a generation, a member.
        frame.extend(b"\0\x01g\0\0\0\x01\0\x01m");
        client(framed(&frame))
    };
    let said: Vec<_> = (0..100).map(beat).chain([broker(framed(&[0, 0, 0, 99, 0, 0]))]).collect();
    let parts = segments(&said, 5, |len| len);
    let (last, first) = parts.split_last().unwrap();
    for part in first {
        observed.push(part);
    }
    assert!(observed.connection.held_bytes() >= 100 * 900, "{}", observed.connection.held_bytes());
    observed.connection.shed(&mut observed.scratch);
    assert!(observed.connection.held_bytes() < 4096, "{}", observed.connection.held_bytes());
    // Whose response this was is not known any more.
    observed.push(last);
    assert_eq!(lost(&observed.scratch, Lost::ResponseWithoutRequest), 1);
}

#[test]
fn more_requests_than_are_kept_are_counted() {
    let said: Vec<_> = (0..1100).map(|id| client(fetch(11, id, 7, 0))).collect();
    let mut observed = Observed::default();
    for part in segments(&said, 5, |len| len) {
        observed.push(&part);
    }
    assert_eq!(lost(&observed.scratch, Lost::TooManyPending), 1100 - 1024);
}

/// Who reads committed messages is shown none that may be aborted.
#[test]
fn more_aborted_transactions_than_are_kept_are_counted() {
    let mut records = three(7);
    for record in &mut records {
        (record.transactional, record.producer_id, record.producer_epoch) = (true, 1, 0);
    }
    let set: Bytes =
        [batch(&records, Compression::None), batch(&three(10), Compression::None)].concat().into();
    for (count, reported, counted) in [(1 << 16, 6, 0), ((1 << 16) + 1, 3, 1)] {
        let aborted: Vec<_> = (0..count).map(|index| (5, 1000 + index)).collect();
        let said = [client(fetch(11, 1, 7, 1)), broker(fetched(11, 1, set.clone(), &aborted))];
        let mut observed = Observed::default();
        for part in segments(&said, 5, |len| len) {
            observed.push(&part);
        }
        let (lines, scratch) = observed.finish();
        let fetched = lines.iter().filter(|line| line.starts_with("fetched")).count();
        assert_eq!((fetched, lost(&scratch, Lost::TooManyAborted)), (reported, counted), "{count}");
    }
}
