//! Sessions from their first byte to their last, with ciphertext that ring makes.

mod cuts;
mod doubts;
mod fuzz;
mod keys;
mod late;
mod losses;
mod lossy;
mod rfc8448;
mod wire;

use ktrace_tls::cipher::Suite;
use ktrace_tls::session::Session;
use ktrace_tls::{Sender, Version};
use wire::*;

const AES_128: Suite = Suite(0x1301);
const AES_256: Suite = Suite(0x1302);
const CHACHA20: Suite = Suite(0x1303);
const SUITES: [Suite; 3] = [AES_128, AES_256, CHACHA20];
const TLS12: [Suite; 4] = [Suite(0xc02f), Suite(0xc030), Suite(0xcca8), Suite(0x009d)];
const CBC: [Suite; 4] = [Suite(0xc013), ENCRYPT_THEN_MAC, Suite(0xc027), Suite(0xc028)];

/// Feeds all of it; the time is the chunk's number.
fn feed(session: &mut Session, chunks: &[Chunk], heard: &mut Heard) {
    for (time_ns, chunk) in (0..).zip(chunks) {
        session
            .data(chunk.from, chunk.seq, &chunk.bytes, time_ns, &mut |from, plain| heard.take(from, plain));
    }
}

fn talks() -> impl Iterator<Item = Talk> {
    SUITES.into_iter().map(Talk::tls13).chain(TLS12.into_iter().chain(CBC).map(Talk::tls12))
}

/// Whether a search of memory finds its keys.
fn is_gcm(talk: &Talk) -> bool {
    talk.client.suite.name() == "aes-gcm"
}

#[test]
fn secrets_before_the_first_record_open_all() {
    for handshake in [true, false] {
        for mut talk in talks() {
            talk.exchanges(&mut Random::new(1), 20);
            if !handshake {
                talk.secrets.client_handshake = None;
                talk.secrets.server_handshake = None;
            }
            let (mut session, mut heard) = (Session::new(true), Heard::default());
            feed(&mut session, &talk.chunks[..2], &mut heard);
            assert!(session.take_secrets(&talk.secrets, &mut |_, _| ()));
            feed(&mut session, &talk.chunks[2..], &mut heard);
            assert!(heard.said == talk.said, "{:?}", talk.client.suite);
            let counts = session.take_counts();
            assert_eq!(
                (heard.gaps.len(), counts.failed, counts.lost_bytes),
                (0, 0, 0),
                "{:?}",
                talk.client.suite
            );
            assert_eq!((session.held(), session.lacks()), (None, &[][..]));
        }
    }
}

#[test]
fn secrets_behind_all_records_open_all() {
    for mut talk in talks() {
        talk.exchanges(&mut Random::new(2), 20);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks, &mut heard);
        assert_eq!((heard.said.len(), session.lacks()), (0, &BOTH[..]));
        let (held, since) = session.held().unwrap();
        assert!(held > 1000 && session.held_bytes() >= held && since <= 3);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        assert!(heard.said == talk.said, "{:?}", talk.client.suite);
        assert!(heard.times.is_sorted());
        assert_eq!((session.held(), session.take_counts().failed), (None, 0));
    }
}

#[test]
fn keys_from_memory_open_all() {
    for mut talk in talks().filter(is_gcm) {
        talk.exchanges(&mut Random::new(3), 20);
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        let mut searches = 0;
        for (index, chunk) in talk.chunks.iter().enumerate() {
            let number = session.samples_number();
            feed(&mut session, std::slice::from_ref(chunk), &mut heard);
            // A search takes its time.
            if index % 5 == 0 && session.samples_number() != number && !session.lacks().is_empty() {
                searches += 1;
                search(&mut session, &talk.keys[..2], &mut heard);
            }
        }
        assert!(heard.said == talk.said, "{:?}", talk.client.suite);
        assert!(searches > 0 && searches <= 3, "{searches}");
        assert_eq!((session.held(), session.take_counts().failed, heard.gaps.len()), (None, 0, 0));
    }
}

/// As where a program is asked for what it captured between the handshake of TCP and that of TLS.
#[test]
fn a_handshake_in_a_connection_that_seems_old() {
    for mut talk in talks() {
        talk.exchanges(&mut Random::new(5), 3);
        let (mut session, mut heard) = (Session::new(false), Heard::default());
        feed(&mut session, &talk.chunks, &mut heard);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        assert!(heard.said == talk.said, "{:?}", talk.client.suite);
        assert_eq!(session.hello().server_name.as_deref(), Some("broker.example"));
    }
}

/// The server asks for another ClientHello. What it says may be read before or behind what the
/// client answers.
#[test]
fn hello_retry_request() {
    const RETRY: &str = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c";
    let mut talk = Talk::tls13(AES_256);
    let hello = talk.chunks.remove(0);
    let rest = std::mem::take(&mut talk.chunks);
    (talk.client.seq, talk.server.seq) = (hello.seq, rest[0].seq);
    talk.raw(Sender::Client, &hello.bytes);
    let retry = server_hello(Version::Tls13, AES_256, &hex(RETRY).try_into().unwrap());
    talk.raw(Sender::Server, &[retry, record(20, &[1])].concat());
    talk.raw(Sender::Client, &[record(20, &[1]), client_hello(1800)].concat());
    for chunk in rest {
        talk.raw(chunk.from, &chunk.bytes);
    }
    talk.exchanges(&mut Random::new(5), 3);
    for late in [false, true] {
        let mut chunks = talk.chunks.clone();
        if late {
            chunks.swap(1, 2);
        }
        for cut in [5, 700, 1500] {
            let (mut session, mut heard) = (Session::new(true), Heard::default());
            let mut chunks = chunks.clone();
            let at = chunks.iter().position(|chunk| chunk.bytes.len() > 1800).unwrap();
            let bytes = chunks[at].bytes.split_off(cut);
            let second = Chunk { seq: chunks[at].seq.wrapping_add(cut as u32), bytes, ..chunks[at] };
            chunks.insert(at + 1, second);
            feed(&mut session, &chunks, &mut heard);
            assert_eq!(session.hello().server_random, Some(SERVER_RANDOM));
            assert_eq!(search(&mut session, &talk.keys, &mut heard), 2);
            assert!(heard.said == talk.said, "{late} {cut}");
            assert_eq!((session.take_counts().failed, heard.gaps.len()), (0, 0));
        }
    }
}
