//! One connection's TLS: records of both directions wait for keys, and are opened in the order in
//! which they passed.

use crate::hello::{CLIENT_HELLO, SERVER_HELLO};
use crate::queue::{Entry, Held, Queue};
use crate::record::{
    ALERT, APPLICATION_DATA, Bytes, CHANGE_CIPHER_SPEC, Framer, HANDSHAKE, Header, Piece, Record, Step,
};
use crate::sample::{FoundKey, Samples};
use crate::secret::Secrets;
use crate::side::{Key, MAX_HANDSHAKE_RECORDS, Outcome, Place, Side};
use crate::state::State;
use crate::{Sender, Version, keys};

pub use crate::counts::{Closed, Counts};
pub use crate::hello::Hello;

/// Plaintext of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    /// Plaintext, in order.
    Data {
        /// Position: the TCP sequence number of the record's header, and how far within the
        /// record's plaintext the bytes begin. Both ends of a connection agree on it, and no two
        /// bytes share one, as a record is longer than its plaintext.
        seq: u32,
        /// The plaintext.
        bytes: &'a [u8],
        /// When the last byte of the record passed the socket.
        time_ns: u64,
    },
    /// Plaintext that will not come.
    Gap {
        /// How many bytes: exactly, or at most.
        bytes: u64,
        /// Whether it is exactly `bytes`.
        exact: bool,
    },
}

/// The TLS of one connection: takes ciphertext of both directions and keys, gives plaintext.
///
/// ```text
///              handshake in the clear ─▶ hello
///            ╱
///  framer ──▶ protected, both directions have a key and nothing is held ─▶ opened at once
///            ╲
///              else held, both directions in one queue, until keys come or are given up
/// ```
pub struct Session {
    pub(crate) state: State,
    samples_number: u32,
    is_open: bool,
    counts: Counts,
}

/// What a record is by its header, and by what came before it.
enum Class {
    Handshake,
    ChangeCipherSpec,
    Alert,
    Protected,
    /// Of a handshake that cannot be followed.
    Ignored,
}

impl Session {
    /// `from_beginning`: both directions are seen from their first byte on.
    #[must_use]
    pub fn new(from_beginning: bool) -> Self {
        Self {
            state: State::new(from_beginning),
            samples_number: 0,
            is_open: false,
            counts: Counts::default(),
        }
    }

    /// Ciphertext, in order. What it completes is given: also of the other direction, where that
    /// has waited for this one.
    pub fn data(
        &mut self,
        from: Sender,
        seq: u32,
        bytes: &[u8],
        time_ns: u64,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
        let mut piece = Piece { seq, bytes, time_ns };
        let mut out = Bytes::default();
        let side = self.state.side(from);
        if !side.flow.started && !bytes.is_empty() {
            side.flow.started = true;
            if begins_with_hello(bytes) && side.handshake.passed.is_none() {
                *side = Side::new(true);
                side.flow.started = true;
            }
        }
        loop {
            let side = self.state.side(from);
            if side.flow.ended {
                return;
            }
            let proves = side.proves();
            match side.framer.next(&mut piece, proves) {
                Step::Record(record) => self.record(from, record, &mut out, give),
                Step::Lost(bytes) => self.lost(from, bytes, None, time_ns, give),
                Step::Prove => self.prove(from, &mut out),
                Step::Done => return,
            }
        }
    }

    /// Ciphertext that was lost.
    pub fn gap(&mut self, from: Sender, bytes: u64, give: &mut impl FnMut(Sender, Plain<'_>)) {
        let time_ns = self.state.queue.since().unwrap_or(0);
        let side = self.state.side(from);
        if side.flow.ended {
            return;
        }
        side.flow.started = true;
        let clear = !side.handshake.protected && side.handshake.passed == Some(0);
        let taken = side.framer.gap(bytes);
        side.handshake.fresh = false;
        if clear {
            side.handshake.blind = true;
            side.handshake.messages.forget();
        }
        if taken.records == Some(0) {
            return;
        }
        if clear && taken.records.is_some() {
            // A record of the handshake: it has no number, and is no plaintext.
            side.handshake.passed = None;
            self.counts.failed = self.counts.failed.saturating_add(1);
            self.counts.lost_bytes = self.counts.lost_bytes.saturating_add(taken.bytes);
            return;
        }
        self.lost(from, taken.bytes, taken.records, time_ns, give);
    }

    /// What the handshake has said.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.state.hello
    }

    /// Directions that hold protected records which no key opens: what a search is asked for. Empty
    /// where nothing is wanted.
    #[must_use]
    pub fn lacks(&self) -> &[Sender] {
        match (self.state.client.lacks(), self.state.server.lacks()) {
            (false, false) => &[],
            (true, false) => &[Sender::Client],
            (false, true) => &[Sender::Server],
            (true, true) => &[Sender::Client, Sender::Server],
        }
    }

