//! One direction of a session: what is known of it, and how its records are opened.

use crate::Version;
use crate::counts::{Closed, Counts};
use crate::hello::{FINISHED, KEY_UPDATE, Messages};
use crate::number::Missing;
use crate::open::{MAX_TRIES, Opened, Opener};
use crate::record::{ALERT, APPLICATION_DATA, Bytes, CHANGE_CIPHER_SPEC, Framer, HANDSHAKE, HEADER, Header};

/// A record that is opened, where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) seq: u32,
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
}

impl Place<'_> {
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.body.len().saturating_add(HEADER)).unwrap_or(u64::MAX)
    }
}

/// Records in a row that a key may fail to open before it is taken for a key of before.
const MAX_STRIKES: u8 = 3;

/// Records of a handshake that may come before those of the traffic key: five messages of a server,
/// a certificate of which may take several.
pub(crate) const MAX_HANDSHAKE_RECORDS: u8 = 32;

/// Plaintext of a record.
const MAX_PLAIN: u64 = 1 << 14;

pub(crate) struct Side {
    pub(crate) framer: Framer,
    pub(crate) handshake: Handshake,
    pub(crate) key: Key,
    pub(crate) trials: Trials,
    pub(crate) flow: Flow,
    /// Queued records that samples are taken of.
    pub(crate) samples: usize,
    /// Handshake records that were passed over because the traffic key does not open them.
    skipped: u8,
    strikes: u8,
    /// Since the last record that was opened.
    lost: Lost,
    /// Where the last record that was opened ends.
    end: Option<u32>,
    /// Comes before the next data.
    gap: Option<Gap>,
}

/// How far its handshake is, and what is known of the numbers of its records by that.
pub(crate) struct Handshake {
    pub(crate) messages: Messages,
    /// TLS 1.2: its ChangeCipherSpec has passed; or that is not known.
    pub(crate) protected: bool,
    /// A part of its clear handshake was missed.
    pub(crate) blind: bool,
    /// Protected records that have passed since its beginning (TLS 1.2: since its
    /// ChangeCipherSpec); `None` where that is not known.
    pub(crate) passed: Option<u64>,
    /// The first record under the key that comes next has number 0: none of them was missed.
    pub(crate) fresh: bool,
}

/// What keys were tried, and what that has shown.
#[derive(Default)]
pub(crate) struct Trials {
    /// Of secrets that were tried, which opened nothing: a number that changes with them, and with
    /// how many of the records that are held.
    pub(crate) tried: (u64, usize),
    /// How many of the first records that are held were tried with all secrets that probes had
    /// seen.
    pub(crate) tried_first: usize,
    /// The number of the last record that was opened before the key was taken for a key of before.
    pub(crate) reached: Option<u64>,
    /// A key was wrong: the next one has to open something first.
    pub(crate) distrust: bool,
    /// What was held for want of the current key is gone, and a search may still find the key by
    /// it.
    pub(crate) was_shed: bool,
}

/// Where its data stands.
#[derive(Default)]
pub(crate) struct Flow {
    /// Whether a byte has come.
    pub(crate) started: bool,
    /// It is over.
    pub(crate) ended: bool,
    /// Its plaintext goes on from its beginning, or from what was given: a gap says that some is
    /// missing.
    pub(crate) goes_on: bool,
    /// Application data was opened.
    pub(crate) read: bool,
    /// Some of it was lost, or waits for another key, since the user of the session last asked.
    pub(crate) doubtful: bool,
}

#[derive(Default)]
struct Lost {
    records: Missing,
    /// Of ciphertext.
    bytes: u64,
    /// Of which a gap was given.
    given: u64,
}

pub(crate) enum Key {
    /// Records wait for one.
    Lacking,
    /// None is there, and the other direction does not wait for it, until there are records.
    Absent,
    Open(Box<Open>),
    GivenUp(Closed),
}

