//! Keys that a session is given: which of its records they open, and from which number on.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::cipher::Suite;
use crate::number::{Counted, Missing};
use crate::open::{MAX_TRIES, Opener};
use crate::queue::{Entry, Held};
use crate::record::Bytes;
use crate::sample::FoundKey;
use crate::secret::{self, Secrets};
use crate::side::{Key, MAX_HANDSHAKE_RECORDS, Open};
use crate::state::State;
use crate::{Sender, Version};

/// No connection has sent this many records.
const MAX_NUMBER: u64 = 1 << 48;

/// Any number.
const UNKNOWN: Missing = Missing { min: 0, max: MAX_NUMBER };

/// Numbers of a record that is among the first of its key: some before it may be lost.
const FIRST: Missing = Missing { min: 0, max: 2 };

/// Keys that follow each other by KeyUpdate and are tried, where a log has the first alone.
const MAX_UPDATES: usize = 8;

/// Held records that secrets of unknown connections are tried with.
const MAX_TRIED: usize = 8;

/// Bytes of records that one call may read to try secrets of which it is not known whether they are
/// right: some 10 ms.
const TRIED_BYTES: u64 = 16 << 20;

/// Of these, a try takes at least this many.
const MIN_COST: u64 = 64;

/// Suites of TLS 1.3, where the handshake was not seen.
const SUITES: [Suite; 3] = [Suite(0x1302), Suite(0x1301), Suite(0x1303)];

/// Takes a key that a search has found. Returns whether it opens the record that it is said to
/// open.
pub(crate) fn take_found(state: &mut State, found: FoundKey) -> bool {
    let FoundKey { sender, seq, version, key, nonce, number } = found;
    if matches!(state.side_of(sender).key, Key::Open(_)) {
        return false;
    }
    let is_it = |entry: &Entry| matches!(entry, Entry::Record(held) if held.seq == seq);
    let place = state.queue.of(sender).position(is_it);
    let Some((place, held)) = place.zip(state.queue.records(sender).find(|held| held.seq == seq)) else {
        return take_late(state, sender, Opener::found(key, version, nonce, number));
    };
    let number = number.or(held.number);
    let Some(mut opener) = Opener::found(key, version, nonce, number) else { return false };
    let mut out = Bytes::default();
    if opener.open(held.header, held.body.as_slice(), Missing::NONE, 1, &mut out).is_none() {
        return false;
    }
    // Those before it are its own for as long as it opens them, one after the other.
    let mut first = First { held, nonce, number };
    let mut missing = Missing::NONE;
    let before: Vec<&Entry> = state.queue.of(sender).take(place).collect();
    let mut nothing_lost = true;
    for entry in before.into_iter().rev() {
        match entry {
            Entry::Lost { bytes, records } => missing = missing.and(*bytes, *records),
            Entry::Record(held) => match first.before(held, &mut opener, version, missing, &mut out) {
                Some(before) => (first, missing) = (before, Missing::NONE),
                None => break,
            },
        }
    }
    let start = first.held.seq;
    for entry in state.queue.of(sender) {
        match entry {
            Entry::Lost { .. } => nothing_lost = false,
            Entry::Record(held) if held.seq == start => break,
            Entry::Record(_) => (),
        }
    }
    if version == Version::Tls13 && state.side_of(sender).handshake.fresh && nothing_lost {
        opener.begins(first.nonce);
    } else {
        opener.goes_on(first.nonce, first.number);
    }
    state.side(sender).take_key(Open { start: Some(start), waiting: false, ..Open::new(opener) });
    true
}

/// A key that was proved by a record which is gone: the direction was given up, or what it held was
/// shed. What is held since, or what comes next, shows whether it is right.
fn take_late(state: &mut State, sender: Sender, opener: Option<Opener>) -> bool {
    let side = state.side_of(sender);
    let given_up = matches!(side.key, Key::GivenUp(_));
    // Else it may be the key of before an update, and the next one is looked for.
    let was_shed = side.trials.was_shed && matches!(side.key, Key::Lacking);
    let Some(mut opener) = opener.filter(|_| given_up || was_shed) else { return false };
    let mut out = Bytes::default();
    let first = state
        .queue
        .records(sender)
        .take(MAX_TRIED)
        .find(|held| opener.open(held.header, held.body.as_slice(), UNKNOWN, 1, &mut out).is_some());
    let start = first.map(|held| held.seq);
    let holds = state.queue.records(sender).next().is_some();
    match start {
        Some(_) => opener.step_back(),
        None if holds && was_shed => return false,
        None => state.side(sender).doubt(UNKNOWN),
    }
    state.side(sender).take_key(Open { start, waiting: false, ..Open::new(opener) });
    true
}

