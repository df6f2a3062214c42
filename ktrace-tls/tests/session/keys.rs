//! Keys that come late, that change, and that do not come.

use ktrace_tls::Sender;
use ktrace_tls::cipher::Suite;
use ktrace_tls::session::{Closed, Session};

use crate::wire::*;
use crate::{AES_128, AES_256, CHACHA20, TLS12, feed};

#[test]
fn connections_from_the_middle_at_numbers_around_carries() {
    for around in [1 << 8, 1 << 16, 1 << 32, 1, 40] {
        for back in [0, 1, 2, 5] {
            let number: u64 = around - back.min(around);
            let mut talk = Talk::middle(AES_256, number, number + 7);
            let mut random = Random::new(around + back);
            talk.exchanges(&mut random, 30);
            let (mut session, mut heard) = (Session::new(false), Heard::default());
            let mut at = 0;
            while session.lacks() != BOTH {
                feed(&mut session, &talk.chunks[at..=at], &mut heard);
                at += 1;
            }
            search(&mut session, &talk.keys, &mut heard);
            feed(&mut session, &talk.chunks[at..], &mut heard);
            assert!(heard.said == talk.said, "{number}");
            let counts = session.take_counts();
            assert_eq!((session.held(), counts.failed, counts.lost_bytes, heard.gaps.len()), (None, 0, 0, 0));
        }
    }
}

/// The number is not sent, and has to be found by trial: the search does that.
#[test]
fn connections_of_tls_1_2_from_the_middle() {
    for (client, server) in [(1, 1), (700, 9000), (3000, 255)] {
        let mut talk = Talk::middle12(TLS12[1], client, server);
        talk.exchanges(&mut Random::new(client), 30);
        let (mut session, mut heard) = (Session::new(false), Heard::default());
        let (before, behind) = talk.chunks.split_at(12);
        feed(&mut session, before, &mut heard);
        assert_eq!(search(&mut session, &talk.keys, &mut heard), 2);
        feed(&mut session, behind, &mut heard);
        assert!(heard.said == talk.said, "{client} {server}");
        assert_eq!((session.held(), session.take_counts().failed, heard.gaps.len()), (None, 0, 0));
    }
}

#[test]
fn secrets_of_an_old_connection_are_found_by_trial() {
    for suite in [AES_128, AES_256, CHACHA20] {
        let mut talk = Talk::middle(suite, 1000, 3000);
        talk.exchanges(&mut Random::new(7), 10);
        let mut others = Talk::middle(suite, 0, 0).secrets;
        for secret in [&mut others.client_traffic, &mut others.server_traffic].into_iter().flatten() {
            secret.fill(0x77);
        }
        let (mut session, mut heard) = (Session::new(false), Heard::default());
        feed(&mut session, &talk.chunks, &mut heard);
        let before = session.held();
        assert!(!session.take_secrets(&others, &mut |_, _| panic!("nothing is opened")));
        assert_eq!(session.held(), before);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        assert!(heard.said == talk.said, "{suite:?}");
    }
}

/// As a probe gives them, which does not know the connection: each direction's alone, among those
/// of others.
#[test]
fn secrets_of_the_same_process_differ_in_what_they_open() {
    for suite in [AES_128, AES_256, CHACHA20] {
        let mut talk = Talk::tls13(suite);
        talk.exchanges(&mut Random::new(7), 10);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..9], &mut heard);
        assert!(session.hello().client_random.is_some());
        let (mut client, mut server) = (talk.secrets.clone(), talk.secrets.clone());
        (client.server_traffic, server.client_traffic) = (None, None);
        let mut others = talk.secrets.clone();
        for secret in [&mut others.client_traffic, &mut others.server_traffic].into_iter().flatten() {
            secret.fill(0x77);
        }
        // As if they were the other direction's.
        let mut turned = talk.secrets.clone();
        std::mem::swap(&mut turned.client_traffic, &mut turned.server_traffic);
        for wrong in [&others, &turned] {
            assert!(!session.try_secrets(wrong, false, &mut |_, _| panic!("nothing is opened")));
        }
        assert_eq!(session.lacks(), BOTH);
        session.end_trial();
        assert!(!session.try_secrets(&server, true, &mut |_, _| panic!("no record is new")));
        assert!(session.try_secrets(&server, false, &mut |from, plain| heard.take(from, plain)));
        assert!(session.try_secrets(&client, false, &mut |from, plain| heard.take(from, plain)));
        feed(&mut session, &talk.chunks[9..], &mut heard);
        assert!(heard.said == talk.said, "{suite:?}");
        let counts = session.take_counts();
        assert_eq!((heard.gaps.len(), counts.failed, counts.lost_bytes), (0, 0, 0), "{suite:?}");
    }
}