    /// Records of the directions that lack a key: at most 8 of each, 16 KiB of each together, or
    /// one.
    #[must_use]
    pub fn samples(&self) -> Samples {
        let version = self.state.hello.version;
        let of =
            |sender, lacks: bool| if lacks { self.state.queue.samples(sender, version) } else { Vec::new() };
        Samples {
            client: of(Sender::Client, self.state.client.lacks()),
            server: of(Sender::Server, self.state.server.lacks()),
        }
    }

    /// A number that changes when [`Session::samples`] would give more, or others.
    #[must_use]
    pub fn samples_number(&self) -> u32 {
        self.samples_number
    }

    /// Secrets of this connection. What was held for want of them is opened. Returns whether they
    /// opened anything, or may.
    ///
    /// Where the handshake was not seen, they may be those of another connection: they are taken if
    /// they open a record that is held.
    pub fn take_secrets(&mut self, secrets: &Secrets, give: &mut impl FnMut(Sender, Plain<'_>)) -> bool {
        let taken = keys::take_secrets(&mut self.state, secrets);
        self.drain(give);
        taken
    }

    /// Secrets of which is known only that a connection of the same process has derived them: they
    /// are taken if they open one of the first records that are held. What was held for want of
    /// them is opened. `again`: they were tried before the last [`Session::end_trial`], and records
    /// that were held then are not tried again.
    pub fn try_secrets(
        &mut self,
        secrets: &Secrets,
        again: bool,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) -> bool {
        let taken = keys::try_secrets(&mut self.state, secrets, again);
        if taken {
            self.drain(give);
        }
        taken
    }

    /// All secrets that there are were tried with all records that are held.
    pub fn end_trial(&mut self) {
        for sender in [Sender::Client, Sender::Server] {
            let held = self.state.queue.records(sender).take(usize::from(MAX_HANDSHAKE_RECORDS)).count();
            self.state.side(sender).trials.tried_first = held;
        }
    }

    /// A key that opens one of its records.
    pub fn take_key(&mut self, key: FoundKey, give: &mut impl FnMut(Sender, Plain<'_>)) -> bool {
        let taken = keys::take_found(&mut self.state, key);
        self.drain(give);
        taken
    }

    /// No key will come for the directions that lack one: what they hold is lost. A direction that
    /// has a key goes on.
    pub fn give_up(&mut self, why: Closed, give: &mut impl FnMut(Sender, Plain<'_>)) {
        let is_open = |side: &Side| matches!(side.key, Key::Open(_));
        let one_is_open = is_open(&self.state.client) || is_open(&self.state.server);
        let one_lacks = self.state.client.lacks() || self.state.server.lacks();
        for side in [&mut self.state.client, &mut self.state.server] {
            if !matches!(side.key, Key::Lacking | Key::Absent) {
                continue;
            }
            // A direction that has not spoken may get its key yet, if the other one has its own.
            let all = if why == Closed::Full { one_lacks } else { true };
            if side.lacks() && one_is_open {
                self.counts.given_up = Some(why);
            }
            side.key = if side.lacks() || all && !one_is_open { Key::GivenUp(why) } else { Key::Absent };
        }
        self.drain(give);
    }

    /// Held records are lost, but keys are still wanted for those that follow. Returns whether any
    /// were held.
    pub fn shed(&mut self) -> bool {
        let waited = !self.state.queue.is_empty();
        while let Some((from, entry, _)) = self.state.queue.pop() {
            let (bytes, records) = match entry {
                Entry::Record(held) => {
                    self.counts.lost_bytes = self.counts.lost_bytes.saturating_add(held.bytes());
                    (held.bytes(), Some(1))
                }
                // Counted when it was lost.
                Entry::Lost { bytes, records } => (bytes, records),
            };
            if !self.state.side_of(from).flow.goes_on {
                self.counts.not_given_bytes = self.counts.not_given_bytes.saturating_add(bytes);
            }
            let side = self.state.side(from);
            side.flow.doubtful = true;
            side.lose(bytes, records);
            // The key that comes may not be asked for what is gone.
            (side.samples, side.handshake.fresh) = (0, false);
            side.trials.was_shed = matches!(side.key, Key::Lacking);
            side.trials.tried_first = 0;
        }
        self.samples_number = self.samples_number.wrapping_add(u32::from(waited));
        waited
    }

    /// Why nothing of it is read, once that is so for both directions.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        match (&self.state.client.key, &self.state.server.key) {
            (Key::GivenUp(why), Key::GivenUp(_)) => Some(*why),
            _ => None,
        }
    }

    /// Whether a record was opened, in either direction.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Bytes of ciphertext that wait for a key, and when the first of them passed.
    #[must_use]
    pub fn held(&self) -> Option<(usize, u64)> {
        self.state.queue.since().map(|since| (self.state.queue.bytes(), since))
    }

    /// All bytes that the session holds beyond its own size.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let sides = self.state.client.held_bytes().saturating_add(self.state.server.held_bytes());
        self.state.queue.held_bytes().saturating_add(sides)
    }

