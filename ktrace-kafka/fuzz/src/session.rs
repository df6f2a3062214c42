//! A connection that speaks TLS: a talk (`tls-*.bin`), and a script that says what becomes of its
//! bytes and when keys come. They are cut, lost, and mixed with bytes of the fuzzer's own.
//!
//! What is given has been said, what is held is bounded by what has come, and nothing is held once
//! both directions are given up.

use std::collections::HashSet;

use ktrace_tls::Sender;
use ktrace_tls::sample::{AesKey, FoundKey, Samples};
use ktrace_tls::secret::Secrets;
use ktrace_tls::session::{Closed, Plain, Session};

use super::input::Input;

/// With AES-256-GCM: TLS 1.3 with a KeyUpdate, the same from its middle on, and TLS 1.2. A byte for
/// who sends, an int32 length, the bytes; then the keys. `ktrace-tls/tests/session/fuzz.rs` writes
/// them.
static TALKS: [&[u8]; 3] =
    [include_bytes!("../tls-13.bin"), include_bytes!("../tls-middle.bin"), include_bytes!("../tls-12.bin")];

/// Operations of one script.
const MAX_OPERATIONS: usize = 64;

struct Talk {
    said: Vec<(Sender, &'static [u8])>,
    keys: Vec<[u8; 32]>,
}

/// In front of what is not said: keys.
const KEY: u8 = 2;

fn decode(bytes: &'static [u8]) -> Talk {
    let (mut input, mut talk) = (Input(bytes), Talk { said: vec![], keys: vec![] });
    while !input.is_empty() {
        let kind = input.u8();
        let len = input.u32() as usize;
        let bytes = input.take(len);
        match kind {
            KEY => talk.keys.push(bytes.try_into().expect("a key")),
            _ => talk.said.push((if kind == 0 { Sender::Client } else { Sender::Server }, bytes)),
        }
    }
    talk
}

/// Those of the talks.
fn secrets() -> Secrets {
    let some = |fill, len: usize| Some(vec![fill; len].into());
    Secrets {
        master: some(0x3a, 48),
        client_traffic: some(1, 48),
        server_traffic: some(2, 48),
        client_handshake: some(3, 48),
        server_handshake: some(4, 48),
    }
}

/// What a search finds: the first key that opens a sample.
fn search(samples: Samples, keys: &[[u8; 32]]) -> Vec<FoundKey> {
    let of = |sender, samples: Vec<_>| {
        samples.iter().find_map(|sample| {
            keys.iter().find_map(|key| {
                let key = AesKey::Aes256((*key).into());
                let proof = key.opens(sample, 256)?;
                let (version, nonce, number) = (proof.version, proof.nonce, proof.number);
                Some(FoundKey { sender, seq: sample.seq, version, key, nonce, number })
            })
        })
    };
    [of(Sender::Client, samples.client), of(Sender::Server, samples.server)].into_iter().flatten().collect()
}

/// All that is said in a talk, record by record.
fn truth(talk: &Talk, from_beginning: bool) -> HashSet<(bool, Vec<u8>)> {
    let mut session = Session::new(from_beginning);
    let mut truth = HashSet::new();
    let mut seqs = [0_u32; 2];
    let mut hear = |from, plain: Plain<'_>| {
        if let Plain::Data { bytes, .. } = plain {
            truth.insert((from == Sender::Client, bytes.to_vec()));
        }
    };
    for (from, bytes) in &talk.said {
        let seq = &mut seqs[*from as usize];
        session.data(*from, *seq, bytes, 1, &mut hear);
        *seq = seq.wrapping_add(bytes.len() as u32);
    }
    session.take_secrets(&secrets(), &mut hear);
    assert!(!truth.is_empty(), "the talk is read");
    truth
}

/// A script: the talk and the start of sequence numbers, then operations.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let which = input.u8();
    let from_middle = which % 3 == 1;
    let talk = decode(TALKS[usize::from(which % 3)]);
    let truth = truth(&talk, !from_middle);
    let mut session = Session::new(!from_middle && which & 4 == 0);
    let mut seqs = [input.u32(), input.u32()];
    let mut said = talk.said.iter().map(|(from, bytes)| (*from, *bytes));
    let mut now = said.next();
    let (mut come, mut time_ns) = (0, 0);
    let mut given_up = false;
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        time_ns += 1;
        let mut hear = |from, plain: Plain<'_>| {
            if let Plain::Data { bytes, .. } = plain {
                assert!(
                    truth.contains(&(from == Sender::Client, bytes.to_vec())),
                    "{from:?} has not said that"
                );
            }
        };
        match input.u8() % 16 {
            // What is said next: all of it, or the next bytes of it.
            operation @ 0..=9 => {
                let Some((from, bytes)) = now else { break };
                let len = if operation < 6 { bytes.len() } else { 1 + usize::from(input.u16()) };
                let (bytes, rest) = bytes.split_at(len.min(bytes.len()));
                now = if rest.is_empty() { said.next() } else { Some((from, rest)) };
                let seq = &mut seqs[from as usize];
                if operation == 9 {
                    session.gap(from, bytes.len() as u64, &mut hear);
                } else {
                    come += bytes.len();
                    session.data(from, *seq, bytes, time_ns, &mut hear);
                }
                *seq = seq.wrapping_add(bytes.len() as u32);
            }
            operation @ (10 | 11) => {
                let from = if operation == 10 { Sender::Client } else { Sender::Server };
                let len = usize::from(input.u8());
                let bytes = input.take(len);
                come += bytes.len();
                session.data(from, seqs[from as usize], bytes, time_ns, &mut hear);
                seqs[from as usize] = seqs[from as usize].wrapping_add(bytes.len() as u32);
            }
            12 => drop(session.take_secrets(&secrets(), &mut hear)),
            13 | 14 => {
                for found in search(session.samples(), &talk.keys) {
                    session.take_key(found, &mut hear);
                }
            }
            _ => {
                session.give_up(Closed::NoKey, &mut hear);
                given_up = true;
            }
        }
        let held = session.held_bytes();
        assert!(held <= 8 * come + (16 << 10), "{held} held of {come}");
        assert!(session.held().is_none_or(|(bytes, since_ns)| bytes <= come && since_ns <= time_ns));
        if session.closed().is_some() {
            assert!(given_up || session.hello().suite.is_some(), "it was not given up");
            assert_eq!((session.held(), session.lacks()), (None, &[][..]));
        }
    }
}