pub(crate) struct Open {
    pub(crate) opener: Opener,
    /// The first record that it opens: those before are not its own.
    pub(crate) start: Option<u32>,
    /// It has opened none: those that it does not open may be of the handshake.
    pub(crate) waiting: bool,
    /// It is a key of the handshake, and the traffic key comes behind it.
    pub(crate) then: Option<Opener>,
}

impl Open {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, start: None, waiting: true, then: None }
    }
}

/// What a record was.
pub(crate) enum Outcome {
    /// Application data.
    Data { opened: Opened, gap: Option<Gap> },
    /// Opened, and nothing to give.
    Other,
    /// It failed, and is lost.
    Failed,
    /// Lost, as no key will come.
    GivenUp,
    /// One of a handshake: no loss.
    Skipped,
}

pub(crate) struct Gap {
    pub(crate) bytes: u64,
    pub(crate) exact: bool,
}

impl Side {
    pub(crate) fn new(from_beginning: bool) -> Self {
        Self {
            framer: Framer::new(from_beginning),
            handshake: Handshake {
                messages: Messages::default(),
                protected: !from_beginning,
                blind: !from_beginning,
                passed: from_beginning.then_some(0),
                fresh: from_beginning,
            },
            key: Key::Lacking,
            trials: Trials::default(),
            flow: Flow { goes_on: from_beginning, ..Flow::default() },
            samples: 0,
            skipped: 0,
            strikes: 0,
            lost: Lost::default(),
            end: None,
            gap: None,
        }
    }

    /// Whether nothing waits for a key of this direction.
    pub(crate) fn decided(&self) -> bool {
        self.flow.ended || !matches!(self.key, Key::Lacking)
    }

    pub(crate) fn lacks(&self) -> bool {
        matches!(self.key, Key::Lacking) && self.samples > 0 && !self.flow.ended
    }

    /// Whether it has a key that proves records behind a gap.
    pub(crate) fn proves(&self) -> bool {
        matches!(&self.key, Key::Open(open) if open.opener.proves())
    }

    pub(crate) fn held_bytes(&self) -> usize {
        let key = if matches!(self.key, Key::Open(_)) { KEY_BYTES } else { 0 };
        self.framer.held_bytes().saturating_add(self.handshake.messages.held_bytes()).saturating_add(key)
    }

    /// Records are lost: exactly `records`, or as many as their bytes may be.
    pub(crate) fn lose(&mut self, bytes: u64, records: Option<u64>) {
        let lost = &mut self.lost;
        lost.bytes = lost.bytes.saturating_add(bytes);
        lost.records = lost.records.and(bytes, records);
    }

    /// What is lost so far was no plaintext.
    pub(crate) fn forget_lost(&mut self) {
        self.lost = Lost::default();
    }

    /// The number of the record that comes next is one of some.
    pub(crate) fn doubt(&mut self, records: Missing) {
        self.lost.records = records;
    }

    /// What is lost and of which no gap was given.
    pub(crate) fn take_gap(&mut self) -> Option<Gap> {
        let before = self.gap.take().map_or(0, |gap| gap.bytes);
        let bytes = self.lost.bytes.saturating_sub(self.lost.given).saturating_add(before);
        self.lost.given = self.lost.bytes;
        (bytes > 0 && self.flow.goes_on).then_some(Gap { bytes, exact: false })
    }

    /// A record has a key no more, from here on.
    pub(crate) fn lack(&mut self, fresh: bool) {
        self.trials.reached = match &self.key {
            Key::Open(open) if !fresh => open.opener.number(),
            _ => None,
        };
        self.key = Key::Lacking;
        self.flow.doubtful = true;
        self.trials.was_shed = false;
        self.handshake.fresh = fresh;
        self.strikes = 0;
        self.handshake.messages.forget();
        if fresh {
            self.lost.records = Missing::NONE;
        }
    }