    /// What was counted since the last time.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Whether something of the client's direction, and of the server's, was lost or began to wait
    /// for another key since the last call. A gap is given with the next plaintext only, and that
    /// may be long in coming.
    pub fn take_doubts(&mut self) -> [bool; 2] {
        [&mut self.state.client, &mut self.state.server].map(|side| std::mem::take(&mut side.flow.doubtful))
    }

    fn record(
        &mut self,
        from: Sender,
        record: Record<'_>,
        out: &mut Bytes,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
        let body = record.body.as_slice();
        match self.classify(from, record.header, body) {
            Class::Handshake => self.handshake(from, body, give),
            Class::ChangeCipherSpec => {
                // In TLS 1.3 it means nothing. Which version it is may not be known yet.
                let tls13 = self.state.hello.version == Some(Version::Tls13);
                let side = self.state.side(from);
                if !tls13 {
                    side.handshake.protected = true;
                    side.handshake.passed = Some(0);
                    side.handshake.fresh = true;
                    // What is missing before it was in the clear.
                    side.forget_lost();
                }
            }
            // close_notify, or what is fatal.
            Class::Alert => self.state.side(from).flow.ended = matches!(body, [2, _] | [_, 0]),
            Class::Protected => self.protected(from, record, out, give),
            Class::Ignored => (),
        }
    }

    fn classify(&self, from: Sender, header: Header, body: &[u8]) -> Class {
        let side = self.state.side_of(from);
        let version = self.state.hello.version;
        match header.kind() {
            APPLICATION_DATA => Class::Protected,
            // Behind a HelloRetryRequest that was not seen yet.
            HANDSHAKE
                if side.handshake.protected
                    && version.is_none()
                    && side.handshake.passed == Some(0)
                    && is_hello(body) =>
            {
                Class::Handshake
            }
            CHANGE_CIPHER_SPEC if body.len() == 1 => {
                if side.handshake.passed.is_none() && side.handshake.protected {
                    Class::Ignored
                } else {
                    Class::ChangeCipherSpec
                }
            }
            _ if side.handshake.protected && version != Some(Version::Tls13) => Class::Protected,
            HANDSHAKE if !side.handshake.blind => Class::Handshake,
            ALERT if body.len() == 2 => Class::Alert,
            _ => Class::Ignored,
        }
    }