#[test]
fn key_updates_with_secrets() {
    for suite in [AES_128, AES_256, CHACHA20] {
        let mut talk = Talk::tls13(suite);
        let mut random = Random::new(4);
        for from in [Sender::Client, Sender::Server, Sender::Server, Sender::Client] {
            talk.exchanges(&mut random, 4);
            talk.key_update(from);
        }
        talk.exchanges(&mut random, 4);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..9], &mut heard);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        feed(&mut session, &talk.chunks[9..], &mut heard);
        assert!(heard.said == talk.said, "{suite:?}");
        assert_eq!((session.take_counts().failed, session.held()), (0, None));
    }
}

#[test]
fn key_updates_with_keys_from_memory() {
    let mut talk = Talk::tls13(AES_256);
    let mut random = Random::new(4);
    talk.exchanges(&mut random, 4);
    let mut updates = vec![];
    for from in [Sender::Client, Sender::Server, Sender::Client] {
        talk.key_update(from);
        updates.push((talk.chunks.len(), from));
        talk.exchanges(&mut random, 8);
    }
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    let (first, _) = updates[0];
    feed(&mut session, &talk.chunks[..first - 1], &mut heard);
    search(&mut session, &talk.keys[..2], &mut heard);
    let mut numbers = vec![session.samples_number()];
    for (index, (start, from)) in updates.iter().enumerate() {
        let end = updates.get(index + 1).map_or(talk.chunks.len(), |(next, _)| next - 1);
        assert_eq!((session.lacks(), session.held()), (&[][..], None));
        // The update is read; what comes behind it waits, both ways, until the new key is found.
        let before = heard.said.len();
        feed(&mut session, &talk.chunks[start - 1..end], &mut heard);
        assert_eq!(session.lacks(), [*from]);
        let said = &heard.said[before..];
        assert!(
            said.iter().all(|(sender, ..)| sender != from),
            "what is pending for want of a key is not given"
        );
        numbers.push(session.samples_number());
        // The old key is gone from memory, and opens nothing.
        assert_eq!(search(&mut session, &talk.keys[..4 + index], &mut heard), 0);
        assert_eq!(search(&mut session, &talk.keys[4 + index..], &mut heard), 1);
    }
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
    assert!(heard.said == talk.said);
    assert_eq!((session.take_counts().failed, heard.gaps.len()), (0, 0));
}

/// The records between an update that was lost and the search behind it are lost, and no more than
/// three of them.
#[test]
fn a_key_update_that_was_lost() {
    for (secrets, last) in [(true, 0), (false, 3)] {
        let mut talk = Talk::tls13(AES_256);
        let mut random = Random::new(4);
        talk.exchanges(&mut random, 4);
        let from = Sender::Client;
        let before = talk.chunks.len();
        talk.key_update(from);
        let heard_before = talk.said.len();
        for _ in 0..10 {
            talk.say(from, &random.bytes(100));
        }
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..before], &mut heard);
        if secrets {
            session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain));
        } else {
            search(&mut session, &talk.keys[..2], &mut heard);
        }
        let lost = talk.chunks[before].bytes.len() as u64;
        session.gap(from, lost, &mut |from, plain| heard.take(from, plain));
        feed(&mut session, &talk.chunks[before + 1..], &mut heard);
        if !secrets {
            assert_eq!(session.lacks(), [from]);
            assert_eq!(search(&mut session, &talk.keys, &mut heard), 1);
        }
        assert!(heard.said[..heard_before] == talk.said[..heard_before]);
        assert!(heard.said[heard_before..] == talk.said[heard_before + last..], "{secrets}");
        // What of the update is plaintext is not known.
        assert!(heard.gaps.iter().all(|(_, _, exact)| !exact) && heard.gaps.len() == 1, "{:?}", heard.gaps);
    }
}

