//! Records: five bytes of header (type, version, length) and a body, cut anywhere into pieces, with
//! gaps.
//!
//! ```text
//!            ┌──────────────── a gap within a record costs that record ───────────────┐
//!            ▼                                                                        │
//!  Broken ──its end──▶ Synced ──a gap beyond a record's end, or no header──▶ Seeking  │
//!                        ▲  └─────────────────────────────────────────────────────────┘
//!                        └── a header, proved by the record's tag or by another header behind it ── Seeking
//! ```
//!
//! A record that lies whole in one piece is given from there; of others what has come so far is
//! kept.

use zeroize::Zeroize;

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

pub(crate) const HEADER: usize = 5;

/// The longest body: 2¹⁴ bytes of plaintext, and what protection may add (RFC 5246, 6.2.3; 256
/// bytes in TLS 1.3).
pub(crate) const MAX_BODY: usize = (1 << 14) + 2048;

/// The shortest body that is protected: a tag, and one byte of plaintext (TLS 1.3) or none with
/// ChaCha20 (TLS 1.2).
const MIN_PROTECTED: usize = 16;

/// The shortest protected record, to say how many a gap may have taken.
pub(crate) const MIN_RECORD: u64 = (HEADER + MIN_PROTECTED) as u64;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header(pub(crate) [u8; HEADER]);

impl Header {
    /// `None` for what begins no record: types other than 20 to 23, versions other than 3.0 to 3.4,
    /// no body, or one that is too long.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Self(*bytes.first_chunk()?);
        let [kind, major, minor, ..] = header.0;
        let fits = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) && major == 3 && minor <= 4;
        (fits && (1..=MAX_BODY).contains(&header.body_bytes())).then_some(header)
    }

    /// Whether bytes, less than a header, may begin one.
    fn may_begin(bytes: &[u8]) -> bool {
        let [kind, major, ..] = bytes else {
            return bytes.first().is_none_or(|kind| (20..=23).contains(kind));
        };
        (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(kind) && *major == 3
    }

    /// The same for one that is looked for: it is stricter, as all records have 3.3 once both sides
    /// have agreed.
    fn find(bytes: &[u8]) -> Option<Self> {
        let header = Self::parse(bytes)?;
        let len = header.body_bytes();
        let plausible = match header.kind() {
            CHANGE_CIPHER_SPEC => len == 1 || len >= MIN_PROTECTED,
            ALERT => len == 2 || len >= MIN_PROTECTED,
            HANDSHAKE => len >= 4,
            _ => len >= MIN_PROTECTED,
        };
        (plausible && header.0.get(1..3) == Some(&[3, 3])).then_some(header)
    }

    pub(crate) fn kind(self) -> u8 {
        let [kind, ..] = self.0;
        kind
    }

    pub(crate) fn body_bytes(self) -> usize {
        let [_, _, _, high, low] = self.0;
        u16::from_be_bytes([high, low]).into()
    }

    fn record_bytes(self) -> usize {
        self.body_bytes().saturating_add(HEADER)
    }
}

/// A piece of a direction, less what was taken from its front.
pub(crate) struct Piece<'a> {
    pub(crate) seq: u32,
    pub(crate) bytes: &'a [u8],
    pub(crate) time_ns: u64,
}

impl<'a> Piece<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at_checked(len).unwrap_or((self.bytes, &[]));
        self.bytes = rest;
        self.seq = self.seq.wrapping_add(u32::try_from(taken.len()).unwrap_or(u32::MAX));
        taken
    }
}

/// A whole record.
pub(crate) struct Record<'a> {
    /// Of the header's first byte.
    pub(crate) seq: u32,
    pub(crate) header: Header,
    pub(crate) body: Body<'a>,
    /// When its last byte passed.
    pub(crate) time_ns: u64,
}

/// Where a record's body lies.
pub(crate) enum Body<'a> {
    /// In the piece.
    There(&'a [u8]),
    /// Gathered from several pieces, behind its header.
    Gathered(Vec<u8>),
}

impl Body<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::There(body) => body,
            Self::Gathered(bytes) => bytes.get(HEADER..).unwrap_or_default(),
        }
    }
}