/// The first record that a key opens, as far as it is known.
struct First<'a> {
    held: &'a Held,
    nonce: [u8; 12],
    number: Option<u64>,
}

impl First<'_> {
    /// The record before it, if the same key opens that: its nonce has to go with this one's.
    fn before<'a>(
        &self,
        held: &'a Held,
        opener: &mut Opener,
        version: Version,
        missing: Missing,
        out: &mut Bytes,
    ) -> Option<First<'a>> {
        let body = held.body.as_slice();
        match version {
            Version::Tls13 => {
                let nonce = opener.out_of_tag(held.header, body)?;
                Counted::unknown(nonce).after(0)?.seen(self.nonce, missing)?;
                Some(First { held, nonce, number: None })
            }
            Version::Tls12 => {
                let (salt, last) = self.nonce.split_first_chunk::<4>()?;
                let sent = body.first_chunk::<8>()?;
                let steps = match missing.exact() {
                    Some(missed) => missed.checked_add(1)?,
                    None => u64::from_be_bytes(last.try_into().ok()?).wrapping_sub(u64::from_be_bytes(*sent)),
                };
                let number = self.number?.checked_sub(steps)?;
                let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (*salt, *sent);
                let nonce = [a, b, c, d, e, f, g, h, i, j, k, l];
                opener.goes_on(nonce, Some(number));
                opener.open(held.header, body, Missing::NONE, 1, out)?;
                Some(First { held, nonce, number: Some(number) })
            }
        }
    }
}

/// Takes secrets of TLS 1.3 that may be another connection's. Returns whether they open something.
pub(crate) fn try_secrets(state: &mut State, secrets: &Secrets, again: bool) -> bool {
    let mut taken = false;
    for sender in [Sender::Client, Sender::Server] {
        if matches!(state.side_of(sender).key, Key::Lacking)
            && let Some(secret) = of(secrets, sender).0
            && let Some(open) = try_first(state, secret, sender, again)
        {
            let side = state.side(sender);
            side.doubt(Missing::NONE);
            side.take_key(open);
            taken = true;
        }
    }
    taken
}

/// The keys of a secret that was derived in this connection's handshake, if it is this one's: it
/// opens one of its first records.
fn try_first(state: &State, secret: &[u8], sender: Sender, again: bool) -> Option<Open> {
    let hello = &state.hello;
    if hello.version == Some(Version::Tls12) {
        return None;
    }
    let skip = if again { state.side_of(sender).trials.tried_first } else { 0 };
    // Those before it are of the handshake.
    let held = || state.queue.records(sender).take(usize::from(MAX_HANDSHAKE_RECORDS)).skip(skip);
    // Else the keys are not derived.
    held().next()?;
    let mut out = Bytes::default();
    hello.suite.as_ref().map_or(&SUITES[..], std::slice::from_ref).iter().find_map(|suite| {
        let mut opener = Opener::tls13(secret, *suite, 0)?;
        let held = held().find(|held| {
            opener.open(held.header, held.body.as_slice(), FIRST, MAX_TRIES, &mut out).is_some()
        })?;
        opener.step_back();
        Some(Open { start: Some(held.seq), waiting: false, ..Open::new(opener) })
    })
}

/// Takes secrets. Returns whether they open something, or may.
pub(crate) fn take_secrets(state: &mut State, secrets: &Secrets) -> bool {
    let mut taken = false;
    let mut allowance = TRIED_BYTES;
    for sender in [Sender::Client, Sender::Server] {
        if matches!(state.side_of(sender).key, Key::Open(_)) {
            continue;
        }
        // Secrets are looked up by the client's random, so where that is known they are this
        // connection's.
        let hello = &state.hello;
        let whole = hello.client_random.is_some() && hello.suite.is_some() && hello.version.is_some();
        let sure = whole && !state.side_of(sender).trials.distrust;
        let open = match sure {
            true => adopt(state, secrets, sender),
            false => try_held(state, secrets, sender, &mut allowance),
        };
        if let Some((open, missing)) = open {
            let side = state.side(sender);
            side.doubt(missing);
            side.take_key(open);
            taken = true;
        }
    }
    taken
}

