//! Pieces that are cut at every byte, and of which every byte is missing. A stride through the
//! bytes is tried always, every byte with `KTRACE_FULL=1`.

use ktrace_tls::Sender;
use ktrace_tls::session::Session;
use proptest::prelude::*;

use crate::wire::*;
use crate::{AES_256, CHACHA20, TLS12, feed};

fn stride() -> usize {
    if std::env::var_os("KTRACE_FULL").is_some() { 1 } else { 7 }
}

fn short(mut talk: Talk) -> Talk {
    for len in [0, 1, 30, 200, 17, 3] {
        for from in BOTH {
            talk.say(from, &vec![len as u8; len]);
        }
    }
    talk
}

/// The talk, of which one chunk is cut in two.
fn cut(talk: &Talk, index: usize, at: usize) -> Vec<Chunk> {
    let mut chunks = talk.chunks.clone();
    let second = chunks[index].bytes.split_off(at);
    let (from, seq) = (chunks[index].from, chunks[index].seq.wrapping_add(at as u32));
    chunks.insert(index + 1, Chunk { from, seq, bytes: second });
    chunks
}

#[test]
fn every_cut() {
    for talk in [Talk::tls13(AES_256), Talk::tls13(CHACHA20), Talk::tls12(TLS12[1])].map(short) {
        for index in 0..talk.chunks.len() {
            for at in (1..talk.chunks[index].bytes.len()).step_by(stride()) {
                let chunks = cut(&talk, index, at);
                let (mut session, mut heard) = (Session::new(true), Heard::default());
                let middle = chunks.len() / 2;
                feed(&mut session, &chunks[..middle], &mut heard);
                session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain));
                feed(&mut session, &chunks[middle..], &mut heard);
                assert!(heard.said == talk.said, "{index} at {at}");
                assert_eq!((heard.gaps.len(), session.take_counts().failed, session.held()), (0, 0, None));
            }
        }
    }
}

#[test]
fn byte_by_byte() {
    for talk in [Talk::tls13(AES_256), Talk::tls12(TLS12[1])].map(short) {
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        for chunk in &talk.chunks {
            for (seq, byte) in (0..).map(|at| chunk.seq.wrapping_add(at)).zip(&chunk.bytes) {
                session.data(chunk.from, seq, &[*byte], 1, &mut |from, plain| heard.take(from, plain));
            }
        }
        assert_eq!(search(&mut session, &talk.keys, &mut heard), 2);
        assert!(heard.said == talk.said);
    }
}

/// It costs the record that it is of, and what is said to be missing is right.
#[test]
fn every_missing_byte() {
    for talk in [Talk::tls13(AES_256), Talk::tls12(TLS12[1])].map(short) {
        let handshake = talk.chunks.len() - 12;
        for index in handshake..talk.chunks.len() {
            for at in (0..talk.chunks[index].bytes.len()).step_by(stride()) {
                let (mut session, mut heard) = (Session::new(true), Heard::default());
                let chunk = &talk.chunks[index];
                feed(&mut session, &talk.chunks[..handshake], &mut heard);
                session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain));
                feed(&mut session, &talk.chunks[handshake..index], &mut heard);
                let (before, behind) = (&chunk.bytes[..at], &chunk.bytes[at + 1..]);
                let mut give = |from, plain: ktrace_tls::session::Plain<'_>| heard.take(from, plain);
                session.data(chunk.from, chunk.seq, before, 1, &mut give);
                session.gap(chunk.from, 1, &mut give);
                session.data(chunk.from, chunk.seq.wrapping_add(at as u32 + 1), behind, 1, &mut give);
                feed(&mut session, &talk.chunks[index + 1..], &mut heard);

                let missing: Vec<_> = talk.said.iter().filter(|said| !heard.said.contains(said)).collect();
                assert!(missing.iter().all(|(from, seq, _)| (*from, *seq) == (chunk.from, chunk.seq)));
                assert_eq!(heard.said.len() + missing.len(), talk.said.len());
                let len: usize = missing.iter().map(|(.., bytes)| bytes.len()).sum();
                let goes_on = talk.chunks[index + 1..].iter().any(|next| next.from == chunk.from);
                let first = index < handshake + 4;
                match heard.gaps[..] {
                    [] => assert!(len == 0 || !goes_on, "{index} at {at}"),
                    [(from, bytes, exact)] => {
                        assert_eq!(from, chunk.from);
                        // Before the first data there may be tickets in it.
                        assert!(
                            if exact { bytes == len as u64 } else { first && bytes >= len as u64 },
                            "{index} at {at}"
                        );
                    }
                    _ => panic!("{index} at {at}: {:?}", heard.gaps),
                }
                assert_eq!(session.take_counts().failed, u64::from(goes_on || at > 4), "{index} at {at}");
            }
        }
    }
}

