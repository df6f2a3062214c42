//! A connection inside TLS: pieces of both directions, some of them lost, and secrets that open it
//! or do not.
//!
//! An input is whether the connection was seen from its beginning, secrets, and a script of what
//! passes.

use ktrace_tls::Sender;
use ktrace_tls::secret::Secrets;
use ktrace_tls::session::{Closed, Plain, Session};
use zeroize::Zeroizing;

use super::input::Input;

/// More than a session takes that holds nothing for long.
const ROOM: usize = 64 << 10;

/// Runs one input.
pub fn run(data: &[u8]) {
    opened(data);
}

/// How many bytes of plaintext it gives.
pub fn opened(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut session = Session::new(input.u8() & 1 == 0);
    let secrets = secrets(&mut input);
    let mut seqs = [0_u32, 1 << 31];
    let (mut pushed, mut given, mut time_ns) = (0, 0, 0);
    let mut give = |_: Sender, plain: Plain<'_>| {
        if let Plain::Data { bytes, .. } = plain {
            given += bytes.len();
        }
    };
    while !input.is_empty() {
        let operation = input.u8();
        let (from, seq) = match operation & 1 {
            0 => (Sender::Client, &mut seqs[0]),
            _ => (Sender::Server, &mut seqs[1]),
        };
        time_ns += 1_000_000;
        match operation >> 1 & 7 {
            0..=3 => {
                let len = usize::from(input.u16());
                let bytes = input.take(len);
                session.data(from, *seq, bytes, time_ns, &mut give);
                *seq = seq.wrapping_add(bytes.len() as u32);
                pushed += bytes.len();
            }
            4 => {
                let len = u32::from(input.u16());
                session.gap(from, len.into(), &mut give);
                *seq = seq.wrapping_add(len);
            }
            5 => drop(session.take_secrets(&secrets, &mut give)),
            6 => session.give_up(if operation & 16 == 0 { Closed::Full } else { Closed::NoKey }, &mut give),
            _ => {
                let samples = session.samples();
                assert!(samples.client.len() <= 8 && samples.server.len() <= 8);
                assert!(session.lacks().len() <= 2);
            }
        }
        assert!(session.held_bytes() <= 4 * pushed + ROOM, "{} of {pushed}", session.held_bytes());
    }
    // No plaintext is longer than what it was sealed into.
    assert!(given <= pushed, "{given} of {pushed}");
    given
}

/// A byte that says which, and as many bytes as these have.
fn secrets(input: &mut Input<'_>) -> Secrets {
    let kind = input.u8() & 3;
    let mut secret = |len| Some(Zeroizing::new(input.take(len).to_vec()));
    let mut all = Secrets::default();
    match kind {
        0 => {}
        1 => all.master = secret(48),
        kind => {
            let len = if kind == 2 { 32 } else { 48 };
            (all.client_traffic, all.server_traffic) = (secret(len), secret(len));
            (all.client_handshake, all.server_handshake) = (secret(len), secret(len));
        }
    }
    all
}
