//! Messages that are sent more than once.

use super::groups::Talk;
use super::*;

/// The answer of a broker that is not the leader.
fn refused(id: i32) -> Vec<u8> {
    let mut answer = produced(id, "orders", -1);
    let at = answer.len() - 22;
    answer[at..at + 2].copy_from_slice(&6_u16.to_be_bytes());
    answer
}

/// Told after this long where no other attempt came.
const PATIENCE_NS: u64 = 31_000_000_000;

#[test]
fn attempts_that_fail_are_one_message_with_the_one_that_succeeds() {
    let mut talk = Talk::new();
    talk.say(1, |id| (produce(id, "orders", &[]), refused(id)));
    talk.say(1, |id| (produce(id, "orders", &[]), refused(id)));
    assert!(talk.told().is_empty());
    talk.say(2, |id| (produce(id, "orders", &[]), produced(id, "orders", 7)));
    assert_eq!(talk.told(), ["send @7 attempts=3"]);
    talk.watched.wait(PATIENCE_NS);
    assert_eq!(talk.told().len(), 1);
    let hops = talk.watched.hops();
    assert!(hops[0].passage.took_ns() > 4000, "from the first attempt on");
}

#[test]
fn who_gives_up_has_sent_one_message_in_vain() {
    let mut talk = Talk::new();
    talk.say(1, |id| (produce(id, "orders", &[]), refused(id)));
    talk.say(1, |id| (produce(id, "orders", &[]), refused(id)));
    talk.watched.wait(PATIENCE_NS);
    assert_eq!(talk.told(), ["send attempts=2 error=NOT_LEADER_OR_FOLLOWER"]);
}

#[test]
fn a_connection_that_is_reset_leaves_attempts() {
    let mut talk = Talk::new();
    talk.say(1, |id| (produce(id, "orders", &[]), produced(id, "orders", 6)));
    let (client, broker) = talk.at[&1];
    let request = produce(9, "orders", &[]);
    talk.watched.segment(ends(1), Direction::ToBroker, client, broker, &request);
    talk.watched.reset(ends(1), Direction::ToClient, broker, client + request.len() as u32);
    talk.say(2, |id| (produce(id, "orders", &[]), produced(id, "orders", 7)));
    assert_eq!(talk.told(), ["send @6", "send @7 attempts=2"]);
    assert_eq!(talk.watched.worker.finish().lost, [].into());
}

/// A message of an idempotent producer.
fn numbered(id: i32, sequence: i32) -> Vec<u8> {
    let mut request = produce(id, "orders", &[]);
    let at = request.len() - batch(&[]).len() + 43;
    request[at..at + 8].copy_from_slice(&7_i64.to_be_bytes());
    request[at + 8..at + 10].copy_from_slice(&0_i16.to_be_bytes());
    request[at + 10..at + 14].copy_from_slice(&sequence.to_be_bytes());
    request
}

/// Of two rings the one with the attempt that succeeds is read first.
#[test]
fn an_attempt_that_failed_and_is_read_after_the_one_that_succeeds_is_none_of_its_own() {
    let shared = Arc::default();
    let (mut fails, mut succeeds) = (Talk::with(&shared), Talk::with(&shared));
    succeeds.watched.now_ns = fails.watched.now_ns + 100_000_000;
    succeeds.say(2, |id| (numbered(id, 4), produced(id, "orders", 7)));
    assert_eq!(succeeds.told(), ["send @7"]);
    fails.say(1, |id| (numbered(id, 4), refused(id)));
    // It never went anywhere, as far as was seen.
    fails.say(1, |id| (numbered(id, 5), refused(id)));
    fails.watched.wait(PATIENCE_NS);
    assert_eq!(fails.told(), ["send error=NOT_LEADER_OR_FOLLOWER"]);
    // Sent again though it was there: as where there is one ring.
    fails.say(1, |id| (numbered(id, 4), refused(id)));
    fails.watched.wait(PATIENCE_NS);
    assert_eq!(fails.told().len(), 2);
}