/// The keys of secrets that are this connection's, and what number may be the next.
fn adopt(state: &State, secrets: &Secrets, sender: Sender) -> Option<(Open, Missing)> {
    let hello = &state.hello;
    let side = state.side_of(sender);
    let suite = hello.suite?;
    let next = state.queue.records(sender).next().map_or(side.handshake.passed, |held| held.number);
    match hello.version? {
        Version::Tls12 => {
            let missing = if next.is_some() { Missing::NONE } else { UNKNOWN };
            let opener = tls12(state, secrets, sender, next.unwrap_or(0))?;
            Some((Open::new(opener), missing))
        }
        Version::Tls13 => {
            let (traffic, handshake) = of(secrets, sender);
            let traffic = traffic.as_ref()?;
            // Some records of the handshake have passed before, and they do not count.
            let handshake_records = u64::from(MAX_HANDSHAKE_RECORDS);
            let (number, missing) = match next {
                Some(0) if side.handshake.fresh => (0, Missing::NONE),
                Some(next) => {
                    (next.saturating_sub(handshake_records), Missing { min: 0, max: handshake_records })
                }
                None => (0, UNKNOWN),
            };
            let opener = Opener::tls13(traffic, suite, number)?;
            let handshake = handshake.as_ref().filter(|_| missing == Missing::NONE);
            let open = match handshake.and_then(|secret| Opener::tls13(secret, suite, 0)) {
                Some(handshake) => Open { then: Some(opener), ..Open::new(handshake) },
                None => Open::new(opener),
            };
            Some((open, missing))
        }
    }
}

/// The keys of secrets that may be another connection's, or older: they have to open a record that
/// is held. What was tried before is not tried again.
fn try_held(
    state: &mut State,
    secrets: &Secrets,
    sender: Sender,
    allowance: &mut u64,
) -> Option<(Open, Missing)> {
    let print = fingerprint(state, secrets, sender);
    let tried = state.side_of(sender).trials.tried;
    let skip = if tried.0 == print { tried.1 } else { 0 };
    let held = state.queue.records(sender).take(MAX_TRIED).count();
    state.side(sender).trials.tried = (print, held.max(skip));
    if held <= skip {
        return None;
    }
    let openers = openers(state, secrets, sender);
    let mut left = u64::try_from(openers.len()).unwrap_or(u64::MAX);
    for opener in openers {
        // A key that takes little leaves more to those behind it.
        let mut share = allowance.checked_div(left).unwrap_or(0);
        *allowance = allowance.saturating_sub(share);
        left = left.saturating_sub(1);
        let open = try_opener(state, sender, opener, skip, &mut share);
        *allowance = allowance.saturating_add(share);
        if let Some(open) = open {
            return Some((open, Missing::NONE));
        }
    }
    None
}

/// All keys that secrets may have become.
fn openers(state: &State, secrets: &Secrets, sender: Sender) -> Vec<Opener> {
    let hello = &state.hello;
    let mut openers = Vec::new();
    if hello.version != Some(Version::Tls13) {
        openers.extend(tls12(state, secrets, sender, 0));
    }
    let traffic = of(secrets, sender).0.as_ref().filter(|_| hello.version != Some(Version::Tls12));
    let Some(traffic) = traffic else { return openers };
    for suite in hello.suite.as_ref().map_or(&SUITES[..], std::slice::from_ref) {
        let Some(hash) = suite.hash() else { continue };
        let mut secret = traffic.clone();
        for _ in 0..MAX_UPDATES {
            let Some(opener) = Opener::tls13(&secret, *suite, 0) else { break };
            openers.push(opener);
            let Some(next) = secret::next_traffic_secret(&secret, hash) else { break };
            secret = next;
        }
    }
    openers
}

/// Changes with the secrets of a direction, and with what of the handshake goes into its keys.
fn fingerprint(state: &State, secrets: &Secrets, sender: Sender) -> u64 {
    let hello = &state.hello;
    let randoms = (hello.client_random, hello.server_random);
    let secrets = (secrets.master.as_deref(), of(secrets, sender).0.as_deref());
    BuildHasherDefault::<DefaultHasher>::default().hash_one((
        secrets,
        randoms,
        hello.suite.map(|suite| suite.0),
    ))
}

/// A key of which no number is known. Short records are tried first, as they cost least; then those
/// before them. The first `skip` records were tried before.
fn try_opener(
    state: &State,
    sender: Sender,
    mut opener: Opener,
    skip: usize,
    allowance: &mut u64,
) -> Option<Open> {
    let mut out = Bytes::default();
    let mut held: Vec<(usize, &Held)> =
        state.queue.records(sender).take(MAX_TRIED).enumerate().skip(skip).collect();
    held.sort_by_key(|(_, held)| held.body.as_slice().len());
    let reached = state.side_of(sender).trials.reached;
    let (place, mut first) =
        held.into_iter().find(|(_, held)| try_record(&mut opener, held, reached, allowance, &mut out))?;
    let mut number = opener.number()?;
    let before: Vec<&Held> = state.queue.records(sender).take(place).collect();
    for held in before.into_iter().rev() {
        let Some(one_less) = number.checked_sub(1) else { break };
        opener.expect(one_less);
        if opener.open(held.header, held.body.as_slice(), Missing::NONE, 1, &mut out).is_none() {
            break;
        }
        (number, first) = (one_less, held);
    }
    opener.expect(number);
    Some(Open { start: Some(first.seq), waiting: false, ..Open::new(opener) })
}

