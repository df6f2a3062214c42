//! What a full queue does, with batches and without.

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::hop::samples;

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3600);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn take_all(receiver: &mut Receiver) -> usize {
    let (mut hops, mut count) = (Hops::default(), 0);
    while runtime().block_on(receiver.take(&mut hops, 10, SOON)) {
        count += hops.len();
        receiver.begin(hops.len());
    }
    count
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (sender, mut hops, counters) = queue("test", 2, WhenFull::Drop);
    for _ in 0..5 {
        sender.send(samples::sent());
    }
    assert_eq!(
        counters.lost(),
        [
            (Reason::ExportQueueFull, 3),
            (Reason::ExportFailed, 0),
            (Reason::ExportRefused, 0),
            (Reason::TraceCut, 0)
        ]
    );
    drop(sender);
    assert_eq!(take_all(&mut hops), 2);
}

#[test]
fn what_is_taken_and_not_begun_counts_against_the_bound() {
    let (sender, mut receiver, counters) = queue("test", 2, WhenFull::Drop);
    let mut hops = Hops::default();
    (0..2).for_each(|_| sender.send(samples::sent()));
    assert!(runtime().block_on(receiver.take(&mut hops, 2, NEVER)));
    sender.send(samples::sent());
    receiver.begin(1);
    (0..2).for_each(|_| sender.send(samples::sent()));
    assert_eq!((hops.len(), receiver.end()), (2, 1));
    assert_eq!(
        counters.lost(),
        [
            (Reason::ExportQueueFull, 2),
            (Reason::ExportFailed, 0),
            (Reason::ExportRefused, 0),
            (Reason::TraceCut, 0)
        ]
    );
}

#[test]
fn waiting_loses_nothing() {
    let (sender, mut hops, counters) = queue("test", 2, WhenFull::Wait);
    let second = sender.clone();
    let producers = [sender, second]
        .map(|sender| std::thread::spawn(move || (0..100).for_each(|_| sender.send(samples::sent()))));
    assert_eq!(take_all(&mut hops), 200);
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    assert_eq!(
        counters.lost(),
        [
            (Reason::ExportQueueFull, 0),
            (Reason::ExportFailed, 0),
            (Reason::ExportRefused, 0),
            (Reason::TraceCut, 0)
        ]
    );
}

#[test]
fn a_sink_that_has_ended_keeps_no_producer() {
    let (sender, receiver, counters) = queue("test", 1, WhenFull::Wait);
    sender.send(samples::sent());
    let producer = std::thread::spawn(move || sender.send(samples::sent()));
    drop(receiver);
    producer.join().unwrap();
    assert_eq!(counters.waiting(), 1);
}

#[test]
fn nothing_comes_in_behind_the_end() {
    let (sender, receiver, counters) = queue("test", 8, WhenFull::Drop);
    sender.send(samples::sent());
    assert_eq!(receiver.end(), 1);
    // Else nobody would count it: the sink has just counted what was there.
    sender.send(samples::sent());
    assert_eq!((receiver.end(), counters.waiting()), (1, 1));
}

fn batches(spans: usize, bytes: usize, when_full: WhenFull) -> (Sender, Receiver, Arc<Counters>) {
    bounded("test", Bounds { spans, bytes, batch: Some(2) }, when_full)
}

fn offsets(batch: &Batch) -> Vec<i64> {
    batch.hops.iter().filter_map(|hop| hop.passage.offset).collect()
}

fn at(offset: i64) -> Hop {
    let mut hop = samples::sent();
    hop.passage.offset = Some(offset);
    hop
}

#[test]
fn what_is_given_back_comes_first_and_gives_way_first() {
    let (sender, mut receiver, counters) = batches(6, usize::MAX, WhenFull::Drop);
    let take = |receiver: &mut Receiver| runtime().block_on(receiver.take_batch(NEVER)).unwrap();
    (0..6).for_each(|offset| sender.send(at(offset)));
    let first = take(&mut receiver);
    assert_eq!(offsets(&first), [0, 1]);
    receiver.give_back(first);
    let first = take(&mut receiver);
    assert_eq!(offsets(&first), [0, 1]);
    // In the sink's hands it does not give way; the oldest behind it does.
    sender.send(at(6));
    assert_eq!((counters.queue_full(), counters.waiting()), (2, 5));
    receiver.give_back(first);
    sender.send(at(7));
    sender.send(at(8));
    assert_eq!((counters.queue_full(), counters.waiting()), (4, 5));
    for expected in [vec![4, 5], vec![6, 7]] {
        let batch = take(&mut receiver);
        assert_eq!(offsets(&batch), expected);
        receiver.done(&batch);
        counters.deliver(batch.hops.len());
    }
    assert_eq!((counters.waiting(), receiver.end()), (1, 1));
}

#[test]
fn part_of_a_batch_can_be_done_with() {
    let (sender, mut receiver, counters) = batches(6, usize::MAX, WhenFull::Drop);
    (0..2).for_each(|offset| sender.send(at(offset)));
    let batch = runtime().block_on(receiver.take_batch(NEVER)).unwrap();
    let rest = receiver.done_with(&batch, 1);
    assert_eq!(offsets(&rest), [1]);
    sender.send(at(2));
    receiver.give_back(rest);
    assert_eq!((counters.queue_full(), receiver.end()), (0, 2));
}

/// The specification's queue and batch, one as long as the other.
#[test]
fn there_is_room_beside_a_batch_that_is_on_its_way() {
    let bounds = Bounds { spans: 9, bytes: usize::MAX, batch: Some(9) };
    let (sender, mut receiver, counters) = bounded("test", bounds, WhenFull::Drop);
    (0..9).for_each(|offset| sender.send(at(offset)));
    let batch = runtime().block_on(receiver.take_batch(NEVER)).unwrap();
    assert_eq!(offsets(&batch), [0, 1, 2]);
    receiver.give_back(batch);
    sender.send(at(9));
    // The oldest batch gives way, and no more than it.
    assert_eq!((counters.queue_full(), counters.waiting()), (3, 7));
}

#[test]
fn a_queue_is_bounded_by_bytes_too() {
    let bytes = samples::sent().passage.bytes();
    let (sender, receiver, counters) = batches(100, 4 * bytes, WhenFull::Drop);
    (0..7).for_each(|offset| sender.send(at(offset)));
    assert_eq!((counters.queue_full(), receiver.end()), (4, 3));
}

#[test]
fn a_full_queue_of_batches_can_wait() {
    let (sender, mut receiver, counters) = batches(2, usize::MAX, WhenFull::Wait);
    let producer = std::thread::spawn(move || (0..100).for_each(|offset| sender.send(at(offset))));
    let mut got = Vec::new();
    while let Some(batch) = runtime().block_on(receiver.take_batch(SOON)) {
        got.extend(offsets(&batch));
        receiver.done(&batch);
    }
    producer.join().unwrap();
    assert!(got.iter().copied().eq(0..100) && counters.queue_full() == 0);
}