/// What is done with bytes.
#[derive(Clone, Debug)]
enum Step {
    Bytes(bool, Vec<u8>),
    /// Of a talk.
    Chunk(usize, usize, usize),
    Gap(bool, u64),
    Secrets,
    Search,
    GiveUp,
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let record = (20_u8..24, 0_u8..5, 0_u8..64, any::<u8>(), bytes())
        .prop_map(|(kind, minor, high, low, bytes)| [vec![kind, 3, minor, high, low], bytes].concat());
    prop_oneof![
        4 => (any::<bool>(), bytes()).prop_map(|(client, bytes)| Step::Bytes(client, bytes)),
        3 => (any::<bool>(), record).prop_map(|(client, bytes)| Step::Bytes(client, bytes)),
        8 => any::<[usize; 3]>().prop_map(|[chunk, from, to]| Step::Chunk(chunk, from, to)),
        1 => (any::<bool>(), prop_oneof![0_u64..100, any::<u64>()])
            .prop_map(|(client, bytes)| Step::Gap(client, bytes)),
        1 => Just(Step::Secrets),
        1 => Just(Step::Search),
        1 => Just(Step::GiveUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing is given that was not said, nothing panics, and what is held is bounded by what has
    /// come.
    #[test]
    fn any_bytes(from_beginning: bool, tls12: bool, steps in prop::collection::vec(steps(), 1..40)) {
        let talk = short(if tls12 { Talk::tls12(TLS12[1]) } else { Talk::tls13(AES_256) });
        let (mut session, mut heard) = (Session::new(from_beginning), Heard::default());
        let mut come = 0;
        for step in steps {
            let mut give = |from, plain: ktrace_tls::session::Plain<'_>| heard.take(from, plain);
            match step {
                Step::Bytes(client, bytes) => {
                    come += bytes.len();
                    session.data(BOTH[usize::from(client)], 9, &bytes, 1, &mut give);
                }
                Step::Chunk(index, from, to) => {
                    let chunk = &talk.chunks[index % talk.chunks.len()];
                    let from = from % 2 * (from % chunk.bytes.len());
                    let most = chunk.bytes.len() - from;
                    let to = if to % 2 == 0 { chunk.bytes.len() } else { from + to % most };
                    come += to - from;
                    let seq = chunk.seq.wrapping_add(from as u32);
                    session.data(chunk.from, seq, &chunk.bytes[from..to], 1, &mut give);
                }
                Step::Gap(client, bytes) => session.gap(BOTH[usize::from(client)], bytes, &mut give),
                Step::Secrets => drop(session.take_secrets(&talk.secrets, &mut give)),
                Step::Search => drop(search(&mut session, &talk.keys, &mut heard)),
                Step::GiveUp => session.give_up(ktrace_tls::session::Closed::NoKey, &mut give),
            }
            prop_assert!(session.held_bytes() <= 6 * come + (8 << 10), "{} of {come}", session.held_bytes());
        }
        for (from, _, bytes) in &heard.said {
            prop_assert!(talk.said.iter().any(|(sender, _, said)| (sender, said) == (from, bytes)));
        }
    }
}

#[test]
fn what_is_behind_the_end_is_passed_over() {
    for mut talk in [Talk::tls13(AES_256), Talk::tls12(TLS12[1])].map(short) {
        for from in BOTH {
            let alert = talk.writer(from).seal(21, &[1, 0]);
            talk.raw(from, &alert);
        }
        let end = talk.chunks.len();
        talk.raw(Sender::Client, b"GET / HTTP/1.1");
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..end - 5], &mut heard);
        session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain));
        feed(&mut session, &talk.chunks[end - 5..], &mut heard);
        session.gap(Sender::Server, 100, &mut |from, plain| heard.take(from, plain));
        assert!(heard.said == talk.said);
        let counts = session.take_counts();
        assert_eq!((counts.failed, counts.lost_bytes, session.held(), heard.gaps.len()), (0, 0, None, 0));
    }
}