/// Bytes that are overwritten when they are dropped.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a framer makes of a piece.
pub(crate) enum Step<'a> {
    Record(Record<'a>),
    /// Bytes that belong to no record that will be given. Other than of a gap, it is not known of
    /// how many records they are.
    Lost(u64),
    /// A record that may be one: its tag is asked for, and [`Framer::judge`] takes the answer.
    Prove,
    /// The piece is used up.
    Done,
}

/// What a gap has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes that will not be given, all of a record that was cut with them.
    pub(crate) bytes: u64,
    /// It is known how many records they are.
    pub(crate) records: Option<u64>,
}

/// Divides one direction into records.
pub(crate) struct Framer {
    state: State,
    /// From `start` on: what has come of a record, from its header on; while seeking, of what may
    /// be one.
    kept: Vec<u8>,
    start: usize,
    /// The position of the byte at `start`.
    seq: u32,
}

enum State {
    Synced,
    /// Within a record of which bytes are missing.
    Broken {
        left: usize,
    },
    Seeking(Seeking),
}

/// Looks for a header in what is kept.
struct Seeking {
    /// What lies before was looked at.
    scanned: usize,
    /// Where the current piece begins, if that is still kept.
    piece: Option<usize>,
    /// What may be headers, in order. What is kept, from its start on, begins with the first of
    /// them.
    candidates: Vec<Candidate>,
    /// The one that [`Step::Prove`] is about.
    asked: usize,
    /// Bytes that proofs may still read.
    allowance: usize,
}

struct Candidate {
    at: usize,
    /// When its record had come whole.
    whole_ns: Option<u64>,
    verdict: Verdict,
}

/// Ciphertext looks like a header once in 2²⁴ bytes. Of this many candidates whose records are
/// still to come one is right, unless a peer makes them; else the first of them gives way.
const MAX_CANDIDATES: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Proved,
    Refused,
}

/// Bytes that proofs may read for each byte that is looked through, so that a peer who sends
/// nothing but headers costs no more than that; chains of headers are still found.
const PROOF_BYTES: usize = 16;

impl Seeking {
    fn new() -> Self {
        Self { scanned: 0, piece: None, candidates: Vec::new(), asked: 0, allowance: 4 * MAX_BODY }
    }

    /// Notes that bytes are dropped from the front of what is kept.
    fn forget(&mut self, len: usize) {
        self.scanned = self.scanned.saturating_sub(len);
        self.piece = self.piece.and_then(|piece| piece.checked_sub(len));
        for candidate in &mut self.candidates {
            candidate.at = candidate.at.saturating_sub(len);
        }
    }

    /// The next thing in what is kept that looks like a header.
    fn scan(&mut self, kept: &[u8]) -> Option<usize> {
        while let Some(rest) = kept.get(self.scanned..).filter(|rest| rest.len() >= HEADER) {
            let at = self.scanned;
            self.scanned = at.saturating_add(1);
            if Header::find(rest).is_some() {
                return Some(at);
            }
        }
        None
    }
}

