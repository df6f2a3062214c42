//! What is lost at the edges: in the handshake, with tickets, and before a key that was found.

use ktrace_tls::Sender;
use ktrace_tls::session::Session;

use crate::wire::*;
use crate::{AES_256, CHACHA20, SUITES, TLS12, feed};

/// Feeds chunks, of which some bytes are missing.
fn feed_but(
    session: &mut Session,
    chunks: &[Chunk],
    missing: (usize, std::ops::Range<usize>),
    heard: &mut Heard,
) {
    let (index, range) = missing;
    for (at, chunk) in chunks.iter().enumerate() {
        if at != index {
            feed(session, std::slice::from_ref(chunk), heard);
            continue;
        }
        let mut give = |from, plain: ktrace_tls::session::Plain<'_>| heard.take(from, plain);
        let behind = chunk.seq.wrapping_add(range.end as u32);
        session.data(chunk.from, chunk.seq, &chunk.bytes[..range.start], 1, &mut give);
        session.gap(chunk.from, range.len() as u64, &mut give);
        session.data(chunk.from, behind, &chunk.bytes[range.end..], 1, &mut give);
    }
}

/// What is missing may be a ticket, so it is not said to be data.
#[test]
fn a_gap_with_tickets_in_it_is_not_exact() {
    let mut talk = Talk::tls13(AES_256);
    let tickets = talk.chunks.len() - 1;
    talk.say(Sender::Client, b"request");
    talk.say(Sender::Server, b"response");
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks[..2], &mut heard);
    assert!(session.take_secrets(&talk.secrets, &mut |_, _| ()));
    let second = talk.chunks[tickets].bytes.len() / 2;
    feed_but(&mut session, &talk.chunks[2..], (tickets - 2, second + 10..second + 20), &mut heard);
    assert!(heard.said == talk.said);
    assert!(matches!(heard.gaps[..], [(Sender::Server, 1.., false)]), "{:?}", heard.gaps);
}

/// A message of which a part is missing hides none behind it.
#[test]
fn a_key_update_behind_a_message_that_was_cut() {
    let mut talk = Talk::tls13(AES_256);
    talk.exchanges(&mut Random::new(3), 3);
    talk.key_update(Sender::Server);
    talk.exchanges(&mut Random::new(3), 3);
    // Keys are there before the hole.
    let hello = 5 + 4 + 72 + 8;
    let behind = talk.chunks[1].bytes.split_off(hello);
    let (from, seq) = (Sender::Server, talk.chunks[1].seq.wrapping_add(hello as u32));
    let flight = Chunk { from, seq, bytes: behind };
    // The second record of the certificate has 1000 bytes of the message, and is the last but one.
    let end = flight.bytes.len() - (5 + 304 + 36 + 17);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks[..2], &mut heard);
    assert!(session.take_secrets(&talk.secrets, &mut |_, _| ()));
    feed_but(&mut session, &[flight], (0, end - 20..end - 10), &mut heard);
    feed(&mut session, &talk.chunks[2..], &mut heard);
    assert!(heard.said == talk.said);
    assert_eq!(session.take_counts().failed, 1);
}

/// It is no plaintext, and numbers begin behind it.
#[test]
fn a_clear_handshake_with_a_hole() {
    for suite in TLS12 {
        let mut talk = Talk::tls12(suite);
        talk.exchanges(&mut Random::new(3), 3);
        for hole in [300..301, 300..800, 300..1200] {
            let (mut session, mut heard) = (Session::new(true), Heard::default());
            feed_but(&mut session, &talk.chunks[..3], (1, hole.clone()), &mut heard);
            assert!(session.take_secrets(&talk.secrets, &mut |_, _| ()));
            feed(&mut session, &talk.chunks[3..], &mut heard);
            assert!(heard.said == talk.said, "{suite:?} {hole:?}");
            assert!(heard.gaps.is_empty(), "{suite:?} {hole:?}: {:?}", heard.gaps);
        }
    }
}

#[test]
fn a_handshake_of_tls_1_3_with_a_hole() {
    for suite in SUITES {
        let mut talk = Talk::tls13(suite);
        talk.exchanges(&mut Random::new(3), 3);
        let hello = 5 + 4 + 72 + 8;
        for hole in
            [hello + 5..hello + 8, hello + 30..hello + 31, 500..2500, hello..talk.chunks[1].bytes.len()]
        {
            let (mut session, mut heard) = (Session::new(true), Heard::default());
            feed_but(&mut session, &talk.chunks[..2], (1, hole.clone()), &mut heard);
            assert!(session.take_secrets(&talk.secrets, &mut |_, _| ()), "{suite:?} {hole:?}");
            feed(&mut session, &talk.chunks[2..], &mut heard);
            // Behind a gap at the end of a flight it takes two headers where tags prove nothing.
            assert!(heard.said == talk.said, "{suite:?} {hole:?}");
        }
    }
    assert_eq!(CHACHA20, SUITES[2]);
}

/// A search that comes behind a key update finds the new key alone.
#[test]
fn records_before_the_key_that_was_found_are_counted() {
    let mut talk = Talk::middle(AES_256, 1000, 1000);
    for index in 0..6_u8 {
        talk.say(Sender::Client, &[index; 40]);
        talk.say(Sender::Server, &[index; 50]);
        if index == 2 {
            talk.key_update(Sender::Client);
        }
    }
    let (mut session, mut heard) = (Session::new(false), Heard::default());
    feed(&mut session, &talk.chunks, &mut heard);
    assert_eq!(search(&mut session, &talk.keys[1..], &mut heard), 2);
    let lost = |said: &(Sender, u32, Vec<u8>)| said.0 == Sender::Client && said.2[0] <= 2;
    let wanted: Vec<_> = talk.said.iter().filter(|said| !lost(said)).cloned().collect();
    assert!(heard.said == wanted);
    // Three of data, and the update.
    assert_eq!(session.take_counts().failed, 4);
}

/// A server may send tickets before the client has finished. Where they are given up with the
/// handshake, the first record that is left is not the first of its key.
#[test]
fn early_tickets_that_were_given_up() {
    let mut talk = Talk::tls13(AES_256);
    let tickets = talk.chunks.pop().unwrap();
    let finished = talk.chunks.pop().unwrap();
    talk.chunks.extend([tickets, finished]);
    let handshake = talk.chunks.len();
    talk.exchanges(&mut Random::new(3), 40);
    let (mut session, mut heard) = (Session::new(true), Heard::default());
    feed(&mut session, &talk.chunks[..handshake - 1], &mut heard);
    session.give_up(ktrace_tls::session::Closed::Full, &mut |_, _| panic!("nothing is given"));
    feed(&mut session, &talk.chunks[handshake - 1..], &mut heard);
    assert_eq!(search(&mut session, &talk.keys[..2], &mut heard), 2);
    assert!(heard.said == talk.said);
    assert_eq!((session.take_counts().failed, heard.gaps.len()), (0, 0));
}