/// Tries a record with the numbers that it may have: around those that passed before it or behind
/// the last that was opened, and from zero on, as behind a KeyUpdate.
fn try_record(
    opener: &mut Opener,
    held: &Held,
    reached: Option<u64>,
    allowance: &mut u64,
    out: &mut Bytes,
) -> bool {
    let body = held.body.as_slice();
    let len = u64::try_from(body.len()).unwrap_or(u64::MAX).max(MIN_COST);
    let handshake_records = u64::from(MAX_HANDSHAKE_RECORDS);
    let likely = held.number.map(|number| (number.saturating_sub(handshake_records), handshake_records + 1));
    let likely = likely.or(reached.map(|number| (number, MAX_TRIES)));
    let from_zero = likely.is_none_or(|(number, _)| number > 0).then_some((0, MAX_TRIES));
    for (number, most) in likely.into_iter().chain(from_zero) {
        // The tag of TLS 1.3 with AES-GCM gives the number, and costs about as much as two tries.
        // Else half of what is left is left to the others.
        let by_tag = opener.proves() && opener.version() == Version::Tls13;
        let tries = if by_tag { 2 } else { most.min((*allowance / 2).checked_div(len).unwrap_or(0)) };
        let Some(left) = allowance.checked_sub(tries.saturating_mul(len)).filter(|_| tries > 0) else {
            return false;
        };
        *allowance = left;
        opener.expect(number);
        if opener.open(held.header, body, UNKNOWN, tries, out).is_some() {
            return true;
        }
    }
    false
}

fn tls12(state: &State, secrets: &Secrets, sender: Sender, number: u64) -> Option<Opener> {
    let hello = &state.hello;
    let (client_random, server_random) = (hello.client_random.as_ref()?, hello.server_random.as_ref()?);
    let master = secrets.master.as_ref()?;
    let (client, server) = secret::tls12_keys(master, client_random, server_random, hello.suite?)?;
    let keys = if sender == Sender::Client { client } else { server };
    Opener::tls12(&keys, hello.encrypt_then_mac, number)
}

type Secret = Option<zeroize::Zeroizing<Vec<u8>>>;

/// The secrets of a direction: of its traffic, and of its handshake.
fn of(secrets: &Secrets, sender: Sender) -> (&Secret, &Secret) {
    match sender {
        Sender::Client => (&secrets.client_traffic, &secrets.client_handshake),
        Sender::Server => (&secrets.server_traffic, &secrets.server_handshake),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    fn session(records: u8) -> (Session, Secrets) {
        let mut session = Session::new(false);
        let record = |kind: u8, body: &[u8]| {
            let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[kind, 3, 3, high, low], body].concat()
        };
        for number in 0..records {
            let bytes = record(23, &[number; 500]);
            session.data(Sender::Client, u32::from(number) * 505, &bytes, 1, &mut |_, _| ());
        }
        let secret = Some(zeroize::Zeroizing::new(vec![7; 32]));
        (session, Secrets { client_traffic: secret, ..Secrets::default() })
    }

    /// What trials read.
    fn cost(session: &mut Session, secrets: &Secrets) -> u64 {
        let mut allowance = TRIED_BYTES;
        assert!(try_held(&mut session.state, secrets, Sender::Client, &mut allowance).is_none());
        TRIED_BYTES - allowance
    }

    #[test]
    fn secrets_that_open_nothing_are_tried_once() {
        let (mut session, mut secrets) = session(3);
        let first = cost(&mut session, &secrets);
        assert!(first > 1 << 20 && first <= TRIED_BYTES, "{first}");
        assert_eq!(cost(&mut session, &secrets), 0);
        secrets.client_traffic = Some(zeroize::Zeroizing::new(vec![8; 32]));
        assert!(cost(&mut session, &secrets) > 0, "others");
        assert_eq!(cost(&mut session, &secrets), 0);
        // A record that was not tried.
        let record = [&[23, 3, 3, 1, 244][..], &[9; 500]].concat();
        session.data(Sender::Client, 3 * 505, &record, 1, &mut |_, _| ());
        assert!(cost(&mut session, &secrets) > 0);
        assert_eq!(cost(&mut session, &secrets), 0);
    }
}
