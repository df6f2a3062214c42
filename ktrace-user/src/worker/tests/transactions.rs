//! Transactions: what became of messages, as markers and producers say.

use super::groups::{Talk, fetched_batches, fetched_of, logged};
use super::*;

/// A batch of the producer 5, transactional.
pub fn transactional() -> Vec<u8> {
    let mut batch = batch(&[]);
    batch[22] |= 0x10;
    batch[43..51].copy_from_slice(&5_i64.to_be_bytes());
    batch
}

/// The marker that ends its transaction: a control batch whose key is (version 0, type 1 or 0).
pub fn marker(commits: bool) -> Vec<u8> {
    let mut batch = transactional();
    batch[22] |= 0x20;
    // Length, attributes, time, offset, key, no value, no headers.
    batch.truncate(61);
    batch.extend([20, 0, 0, 0, 8, 0, 0, 0, u8::from(commits), 1, 0]);
    let len = batch.len() as u32 - 12;
    batch[8..12].copy_from_slice(&len.to_be_bytes());
    batch
}

/// EndTxn v0.
fn ended(id: i32, committed: bool) -> (Vec<u8>, Vec<u8>) {
    let body = [&text("txn")[..], &5_i64.to_be_bytes(), &[0, 0], &[u8::from(committed)]].concat();
    let request = framed(&[&[0, 26, 0, 0], &id.to_be_bytes(), &text("me"), &body]);
    (request, framed(&[&id.to_be_bytes(), &[0, 0, 0, 0], &[0, 0]]))
}

fn sent(id: i32, offset: i64) -> (Vec<u8>, Vec<u8>) {
    let (plain, marked) = (batch(&[]), transactional());
    let mut request = produce(id, "orders", &[]);
    let at = request.len() - plain.len();
    request[at..].copy_from_slice(&marked);
    (request, produced(id, "orders", offset))
}

#[test]
fn each_message_waits_for_its_own_marker() {
    let mut talk = Talk::new();
    // Far more in one answer than anybody would keep.
    let count = 10_000;
    let batches = (0..count).flat_map(|number| {
        [logged(number * 2, transactional()), logged(number * 2 + 1, marker(number % 3 == 0))]
    });
    let batches: Vec<_> = batches.collect();
    talk.say(11, |id| fetched_batches(id, 0, &batches[..2000].concat()));
    talk.say(11, |id| fetched_batches(id, 2000, &batches[2000..].concat()));
    let expected: Vec<_> = (0..count)
        .map(|number| {
            format!("poll @{} in={}", number * 2, if number % 3 == 0 { "committed" } else { "aborted" })
        })
        .collect();
    assert_eq!(talk.told(), expected);
}

#[test]
fn a_marker_that_was_passed_over_decides_nothing() {
    let mut talk = Talk::new();
    talk.say(11, |id| fetched_batches(id, 0, &logged(0, transactional())));
    // The consumer goes on elsewhere: the marker of the first lies between.
    let elsewhere = [logged(50, transactional()), logged(51, marker(true))].concat();
    talk.say(11, |id| fetched_batches(id, 50, &elsewhere));
    assert_eq!(talk.told(), ["poll @0 in=unknown", "poll @50 in=committed"]);
    // Its end does not come.
    talk.say(11, |id| fetched_batches(id, 52, &logged(52, transactional())));
    assert_eq!(talk.told().len(), 2);
    talk.watched.wait(11_000_000_000);
    assert_eq!(talk.told()[2], "poll @52 in=open");
}

/// Each time the client goes elsewhere, all that waits is looked through.
#[test]
fn past_many_places_that_were_left_an_exchange_is_not_followed() {
    let mut talk = Talk::new();
    // Their records lie behind the ends that they name.
    let lies = |offset| {
        let mut batch = logged(offset, transactional());
        batch[61 + 3] = 20;
        batch
    };
    let hops: Vec<_> = (0..=300).map(|number| (0, 5, lies(number % 2))).collect();
    talk.say(11, |id| fetched_of(id, &hops));
    talk.watched.wait(300_000_000);
    let told = talk.told();
    assert_eq!((told.len(), &*told[300]), (301, "poll @10 in=unknown"));
    // The next one is.
    talk.say(11, |id| fetched_batches(id, 301, &logged(301, transactional())));
    assert_eq!(talk.told().len(), 301);
}

#[test]
fn of_too_many_partitions_the_ends_of_transactions_are_unknown() {
    let mut talk = Talk::new();
    let partitions: Vec<_> = (0..1500).map(|partition| (partition, 0, logged(0, transactional()))).collect();
    talk.say(11, |id| fetched_of(id, &partitions));
    talk.watched.wait(300_000_000);
    let places = talk.watched.worker.connections[&ConnectionId(11)].state.transactions.partitions();
    assert_eq!((places, talk.told().len()), (1500 - 1024, 1024));
    assert!(talk.told().iter().all(|told| told == "poll @0 in=unknown"));
}

#[test]
fn a_producer_tells_itself() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 7));
    assert!(talk.told().is_empty());
    talk.say(2, |id| ended(id, false));
    talk.say(1, |id| sent(id, 9));
    talk.say(2, |id| ended(id, true));
    assert_eq!(talk.told(), ["send @7 in=aborted", "send @9 in=committed"]);
}

/// InitProducerId v0: a producer of this transactional id begins anew, with the same producer id.
fn begins_anew(id: i32) -> (Vec<u8>, Vec<u8>) {
    let request =
        framed(&[&[0, 22, 0, 0], &id.to_be_bytes(), &text("me"), &text("txn"), &[0, 0, 0xea, 0x60]]);
    (request, framed(&[&id.to_be_bytes(), &[0; 4], &[0, 0], &5_i64.to_be_bytes(), &[0, 1]]))
}

#[test]
fn a_transaction_that_was_left_is_not_the_next() {
    let mut talk = Talk::new();
    talk.say(1, |id| sent(id, 7));
    talk.say(2, begins_anew);
    assert_eq!(talk.told(), ["send @7 in=unknown"]);
    talk.say(1, |id| sent(id, 9));
    talk.say(2, |id| ended(id, true));
    assert_eq!(talk.told()[1], "send @9 in=committed");
}

#[test]
fn an_end_that_may_have_been_missed_decides_nothing() {
    let mut talk = Talk::new();
    talk.say(2, begins_anew);
    talk.say(1, |id| sent(id, 7));
    // Something of the coordinator's connection is missing.
    let (client, broker) = talk.at[&2];
    talk.at.insert(2, (client + 60, broker + 20));
    talk.say(2, |id| ended(id, true));
    talk.watched.wait(11_000_000_000);
    talk.watched.wait(11_000_000_000);
    assert_eq!(talk.told(), ["send @7 in=unknown"]);
}