    pub(crate) fn take_key(&mut self, open: Open) {
        self.key = Key::Open(Box::new(open));
        (self.trials.was_shed, self.trials.tried, self.trials.tried_first) = (false, (0, 0), 0);
        self.strikes = 0;
        self.handshake.messages.forget();
    }

    /// Whether a candidate behind a gap is a record, by its tag. `waiting`: bytes of this direction
    /// that wait before it.
    pub(crate) fn fits(&mut self, place: Place<'_>, waiting: u64, out: &mut Bytes) -> bool {
        let Key::Open(open) = &mut self.key else { return false };
        let missing = self.lost.records.and(waiting, None);
        open.opener.fits(place.header, place.body, missing, out)
    }

    /// Opens the next record of this direction, into `out`.
    pub(crate) fn open(&mut self, place: Place<'_>, out: &mut Bytes, counts: &mut Counts) -> Outcome {
        if self.flow.ended {
            return Outcome::Skipped;
        }
        let open = match &mut self.key {
            Key::Open(open) => open,
            Key::Absent => return Outcome::Skipped,
            Key::Lacking | Key::GivenUp(_) => {
                counts.lost_bytes = counts.lost_bytes.saturating_add(place.bytes());
                if !self.flow.goes_on {
                    counts.not_given_bytes = counts.not_given_bytes.saturating_add(place.bytes());
                }
                self.flow.doubtful = true;
                self.lose(place.bytes(), Some(1));
                return Outcome::GivenUp;
            }
        };
        if let Some(start) = open.start {
            if start != place.seq {
                return self.before_start(place, counts);
            }
            open.start = None;
            self.lost.records = Missing::NONE;
        }
        let missing = self.lost.records;
        let opened = open.opener.open(place.header, place.body, missing, MAX_TRIES, out);
        match opened.or_else(|| open.open_with_next(place, missing, out)) {
            Some(opened) => self.opened(place, opened, out, counts),
            None => self.failed(place, counts),
        }
    }

    /// The key that was found opens a later record, and not this one.
    fn before_start(&mut self, place: Place<'_>, counts: &mut Counts) -> Outcome {
        if self.handshake.fresh && !self.flow.read && place.header.kind() == APPLICATION_DATA {
            return Outcome::Skipped;
        }
        self.count_failed(1, counts);
        self.flow.doubtful = true;
        counts.lost_bytes = counts.lost_bytes.saturating_add(place.bytes());
        // The numbers that are known are those of the record that it opens.
        self.lose(place.bytes(), Some(0));
        Outcome::Failed
    }

    fn failed(&mut self, place: Place<'_>, counts: &mut Counts) -> Outcome {
        if let Key::Open(open) = &self.key
            && open.waiting
            && open.opener.version() == Version::Tls13
            && !self.flow.read
            && self.skipped < MAX_HANDSHAKE_RECORDS
        {
            self.skipped = self.skipped.saturating_add(1);
            return Outcome::Skipped;
        }
        self.count_failed(1, counts);
        self.flow.doubtful = true;
        counts.lost_bytes = counts.lost_bytes.saturating_add(place.bytes());
        self.lose(place.bytes(), Some(1));
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= MAX_STRIKES {
            self.trials.distrust = true;
            self.lack(false);
        }
        Outcome::Failed
    }

    fn count_failed(&self, records: u64, counts: &mut Counts) {
        counts.failed = counts.failed.saturating_add(records);
    }

    fn opened(&mut self, place: Place<'_>, opened: Opened, out: &Bytes, counts: &mut Counts) -> Outcome {
        counts.opened = counts.opened.saturating_add(1);
        if let Key::Open(open) = &mut self.key {
            open.waiting = false;
        }
        self.strikes = 0;
        self.trials.distrust = false;
        self.settle(place, opened.missed, counts);
        let plain = out.0.get(opened.plain.clone()).unwrap_or_default();
        match opened.kind {
            APPLICATION_DATA => {
                self.flow.read = true;
                self.flow.goes_on = true;
                return Outcome::Data { opened, gap: self.gap.take() };
            }
            HANDSHAKE => self.handshake(plain),
            // close_notify, or what is fatal: nothing comes behind it.
            ALERT if matches!(plain, [2, _] | [_, 0]) => self.flow.ended = true,
            // TLS 1.2: a new handshake has ended, and its key comes.
            CHANGE_CIPHER_SPEC => {
                self.trials.distrust = true;
                self.lack(true);
            }
            _ => (),
        }
        Outcome::Other
    }

