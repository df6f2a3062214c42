//! Messages that are sent more than once.

use super::groups::Talk;
use super::*;

/// The answer of a broker that is not the leader.
pub fn refused(id: i32) -> Vec<u8> {
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