    fn handshake(&mut self, from: Sender, body: &[u8], give: &mut impl FnMut(Sender, Plain<'_>)) {
        let (side, hello) = match from {
            Sender::Client => (&mut self.state.client, &mut self.state.hello),
            Sender::Server => (&mut self.state.server, &mut self.state.hello),
        };
        let mut settled = false;
        side.handshake.messages.push(body, |kind, body| match (kind, from) {
            (CLIENT_HELLO, Sender::Client) => drop(hello.client(body)),
            (SERVER_HELLO, Sender::Server) => settled |= hello.server(body) == Some(true),
            _ => (),
        });
        let readable = hello.version.is_some() && hello.suite.is_some_and(|suite| suite.cipher().is_some());
        if settled && !readable {
            self.give_up(Closed::NoKey, give);
        }
    }

    fn protected(
        &mut self,
        from: Sender,
        record: Record<'_>,
        out: &mut Bytes,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
        let kind = record.header.kind();
        let sample = self.is_sample(from, kind);
        let version = self.state.hello.version;
        let side = self.state.side(from);
        let number = side.handshake.passed;
        side.handshake.passed = match version {
            // A new handshake has ended.
            Some(Version::Tls12) if kind == CHANGE_CIPHER_SPEC => Some(0),
            _ => number.map(|number| number.saturating_add(1)),
        };
        if sample && matches!(side.key, Key::Absent) {
            side.key = Key::Lacking;
        }
        if self.state.queue.is_empty() && self.is_decided() {
            let place = Place { seq: record.seq, header: record.header, body: record.body.as_slice() };
            self.open(from, place, record.time_ns, out, give);
            self.state.side(from).framer.reuse(record.body);
            return;
        }
        let held = Held { seq: record.seq, header: record.header, number, sample, body: record.body.into() };
        self.state.queue.push(from, Entry::Record(held), record.time_ns);
        if sample {
            let side = self.state.side(from);
            side.samples = side.samples.saturating_add(1);
            let samples = side.samples;
            if samples <= Queue::MAX_SAMPLES || samples.is_power_of_two() {
                self.samples_number = self.samples_number.wrapping_add(1);
            }
        }
        self.drain(give);
    }

    /// Whether a key that a search may find opens the record, as far as one can say. In TLS 1.3 the
    /// handshake's own records have keys that are gone soon: the first of the client, and those of
    /// the server that come before it.
    fn is_sample(&self, from: Sender, kind: u8) -> bool {
        let side = self.state.side_of(from);
        match self.state.hello.version {
            Some(Version::Tls13) => {
                side.handshake.passed.is_none() || self.state.client.handshake.passed != Some(0)
            }
            Some(Version::Tls12) => matches!(kind, APPLICATION_DATA | HANDSHAKE),
            None => kind == APPLICATION_DATA,
        }
    }

    fn lost(
        &mut self,
        from: Sender,
        bytes: u64,
        records: Option<u64>,
        time_ns: u64,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
        let side = self.state.side(from);
        side.handshake.passed = records.and_then(|records| side.handshake.passed?.checked_add(records));
        side.flow.doubtful = true;
        self.counts.lost_bytes = self.counts.lost_bytes.saturating_add(bytes);
        self.counts.failed = self.counts.failed.saturating_add(records.unwrap_or(0));
        if self.state.queue.is_empty() {
            let side = self.state.side(from);
            side.lose(bytes, records);
            self.give_gap(from, give);
        } else {
            self.state.queue.push(from, Entry::Lost { bytes, records }, time_ns);
        }
    }

    /// What is lost of a direction that is given up is a gap at once.
    fn give_gap(&mut self, from: Sender, give: &mut impl FnMut(Sender, Plain<'_>)) {
        let side = self.state.side(from);
        if matches!(side.key, Key::GivenUp(_))
            && let Some(gap) = side.take_gap()
        {
            give(from, Plain::Gap { bytes: gap.bytes, exact: gap.exact });
        }
    }

    fn prove(&mut self, from: Sender, out: &mut Bytes) {
        let waiting = u64::try_from(self.state.queue.bytes_of(from)).unwrap_or(u64::MAX);
        let side = self.state.side(from);
        let framer = std::mem::replace(&mut side.framer, Framer::new(false));
        let proved = framer
            .candidate()
            .is_some_and(|(seq, header, body)| side.fits(Place { seq, header, body }, waiting, out));
        side.framer = framer;
        side.framer.judge(proved);
    }

    fn is_decided(&self) -> bool {
        self.state.client.decided() && self.state.server.decided()
    }

    /// Opens what is held, for as long as both directions have keys, or will have none.
    fn drain(&mut self, give: &mut impl FnMut(Sender, Plain<'_>)) {
        let mut out = Bytes::default();
        while self.is_decided()
            && let Some((from, entry, time_ns)) = self.state.queue.pop()
        {
            match entry {
                Entry::Record(held) => {
                    if held.sample {
                        let side = self.state.side(from);
                        side.samples = side.samples.saturating_sub(1);
                    }
                    let place = Place { seq: held.seq, header: held.header, body: held.body.as_slice() };
                    self.open(from, place, time_ns, &mut out, give);
                }
                Entry::Lost { bytes, records } => {
                    self.state.side(from).lose(bytes, records);
                    self.give_gap(from, give);
                }
            }
        }
    }

    fn open(
        &mut self,
        from: Sender,
        place: Place<'_>,
        time_ns: u64,
        out: &mut Bytes,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
        let (side, counts) = match from {
            Sender::Client => (&mut self.state.client, &mut self.counts),
            Sender::Server => (&mut self.state.server, &mut self.counts),
        };
        let outcome = side.open(place, out, counts);
        if !side.decided() {
            // What comes next, or waits already, is asked for anew.
            self.samples_number = self.samples_number.wrapping_add(1);
        }
        match outcome {
            Outcome::Data { opened, gap } => {
                self.is_open = true;
                if let Some(gap) = gap {
                    give(from, Plain::Gap { bytes: gap.bytes, exact: gap.exact });
                }
                let bytes = out.0.get(opened.plain).unwrap_or_default();
                if !bytes.is_empty() {
                    give(from, Plain::Data { seq: place.seq, bytes, time_ns });
                }
            }
            Outcome::Other => self.is_open = true,
            Outcome::GivenUp => self.give_gap(from, give),
            Outcome::Failed | Outcome::Skipped => (),
        }
    }
}

/// Whether a direction begins with a hello: a handshake record that begins with one.
fn begins_with_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO | SERVER_HELLO, 0, ..])
}

/// Whether the body of a handshake record is a ClientHello.
fn is_hello(body: &[u8]) -> bool {
    let [CLIENT_HELLO, 0, high, low, rest @ ..] = body else { return false };
    rest.len() == u16::from_be_bytes([*high, *low]).into()
}
