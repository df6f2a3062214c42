//! Answers that come when what was asked about is gone.

use ktrace_tls::Sender;
use ktrace_tls::session::{Closed, Session};

use crate::wire::*;
use crate::{AES_256, CHACHA20, TLS12, feed};

/// A search that takes long proves a key with records that were shed meanwhile.
#[test]
fn a_key_that_was_proved_by_records_that_were_shed() {
    for held_since in [true, false] {
        for mut talk in [Talk::tls13(AES_256), Talk::middle(AES_256, 9, 1000), Talk::tls12(TLS12[0])] {
            let from_beginning = !talk.chunks.is_empty();
            talk.exchanges(&mut Random::new(11), 4);
            let (shed, shed_said) = (talk.chunks.len(), talk.said.len());
            talk.exchanges(&mut Random::new(12), 4);
            let (mut session, mut heard) = (Session::new(from_beginning), Heard::default());
            feed(&mut session, &talk.chunks[..shed], &mut heard);
            let found = find(&session.samples(), &talk.keys[..2]);
            assert!(session.shed());
            let mut at = shed;
            if held_since {
                at += 4;
                feed(&mut session, &talk.chunks[shed..at], &mut heard);
            }
            for key in found {
                assert!(session.take_key(key, &mut |from, plain| heard.take(from, plain)));
            }
            feed(&mut session, &talk.chunks[at..], &mut heard);
            assert!(heard.said == talk.said[shed_said..], "{:?} {held_since}", talk.client.suite);
        }
    }
}

/// The key of before is proved by a record that is gone, and the next one is looked for.
#[test]
fn a_key_of_before_an_update_is_not_taken_for_the_next() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(11), 4);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    let samples = session.samples();
    search(&mut session, &talk.keys, &mut heard);
    let before = talk.chunks.len();
    talk.key_update(Sender::Client);
    feed(&mut session, &talk.chunks[before..], &mut heard);
    for key in find(&samples, &talk.keys[..2]) {
        assert!(!session.take_key(key, &mut |_, _| panic!("nothing is given")));
    }
}

/// Beyond the numbers that are tried from zero on.
#[test]
fn secrets_open_a_connection_again_whose_records_failed() {
    for gap in [false, true] {
        let mut talk = Talk::tls13(CHACHA20);
        for _ in 0..5000 {
            talk.say(Sender::Client, &[1; 10]);
        }
        let before = talk.chunks.len();
        for _ in 0..3 {
            talk.say(Sender::Client, &[2; 10]);
            *talk.chunks.last_mut().unwrap().bytes.last_mut().unwrap() ^= 1;
        }
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..3], &mut heard);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        feed(&mut session, &talk.chunks[3..before], &mut heard);
        assert_eq!(heard.said.len(), 5000);
        if gap {
            // Of how many records it is, is not known.
            let lost = talk.chunks[before].bytes.len() + talk.chunks[before + 1].bytes.len();
            for _ in 0..2 {
                talk.say(Sender::Client, &[2; 10]);
                *talk.chunks.last_mut().unwrap().bytes.last_mut().unwrap() ^= 1;
            }
            session.gap(Sender::Client, lost as u64, &mut |from, plain| heard.take(from, plain));
        }
        feed(&mut session, &talk.chunks[before + if gap { 2 } else { 0 }..], &mut heard);
        let end = talk.chunks.len();
        for _ in 0..3 {
            talk.say(Sender::Client, &[3; 10]);
        }
        feed(&mut session, &talk.chunks[end..], &mut heard);
        assert_eq!(session.lacks(), [Sender::Client], "{gap}");
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)), "{gap}");
        assert!(heard.said.ends_with(&talk.said[talk.said.len() - 3..]), "{gap}");
    }
}

/// Of one direction alone nothing else says why it is not read.
#[test]
fn a_direction_that_is_given_up_beside_one_that_is_read() {
    let mut talk = Talk::middle(AES_256, 9, 9);
    talk.exchanges(&mut Random::new(11), 4);
    let (mut session, mut heard) = (Session::new(false), Heard::default());
    let half = talk.chunks.len() / 2;
    feed(&mut session, &talk.chunks[..half], &mut heard);
    assert_eq!(search(&mut session, &talk.keys[..1], &mut heard), 1);
    assert_eq!(session.take_counts().given_up, None);
    session.give_up(Closed::Denied, &mut |from, plain| heard.take(from, plain));
    let counts = session.take_counts();
    let bytes = |chunks: &[Chunk]| {
        let server = chunks.iter().filter(|chunk| chunk.from == Sender::Server);
        server.map(|chunk| chunk.bytes.len() as u64).sum::<u64>()
    };
    let held = bytes(&talk.chunks[..half]);
    assert_eq!((counts.given_up, counts.not_given_bytes), (Some(Closed::Denied), held));
    feed(&mut session, &talk.chunks[half..], &mut heard);
    session.give_up(Closed::Denied, &mut |_, _| ());
    let counts = session.take_counts();
    assert_eq!((counts.given_up, counts.not_given_bytes), (None, bytes(&talk.chunks[half..])), "once");
    assert!(heard.gaps.is_empty() && session.closed().is_none());
}

#[test]
fn a_session_is_closed_once_both_directions_are_given_up() {
    let mut talk = Talk::middle(AES_256, 9, 9);
    talk.exchanges(&mut Random::new(11), 4);
    let (mut session, mut heard) = (Session::new(false), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    session.give_up(Closed::NoKey, &mut |_, _| ());
    assert_eq!((session.closed(), session.take_counts().given_up), (Some(Closed::NoKey), None));
}

/// Secrets come before the record that they open: only the new one is tried.
#[test]
fn secrets_are_tried_again_with_records_that_are_new() {
    for suite in [AES_256, CHACHA20] {
        let mut talk = Talk::tls13(suite);
        talk.exchanges(&mut Random::new(7), 3);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        // The handshake's own records.
        feed(&mut session, &talk.chunks[..3], &mut heard);
        assert!(!session.try_secrets(&talk.secrets, false, &mut |_, _| panic!("nothing is opened")));
        session.end_trial();
        feed(&mut session, &talk.chunks[3..], &mut heard);
        assert!(session.try_secrets(&talk.secrets, true, &mut |from, plain| heard.take(from, plain)));
        assert!(heard.said == talk.said, "{suite:?}");
    }
}