#[test]
fn one_direction_waits_for_the_other_until_it_is_given_up() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(11), 10);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    let (middle, end) = (talk.chunks.len() / 2, talk.chunks.len());
    feed(&mut session, &talk.chunks[..middle], &mut heard);
    assert_eq!(search(&mut session, &talk.keys[..1], &mut heard), 1);
    assert_eq!((heard.said.len(), session.lacks()), (0, &[Sender::Server][..]));
    session.give_up(Closed::NoKey, &mut |from, plain| heard.take(from, plain));
    feed(&mut session, &talk.chunks[middle..end - 4], &mut heard);
    assert_eq!((session.held(), session.lacks(), session.closed()), (None, &[][..], None));
    let client: Vec<_> = talk.said.iter().filter(|(from, ..)| *from == Sender::Client).cloned().collect();
    assert!(client.starts_with(&heard.said) && heard.said.len() + 3 > client.len());
    assert!(
        heard.gaps.iter().all(|(from, _, exact)| *from == Sender::Server && !exact) && !heard.gaps.is_empty()
    );
    let counts = session.take_counts();
    assert!(counts.lost_bytes > 0 && counts.failed == 0, "{counts:?}");
    // Its secrets come after all.
    assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
    feed(&mut session, &talk.chunks[end - 4..], &mut heard);
    assert!(heard.said.ends_with(&talk.said[talk.said.len() - 2..]));
}

#[test]
fn both_are_given_up() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(11), 10);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    let middle = talk.chunks.len() / 2;
    feed(&mut session, &talk.chunks[..middle], &mut heard);
    session.give_up(Closed::Full, &mut |from, plain| heard.take(from, plain));
    assert_eq!((session.closed(), session.held(), session.is_open()), (Some(Closed::Full), None, false));
    assert!(session.held_bytes() == 0 && heard.said.is_empty());
    feed(&mut session, &talk.chunks[middle..], &mut heard);
    assert_eq!((session.lacks(), session.held(), heard.said.len()), (&[][..], None, 0));
    let given: u64 = heard.gaps.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(given <= session.take_counts().lost_bytes && given > 0);
}

/// An idle connection holds a handshake that no key opens, and loses nothing when that is given up.
#[test]
fn a_handshake_alone_lacks_nothing() {
    let mut talk = Talk::tls13(AES_256);
    let handshake = talk.chunks.len() - 1;
    talk.exchanges(&mut Random::new(11), 10);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks[..handshake], &mut heard);
    assert_eq!(session.lacks(), []);
    session.give_up(Closed::Full, &mut |_, _| panic!("nothing is given"));
    assert_eq!((session.closed(), session.held()), (None, None));
    feed(&mut session, &talk.chunks[handshake..], &mut heard);
    assert_eq!(session.lacks(), BOTH);
    assert_eq!(search(&mut session, &talk.keys, &mut heard), 2);
    assert!(heard.said == talk.said);
    assert_eq!((session.take_counts().failed, heard.gaps.len()), (0, 0));
}

#[test]
fn a_cipher_that_is_not_read_is_closed_at_once() {
    for suite in [Suite(0xc0ac), Suite(0x000a)] {
        let talk = Talk::tls12(TLS12[0]);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..1], &mut heard);
        let hello = server_hello(ktrace_tls::Version::Tls12, suite, &SERVER_RANDOM);
        session.data(Sender::Server, 5, &hello, 1, &mut |_, _| ());
        assert_eq!((session.closed(), session.hello().suite), (Some(Closed::NoKey), Some(suite)));
    }
}

#[test]
fn a_wrong_key_is_not_taken() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(11), 10);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    for sample in session.samples().client {
        let key = aes_key(&talk.keys[1]);
        let found = ktrace_tls::sample::FoundKey {
            sender: Sender::Client,
            seq: sample.seq,
            version: ktrace_tls::Version::Tls13,
            key,
            nonce: [7; 12],
            number: None,
        };
        assert!(!session.take_key(found, &mut |_, _| panic!("nothing is given")));
    }
    assert_eq!(session.lacks(), BOTH);
}

#[test]
fn samples_are_few_and_small() {
    let mut talk = Talk::tls13(AES_256);
    for round in 0..100 {
        talk.say(Sender::Client, &vec![1; 1 << 14]);
        talk.say(Sender::Server, &vec![1; if round % 7 == 0 { 100 } else { 1 << 14 }]);
    }
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    let mut numbers = std::collections::BTreeSet::new();
    for chunk in &talk.chunks {
        feed(&mut session, std::slice::from_ref(chunk), &mut heard);
        numbers.insert(session.samples_number());
    }
    let samples = session.samples();
    let bytes = |samples: &[ktrace_tls::sample::Sample]| {
        samples.iter().map(|sample| sample.body.len()).sum::<usize>()
    };
    assert_eq!(samples.client.len(), 1);
    assert!((2..=8).contains(&samples.server.len()), "{}", samples.server.len());
    assert!(bytes(&samples.client) <= 17_000 && bytes(&samples.server) <= 17_000);
    assert!(numbers.len() <= 2 * (8 + 4) + 1, "{}", numbers.len());
}
