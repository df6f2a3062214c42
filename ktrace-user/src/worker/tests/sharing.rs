//! What one worker learns, all know.

use super::*;

pub const ID: [u8; 16] = [7; 16];

/// Metadata v10: the topic's id and name.
pub fn metadata() -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&[0, 3, 0, 10, 0, 0, 0, 9], &text("me"), &[0], &[0, 0, 0, 0, 0]]);
    let answer = framed(&[
        &[0, 0, 0, 9, 0],
        &[0, 0, 0, 0, 1, 0],
        &1_u32.to_be_bytes(),
        &[2, 0, 0, 7],
        b"orders",
        &ID,
        &[0, 1, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0],
    ]);
    (request, answer)
}

/// Produce v13: the topic by its id.
pub fn by_id(offset: i64) -> (Vec<u8>, Vec<u8>) {
    let batch = batch(&[]);
    let len = batch.len() + 1;
    let request = framed(&[
        &[0, 0, 0, 13, 0, 0, 0, 5],
        &text("me"),
        &[0, 0, 0xff, 0xff, 0, 0, 0, 1, 2],
        &ID,
        &[2, 0, 0, 0, 0],
        &[len as u8 & 0x7f | 0x80, (len >> 7) as u8],
        &batch,
        &[0, 0, 0],
    ]);
    let answer = framed(&[
        &[0, 0, 0, 5, 0, 2],
        &ID,
        &[2, 0, 0, 0, 0, 0, 0],
        &offset.to_be_bytes(),
        &[0xff; 8],
        &[0; 8],
        &[1, 0, 0, 0],
        &[0; 5],
    ]);
    (request, answer)
}

#[test]
fn workers_go_to_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Worker>();
    is_shared::<Shared>();
}

#[test]
fn a_name_that_another_worker_learns_releases_what_waits_for_it() {
    let shared = Arc::default();
    let mut waits = Watched::with(WorkerOptions::default(), &shared);
    let mut learns = Watched::with(WorkerOptions::default(), &shared);
    let (request, answer) = by_id(42);
    waits.talk(ends(4000), (100, 200), &request, &answer);
    assert!(waits.offsets().is_empty(), "its topic is not known");
    let (request, answer) = metadata();
    learns.talk(ends(4001), (300, 400), &request, &answer);
    assert!(waits.offsets().is_empty());
    waits.wait(SWEEP_NS);
    assert_eq!(waits.offsets(), [42]);
    waits.first(|span| assert_eq!(span.name, "send orders"));
    let (waits, learns) = (waits.worker.finish(), learns.worker.finish());
    let mut summary = crate::summary::Summary::default();
    summary.add(&waits);
    summary.add(&learns);
    summary.add_shared(&shared);
    assert_eq!((summary.connections, summary.exchanges, summary.lost.len()), (2, 2, 0));
}

#[test]
fn a_name_releases_at_the_next_segment_too() {
    let shared = Arc::default();
    let mut waits = Watched::with(WorkerOptions::default(), &shared);
    let (request, answer) = by_id(42);
    waits.talk(ends(4000), (100, 200), &request, &answer);
    let mut learns = Watched::with(WorkerOptions::default(), &shared);
    let (request, answer) = metadata();
    learns.talk(ends(4001), (300, 400), &request, &answer);
    waits.segment(ends(4000), Direction::ToBroker, 5000, 6000, &[]);
    assert_eq!(waits.offsets(), [42]);
}
