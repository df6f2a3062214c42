//! Few bytes that hold many: what is inflated in vain, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kafka_protocol::records::Compression;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::counters::{Lost, Malformed};
use ktrace_kafka::room::Room;
use ktrace_kafka::{Limits, Scratch};

use crate::conversation::*;
use crate::{lost, refused};

const MIB: usize = 1 << 20;
const SECOND_NS: u64 = 1_000_000_000;

/// Grants up to a limit, and knows how much was taken at most.
struct Limited {
    limit: usize,
    taken: AtomicUsize,
    peak: AtomicUsize,
}

impl Limited {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }
}

impl Room for Limited {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.taken.load(Ordering::Relaxed) + bytes;
        if taken > self.limit {
            return false;
        }
        self.taken.store(taken, Ordering::Relaxed);
        self.peak.fetch_max(taken, Ordering::Relaxed);
        true
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A zstd batch that claims `count` records, and has these bytes in their place, more than
/// once.
fn zstd(count: i32, once: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..times {
        std::io::Write::write_all(&mut encoder, once).unwrap();
    }
    let inner = encoder.finish().unwrap();
    let mut set = batch(&three(0), Compression::None)[..61].to_vec();
    set[8..12].copy_from_slice(&(49 + inner.len() as u32).to_be_bytes());
    set[21..23].copy_from_slice(&4_i16.to_be_bytes());
    set[57..61].copy_from_slice(&count.to_be_bytes());
    set.extend(inner);
    set
}

/// A record of a value of zeros, as it stands in a batch.
fn record_of_zeros(value: usize) -> Vec<u8> {
    batch(&[record(0, None, Some(value), &[])], Compression::None)[61..].to_vec()
}

/// Messages that were reported, and what was counted, where each of these sets is sent at its time.
fn of_all(sets: &[(u64, &[u8])], room: &Arc<Limited>) -> (usize, Scratch) {
    let mut observed = Observed::default();
    let room = Arc::clone(room);
    observed.scratch = Scratch::within(Limits::default(), Extractor::default(), room);
    let said: Vec<_> = sets.iter().map(|(_, set)| client(produce(9, 1, 0, set.to_vec().into()))).collect();
    let parts = segments(&said, 5, |len| len);
    let shaken = parts.len() - sets.len();
    for (index, part) in parts.iter().enumerate() {
        if let Some((time_ns, _)) = index.checked_sub(shaken).and_then(|index| sets.get(index)) {
            observed.wait_until(*time_ns);
        }
        observed.push(part);
    }
    let (lines, scratch) = observed.finish();
    (lines.len(), scratch)
}

#[test]
fn most_bombs_are_known_by_their_first_bytes() {
    let room = Limited::new(usize::MAX);
    let bomb = zstd(1, &[0; MIB], 1024);
    assert!(bomb.len() < 100_000);
    let good = zstd(1, &record_of_zeros(10), 1);
    let (messages, scratch) = of_all(&[(1, &bomb), (2, &good), (3, &bomb)], &room);
    assert_eq!((messages, refused(&scratch, Malformed::DecompressionBomb)), (1, 2));
    assert!(
        room.peak.load(Ordering::Relaxed) < 4 * MIB,
        "{room} bytes",
        room = room.peak.load(Ordering::Relaxed)
    );
    drop(scratch);
    assert_eq!(room.taken.load(Ordering::Relaxed), 0, "all is given back");
}

/// Whose first record is one, so that they are known by nothing but what comes of them.
#[test]
fn what_inflates_in_vain_is_stopped_until_some_time_has_passed() {
    let room = Limited::new(usize::MAX);
    let head = record_of_zeros(100);
    let bomb = zstd(1 << 20, &[head.clone(), vec![0xff; MIB]].concat(), 1);
    // A record that is said to go on for 120 MiB, and does, but has no end that is one.
    let long = zstd(2, &[record_of_zeros(120 * MIB), vec![0; 5]].concat(), 1);
    let good = zstd(1, &record_of_zeros(10), 1);
    let mut sets: Vec<(u64, &[u8])> = (0..10).map(|at| (at, &long[..])).collect();
    sets.extend([(11, &good[..]), (12, &bomb[..])]);
    // Sixteen mebibytes wear off in a second.
    sets.extend([(60 * SECOND_NS, &long[..]), (60 * SECOND_NS, &good[..])]);
    let (messages, scratch) = of_all(&sets, &room);
    let stopped = lost(&scratch, Lost::InflationLimit);
    // Each of them gives a record before it fails.
    // The first two, what follows when the others were stopped, and the last two.
    assert_eq!((messages, stopped), (2 + 2 + 2, 8));
}

#[test]
fn what_is_large_and_useful_goes_on() {
    let room = Limited::new(usize::MAX);
    // Values of a mebibyte of zeros: 33 bytes of each come over the wire.
    let one = zstd(1, &record_of_zeros(MIB), 1);
    let many = zstd(100, &record_of_zeros(MIB), 100);
    let sets: Vec<(u64, &[u8])> = (0..400).map(|at| (at, &one[..])).chain([(500, &many[..])]).collect();
    let (messages, scratch) = of_all(&sets, &room);
    assert_eq!((messages, lost(&scratch, Lost::InflationLimit)), (500, 0));
    assert_eq!(refused(&scratch, Malformed::DecompressionBomb), 0);
}

#[test]
fn a_batch_for_which_there_is_no_memory_is_no_bomb() {
    let room = Limited::new(60 * MIB);
    let large = zstd(100, &record_of_zeros(MIB), 100);
    let good = zstd(1, &record_of_zeros(10), 1);
    let (messages, scratch) = of_all(&[(1, &large), (2, &good), (3, &large), (4, &good)], &room);
    assert_eq!((messages, lost(&scratch, Lost::MemoryLimit)), (2, 2));
    assert_eq!(refused(&scratch, Malformed::DecompressionBomb) + lost(&scratch, Lost::InflationLimit), 0);
    assert!(room.taken.load(Ordering::Relaxed) < 20 * MIB, "no more than is kept");
}

/// What is kept for the next batch is bounded, whatever came before.
#[test]
fn what_a_large_batch_has_taken_is_given_back() {
    let room = Limited::new(usize::MAX);
    let large = zstd(100, &record_of_zeros(MIB), 100);
    let (messages, _scratch) = of_all(&[(1, &large)], &room);
    assert_eq!(messages, 100);
    let (kept, peak) = (room.taken.load(Ordering::Relaxed), room.peak.load(Ordering::Relaxed));
    assert!(peak > 100 * MIB && kept <= Limits::default().kept_bytes * 3, "{kept} of {peak}");
}