impl Framer {
    /// `synced`: the first byte is a header's.
    pub(crate) fn new(synced: bool) -> Self {
        let state = if synced { State::Synced } else { State::Seeking(Seeking::new()) };
        Self { state, kept: Vec::new(), start: 0, seq: 0 }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// The next thing in the piece. `keyed`: there is a key that may prove a record.
    pub(crate) fn next<'a>(&mut self, piece: &mut Piece<'a>, keyed: bool) -> Step<'a> {
        loop {
            match &mut self.state {
                State::Broken { left } => {
                    let skipped = piece.take(*left).len();
                    *left = left.saturating_sub(skipped);
                    if *left > 0 {
                        return Step::Done;
                    }
                    self.state = State::Synced;
                }
                State::Synced if self.kept.is_empty() => {
                    if piece.bytes.is_empty() {
                        (self.kept, self.start) = (Vec::new(), 0);
                        return Step::Done;
                    }
                    if let Some(header) = Header::parse(piece.bytes)
                        && piece.bytes.len() >= header.record_bytes()
                    {
                        let seq = piece.seq;
                        let body = piece.take(header.record_bytes()).get(HEADER..).unwrap_or_default();
                        return Step::Record(Record {
                            seq,
                            header,
                            body: Body::There(body),
                            time_ns: piece.time_ns,
                        });
                    }
                    if piece.bytes.len() >= HEADER && Header::parse(piece.bytes).is_none() {
                        self.state = State::Seeking(Seeking::new());
                        continue;
                    }
                    self.seq = piece.seq;
                    self.fill(piece, HEADER);
                    let wanted = Header::parse(self.rest()).map_or(HEADER, Header::record_bytes);
                    self.fill(piece, wanted);
                    return Step::Done;
                }
                State::Synced => {
                    if !self.fill(piece, HEADER) {
                        return Step::Done;
                    }
                    let Some(header) = Header::parse(self.rest()) else {
                        self.state = State::Seeking(Seeking { scanned: self.start, ..Seeking::new() });
                        continue;
                    };
                    if !self.fill(piece, header.record_bytes()) {
                        return Step::Done;
                    }
                    return Step::Record(self.cut(header, piece.time_ns));
                }
                State::Seeking(_) => {
                    if let Some(step) = self.seek(piece, keyed) {
                        return step;
                    }
                }
            }
        }
    }

    /// Takes from the piece what lacks to `len`. Returns whether there is as much.
    fn fill(&mut self, piece: &mut Piece<'_>, len: usize) -> bool {
        let wanted = len.saturating_sub(self.rest().len());
        let taken = piece.take(wanted);
        // Room for all of a record that comes in small pieces, but for no more than four times what
        // has come of it.
        self.kept.reserve(wanted.min(taken.len().saturating_mul(4)));
        self.kept.extend_from_slice(taken);
        self.rest().len() >= len
    }

    fn rest(&self) -> &[u8] {
        self.kept.get(self.start..).unwrap_or_default()
    }

    /// Cuts the first record off what is kept.
    fn cut(&mut self, header: Header, time_ns: u64) -> Record<'static> {
        let (seq, len) = (self.seq, header.record_bytes());
        let gathered = if self.start == 0 && self.kept.len() == len {
            std::mem::take(&mut self.kept)
        } else {
            let gathered = self.rest().get(..len).unwrap_or_default().to_vec();
            self.start = self.start.saturating_add(len);
            if self.start >= self.kept.len() {
                (self.kept, self.start) = (Vec::new(), 0);
            }
            gathered
        };
        self.seq = seq.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
        Record { seq, header, body: Body::Gathered(gathered), time_ns }
    }

    /// Takes back the buffer of a record that is done with: the next one may be gathered there.
    pub(crate) fn reuse(&mut self, body: Body<'_>) {
        if let Body::Gathered(mut buffer) = body
            && self.kept.capacity() == 0
        {
            buffer.clear();
            self.kept = buffer;
        }
    }

    /// Bytes of this direction are missing.
    pub(crate) fn gap(&mut self, bytes: u64) -> Taken {
        let kept = self.rest().len();
        let left = match &self.state {
            State::Synced => {
                Header::parse(self.rest()).map(|header| header.record_bytes().saturating_sub(kept))
            }
            State::Broken { left } => Some(*left),
            State::Seeking(_) => None,
        };
        let within =
            left.zip(usize::try_from(bytes).ok()).filter(|(left, bytes)| *bytes > 0 && bytes <= left);
        let taken = match (&self.state, within) {
            // All of it was counted when it broke.
            (State::Broken { .. }, Some(_)) => Taken { bytes: 0, records: Some(0) },
            (State::Broken { left }, None) => {
                Taken { bytes: bytes.saturating_sub(u64::try_from(*left).unwrap_or(u64::MAX)), records: None }
            }
            (_, Some((left, _))) => Taken {
                bytes: u64::try_from(kept.saturating_add(left)).unwrap_or(u64::MAX),
                records: Some(1),
            },
            (_, None) => {
                Taken { bytes: bytes.saturating_add(u64::try_from(kept).unwrap_or(u64::MAX)), records: None }
            }
        };
        self.state = match within {
            Some((left, bytes)) => State::Broken { left: left.saturating_sub(bytes) },
            None => State::Seeking(Seeking::new()),
        };
        (self.kept, self.start) = (Vec::new(), 0);
        taken
    }

    /// Looks for a header. `None` when there is one, and the state has changed.
    fn seek<'a>(&mut self, piece: &mut Piece<'a>, keyed: bool) -> Option<Step<'a>> {
        let State::Seeking(seeking) = &mut self.state else { return None };
        if !piece.bytes.is_empty() {
            // Once a piece: what a peer sends may break off and be found again many times in one.
            seeking.forget(self.start);
            self.kept.drain(..self.start);
            self.start = 0;
            if self.kept.is_empty() {
                self.seq = piece.seq;
            }
            seeking.piece = Some(self.kept.len());
            seeking.allowance =
                piece.bytes.len().saturating_mul(PROOF_BYTES).saturating_add(seeking.allowance);
            self.kept.extend(piece.take(piece.bytes.len()));
        }
        // Each is judged before the next is looked for: those behind one that is right are not
        // looked for at all.
        loop {
            let mut index = 0;
            while let Some(candidate) = seeking.candidates.get_mut(index) {
                let rest = self.kept.get(candidate.at..).unwrap_or_default();
                let record =
                    Header::find(rest).and_then(|header| Some((header, rest.get(header.record_bytes()..)?)));
                let Some((header, behind)) = record else {
                    // It is still to come.
                    index = index.saturating_add(1);
                    continue;
                };
                let whole_ns = *candidate.whole_ns.get_or_insert(piece.time_ns);
                if candidate.verdict == Verdict::Open && keyed && seeking.allowance >= header.record_bytes() {
                    seeking.allowance = seeking.allowance.saturating_sub(header.record_bytes());
                    seeking.asked = index;
                    return Some(Step::Prove);
                }
                // Records mostly begin with a piece, and the last of what a sender has to say ends
                // with one.
                let alone = behind.is_empty() && !keyed && seeking.piece == Some(candidate.at);
                if candidate.verdict == Verdict::Proved || alone || Header::find(behind).is_some() {
                    let at = candidate.at;
                    seeking.candidates.drain(..index);
                    return Some(self.found(at, header, whole_ns));
                }
                if behind.len() < HEADER && Header::may_begin(behind) {
                    index = index.saturating_add(1);
                } else {
                    seeking.candidates.remove(index);
                }
            }
            let Some(at) = seeking.scan(&self.kept) else { break };
            if seeking.candidates.len() >= MAX_CANDIDATES {
                seeking.candidates.remove(0);
            }
            seeking.candidates.push(Candidate { at, whole_ns: None, verdict: Verdict::Open });
        }
        let first = seeking.candidates.first().map_or(seeking.scanned, |candidate| candidate.at);
        let lost = self.drop_front(first);
        Some(if lost > 0 { Step::Lost(lost) } else { Step::Done })
    }

    /// A record begins there. What lies before is lost; it comes next, and its time may be that of
    /// an earlier piece.
    fn found<'a>(&mut self, at: usize, header: Header, whole_ns: u64) -> Step<'a> {
        let lost = self.drop_front(at);
        if lost > 0 {
            return Step::Lost(lost);
        }
        self.state = State::Synced;
        Step::Record(self.cut(header, whole_ns))
    }

    /// Drops what lies before. Returns how much that was.
    fn drop_front(&mut self, at: usize) -> u64 {
        let lost = at.min(self.kept.len()).saturating_sub(self.start);
        self.start = self.start.saturating_add(lost);
        self.seq = self.seq.wrapping_add(u32::try_from(lost).unwrap_or(u32::MAX));
        u64::try_from(lost).unwrap_or(u64::MAX)
    }

    /// The record that [`Step::Prove`] is about: its position, header and body.
    pub(crate) fn candidate(&self) -> Option<(u32, Header, &[u8])> {
        let State::Seeking(seeking) = &self.state else { return None };
        let at = seeking.candidates.get(seeking.asked)?.at;
        let rest = self.kept.get(at..)?;
        let header = Header::find(rest)?;
        Some((
            self.seq.wrapping_add(u32::try_from(at.checked_sub(self.start)?).ok()?),
            header,
            rest.get(HEADER..header.record_bytes())?,
        ))
    }

    /// Whether the candidate's tag has proved it.
    pub(crate) fn judge(&mut self, proved: bool) {
        if let State::Seeking(seeking) = &mut self.state
            && let Some(candidate) = seeking.candidates.get_mut(seeking.asked)
        {
            candidate.verdict = if proved { Verdict::Proved } else { Verdict::Refused };
        }
    }
}
