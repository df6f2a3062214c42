//! What is lost of a direction is said at once, not with the next record that opens.

use ktrace_tls::Sender;
use ktrace_tls::session::{Closed, Session};

use crate::wire::*;
use crate::{AES_256, feed};

const NONE: [bool; 2] = [false; 2];
const CLIENT: [bool; 2] = [true, false];
const SERVER: [bool; 2] = [false, true];

/// A session that is open by secrets, or by keys from memory, and its talk with nothing left to
/// read.
fn open(secrets: bool) -> (Session, Talk, Heard) {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(4), 4);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    if secrets {
        session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain));
    } else {
        search(&mut session, &talk.keys[..2], &mut heard);
    }
    assert!(heard.said == talk.said);
    assert_eq!(session.take_doubts(), NONE, "nothing is lost");
    talk.chunks.clear();
    (session, talk, heard)
}

#[test]
fn a_gap_is_a_doubt_at_once_and_once() {
    let (mut session, mut talk, mut heard) = open(true);
    session.gap(Sender::Client, 100, &mut |from, plain| heard.take(from, plain));
    assert_eq!(session.take_doubts(), CLIENT);
    assert_eq!(session.take_doubts(), NONE);
    talk.say(Sender::Server, &[1; 50]);
    feed(&mut session, &talk.chunks, &mut heard);
    assert_eq!(session.take_doubts(), NONE);
}

/// The gap stands among what is held, and is a doubt when it passes, not again when it is given.
#[test]
fn a_gap_among_what_is_held() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(4), 4);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    let from = talk.chunks.last().unwrap().from;
    talk.chunks.clear();
    talk.say(from, &[1; 100]);
    talk.say(from, &[2; 100]);
    session.gap(from, talk.chunks[0].bytes.len() as u64, &mut |from, plain| heard.take(from, plain));
    feed(&mut session, &talk.chunks[1..], &mut heard);
    assert_eq!(session.take_doubts(), [from == Sender::Client, from == Sender::Server]);
    assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
    assert_eq!((session.take_doubts(), heard.gaps.len()), (NONE, 1));
}

#[test]
fn a_tag_that_fails_is_a_doubt() {
    let (mut session, mut talk, mut heard) = open(true);
    talk.say(Sender::Server, &[1; 50]);
    *talk.chunks[0].bytes.last_mut().unwrap() ^= 1;
    feed(&mut session, &talk.chunks, &mut heard);
    assert_eq!(session.take_doubts(), SERVER);
    assert!(heard.gaps.is_empty(), "no gap is given yet");
}

#[test]
fn a_key_update_is_a_doubt_until_the_next_key_is_found() {
    for (secrets, doubts) in [(true, NONE), (false, CLIENT)] {
        let (mut session, mut talk, mut heard) = open(secrets);
        talk.key_update(Sender::Client);
        feed(&mut session, &talk.chunks, &mut heard);
        assert_eq!(session.take_doubts(), doubts);
    }
}

#[test]
fn what_is_shed_or_given_up_is_a_doubt() {
    for shed in [true, false] {
        let mut talk = Talk::middle(AES_256, 9, 9);
        talk.say(Sender::Server, &[1; 50]);
        let (mut session, mut heard) = (Session::new(false), Heard::default());
        feed(&mut session, &talk.chunks, &mut heard);
        assert_eq!(session.take_doubts(), NONE, "it waits");
        if shed {
            assert!(session.shed());
        } else {
            session.give_up(Closed::NoKey, &mut |from, plain| heard.take(from, plain));
        }
        assert_eq!(session.take_doubts(), SERVER);
    }
}