    /// What is lost before a record that was opened, as far as it is of use to know.
    fn settle(&mut self, place: Place<'_>, missed: Option<u64>, counts: &mut Counts) {
        let Lost { records, bytes, given } = std::mem::take(&mut self.lost);
        let end = self.end.replace(place.seq.wrapping_add(u32::try_from(place.bytes()).unwrap_or(u32::MAX)));
        if records.max > 0 {
            // The end of a message may be missing.
            self.handshake.messages.forget();
        }
        if records.exact().is_none() {
            self.count_failed(missed.unwrap_or(1).saturating_sub(records.min), counts);
        }
        let not_given = bytes.saturating_sub(given);
        if not_given == 0 || !self.flow.goes_on {
            return;
        }
        let overhead = match &self.key {
            Key::Open(open) => open.opener.overhead(),
            _ => None,
        };
        // Tickets come before all data, so what is lost behind data is data, or an alert at the
        // end.
        let plain = missed.zip(overhead).and_then(|(missed, overhead)| {
            let plain = bytes.checked_sub(missed.checked_mul(overhead)?)?;
            let whole = end.is_some_and(|end| u64::from(place.seq.wrapping_sub(end)) == bytes);
            (self.flow.read && whole && given == 0 && plain <= missed.checked_mul(MAX_PLAIN)?)
                .then_some(plain)
        });
        let before = self.gap.take().unwrap_or(Gap { bytes: 0, exact: true });
        self.gap = Some(Gap {
            bytes: before.bytes.saturating_add(plain.unwrap_or(not_given)),
            exact: before.exact && plain.is_some(),
        });
    }

    /// Messages within protected records: TLS 1.3 changes keys with some of them.
    fn handshake(&mut self, plain: &[u8]) {
        let Key::Open(open) = &mut self.key else { return };
        if open.opener.version() != Version::Tls13 {
            return;
        }
        let (mut update, mut finished) = (false, false);
        self.handshake.messages.push(plain, |kind, _| {
            update |= kind == KEY_UPDATE;
            finished |= kind == FINISHED;
        });
        if update {
            match open.opener.update() {
                Some(next) => {
                    self.take_key(Open { waiting: false, ..Open::new(next) });
                }
                None => {
                    self.trials.distrust = true;
                    self.lack(true);
                }
            }
        } else if finished && !self.flow.read {
            match open.then.take() {
                Some(next) => self.take_key(Open { waiting: false, ..Open::new(next) }),
                // Found in memory, it was one of the handshake; a client that authenticates later
                // has read nothing yet.
                None if !open.opener.has_secret() => self.lack(true),
                None => (),
            }
        }
    }
}

/// What the two forms of a key take, more or less.
const KEY_BYTES: usize = 2 << 10;

impl Open {
    /// The record may be of the key that comes next: behind the handshake, or behind a KeyUpdate
    /// that was lost.
    fn open_with_next(&mut self, place: Place<'_>, missing: Missing, out: &mut Bytes) -> Option<Opened> {
        let traffic = self.then.take();
        let of_handshake = traffic.is_some();
        let update = || if missing.max > 0 { self.opener.update() } else { None };
        let mut next = traffic.or_else(update)?;
        let missing = Missing { min: 0, ..missing };
        if let Some(opened) = next.open(place.header, place.body, missing, MAX_TRIES, out) {
            *self = Self::new(next);
            return Some(Opened { missed: None, ..opened });
        }
        if of_handshake {
            self.then = Some(next);
        }
        None
    }
}
