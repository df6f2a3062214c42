//! One connection of a client to a broker: its two streams, and which response answers which request.
//!
//! ```text
//!  requests   stream ─▶ framer ─▶ pending (FIFO) ─┐
//!                                                 ├─▶ exchange ─▶ Sink
//!  responses  stream ─▶ framer ───────────────────┘
//! ```
//!
//! A broker answers the requests of a connection in their order, so the oldest pending request is the one answered; the
//! correlation id confirms it. A Produce with acks=0 has no response and is told at once. After a gap requests may be
//! missing from the queue, or responses: then the correlation id alone decides, and what lies before is given up.

mod exchange;
mod record_set;
mod session;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::codec::Decompressor;
use crate::context::Extractor;
use crate::counters::{Counters, Lost, Malformed};
use crate::protocol::api::{Api, key};
use crate::protocol::header::{self, RequestHeader};
use crate::protocol::sink::{Head, ResponseHead, Sink};
use crate::stream::frame::{Frame, Framer, Reader, Verdict};
use crate::stream::{Run, Stream};

use exchange::{confirms, is_read};
use session::Session;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker: requests.
    ToBroker,
    /// From the broker to the client: responses.
    ToClient,
}

/// A TCP segment, or several in one, as it passed the socket.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub direction: Direction,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// What its sender has received of the other direction.
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub bytes: &'a [u8],
    /// Bytes that passed the socket, at least as many as `bytes`.
    pub len: u32,
    /// Nanoseconds of any clock that does not go back by much.
    pub time_ns: u64,
}

/// Bounds of what a connection may hold or cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one frame; a larger size is taken for a wrong one. Kafka's default for requests is 100 MiB
    /// (`socket.request.max.bytes`).
    pub frame_bytes: usize,
    /// Of segments that wait for one before them.
    pub held_bytes: usize,
    /// Requests that wait for a response.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Of one batch, decompressed.
    pub decompressed_bytes: usize,
    /// Of all batches of one exchange, decompressed.
    pub exchange_bytes: usize,
    /// How far a beginning is searched for before the connection is taken for something else than Kafka.
    pub search_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 100 << 20,
            held_bytes: 8 << 20,
            pending: 16 << 10,
            pending_bytes: 64 << 20,
            decompressed_bytes: 128 << 20,
            exchange_bytes: 256 << 20,
            search_bytes: 64 << 20,
        }
    }
}

/// What the connections of one worker share: bounds, buffers, and counters.
pub struct Scratch {
    pub limits: Limits,
    pub counters: Counters,
    pub(crate) extractor: Extractor,
    pub(crate) decompressor: Decompressor,
    /// Bytes that the exchange at hand may still decompress.
    pub(crate) budget: usize,
}

impl Scratch {
    #[must_use]
    pub fn new(limits: Limits, extractor: Extractor) -> Self {
        Self {
            limits,
            counters: Counters::default(),
            extractor,
            decompressor: Decompressor::new(limits.decompressed_bytes),
            budget: 0,
        }
    }
}

/// A request that waits for its response.
struct Pending {
    api_key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<Bytes>,
    seq: u32,
    start_ns: u64,
    end_ns: u64,
    /// Its body, where the API's is read; empty else.
    body: Bytes,
    /// A gap took a part, or it was too much to keep: its response is passed over.
    broken: bool,
    /// It may be one that has no response (a broken Produce whose acks were not seen).
    perhaps_silent: bool,
}

impl Pending {
    /// Whether a response of `len` bytes, of which these are there, may be the one to this request.
    fn is_answered_by(&self, correlation_id: i32, frame: &[u8], len: usize) -> bool {
        self.correlation_id == correlation_id && confirms(self.api_key, self.version, frame, len)
    }

    fn head(&self, response: Option<ResponseHead>) -> Head<'_> {
        Head {
            api_key: self.api_key,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.as_deref().and_then(|id| std::str::from_utf8(id).ok()),
            request_start_ns: self.start_ns,
            request_end_ns: self.end_ns,
            request_seq: self.seq,
            response,
        }
    }
}

/// Requests of the same correlation id that a response is held against: ids come again only in odd clients.
const MAX_CANDIDATES: usize = 4;

/// What a connection was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Not enough seen yet.
    Unknown,
    Kafka,
    /// TLS: what is inside is not read.
    Tls,
    /// Something else.
    Other,
}

/// See the module.
pub struct Connection {
    requests: (Stream, Option<Framer>),
    responses: (Stream, Option<Framer>),
    exchanges: Exchanges,
}

/// What both directions share.
struct Exchanges {
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// The last client id; nearly always that of the next request too.
    client_id: Option<Bytes>,
    session: Session,
    speaks: Speaks,
    /// Requests may have been missed since the last response that was matched.
    missed_requests: bool,
    /// Responses may have been missed since the last one that was matched.
    missed_responses: bool,
    /// Requests were found by a search, and no response has confirmed them yet.
    unconfirmed: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            requests: (Stream::default(), None),
            responses: (Stream::default(), None),
            exchanges: Exchanges {
                pending: VecDeque::new(),
                pending_bytes: 0,
                client_id: None,
                session: Session::default(),
                speaks: Speaks::Unknown,
                missed_requests: false,
                missed_responses: false,
                unconfirmed: false,
            },
        }
    }
}

impl Connection {
    /// What the connection was found to be.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        self.exchanges.speaks
    }

    /// Bytes that the connection holds beyond its own size.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let half = |half: &(Stream, Option<Framer>)| {
            half.0.held_bytes().saturating_add(half.1.as_ref().map_or(0, Framer::held_bytes))
        };
        half(&self.requests)
            .saturating_add(half(&self.responses))
            .saturating_add(self.exchanges.pending_bytes)
    }

    /// Takes a segment, and tells `sink` what it completes.
    pub fn push(&mut self, scratch: &mut Scratch, segment: Push<'_>, sink: &mut impl Sink) {
        if matches!(self.exchanges.speaks, Speaks::Tls | Speaks::Other) {
            return;
        }
        let Self { requests, responses, exchanges } = self;
        let limits = scratch.limits;
        let Push { direction, seq, ack, syn, fin, bytes, len, time_ns } = segment;
        let run = Run { seq, bytes, len, syn, fin, time_ns };
        // What a segment acknowledges was there before it.
        match direction {
            Direction::ToBroker => {
                if let Some(ack) = ack {
                    let (stream, framer) = &mut *responses;
                    let mut half = Responses { exchanges, scratch, sink };
                    stream.acknowledged(ack, |piece| half.piece(framer, piece, limits.frame_bytes));
                }
                let (stream, framer) = requests;
                framer.get_or_insert_with(|| Framer::new(syn));
                let mut half = Requests { exchanges, scratch, sink };
                if stream.push(run, limits.held_bytes, |piece| half.piece(framer, piece, limits.frame_bytes))
                {
                    half.scratch.counters.lose(Lost::HeldTooMuch);
                }
                self.give_up_search(limits);
            }
            Direction::ToClient => {
                if let Some(ack) = ack {
                    let (stream, framer) = &mut *requests;
                    let mut half = Requests { exchanges, scratch, sink };
                    stream.acknowledged(ack, |piece| half.piece(framer, piece, limits.frame_bytes));
                }
                let (stream, framer) = responses;
                framer.get_or_insert_with(|| Framer::new(syn));
                let mut half = Responses { exchanges, scratch, sink };
                if stream.push(run, limits.held_bytes, |piece| half.piece(framer, piece, limits.frame_bytes))
                {
                    half.scratch.counters.lose(Lost::HeldTooMuch);
                }
            }
        }
        if matches!(self.exchanges.speaks, Speaks::Tls | Speaks::Other) {
            let reason = if self.exchanges.speaks == Speaks::Tls { Lost::Tls } else { Lost::NotKafka };
            scratch.counters.lose(reason);
            self.release();
        }
    }

    /// Nothing more will come: what is held is read as far as it goes, and what waits for a response is counted.
    pub fn finish(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        self.give_up_holes(scratch, sink);
        self.exchanges.give_up(usize::MAX, &mut scratch.counters);
        self.release();
    }

    /// Whether something held has waited since before this time for what comes before it.
    #[must_use]
    pub fn has_hole_since(&self, time_ns: u64) -> bool {
        [&self.requests.0, &self.responses.0]
            .into_iter()
            .any(|stream| stream.held_since().is_some_and(|since| since < time_ns))
    }

    /// Waits no longer for what is missing: it becomes a gap, and what is held behind it is read.
    pub fn give_up_holes(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        let Self { requests, responses, exchanges } = self;
        let limits = scratch.limits;
        {
            let mut half = Requests { exchanges, scratch, sink };
            let (stream, framer) = requests;
            stream.finish(|piece| half.piece(framer, piece, limits.frame_bytes));
        }
        let mut half = Responses { exchanges, scratch, sink };
        let (stream, framer) = responses;
        stream.finish(|piece| half.piece(framer, piece, limits.frame_bytes));
    }

    fn give_up_search(&mut self, limits: Limits) {
        if let Some(framer) = &self.requests.1
            && framer.searched() > limits.search_bytes
        {
            self.exchanges.speaks = Speaks::Other;
        }
    }

    fn release(&mut self) {
        for (stream, framer) in [&mut self.requests, &mut self.responses] {
            *stream = Stream::default();
            if let Some(framer) = framer {
                framer.stop();
            }
        }
        self.exchanges.pending = VecDeque::new();
        self.exchanges.pending_bytes = 0;
        self.exchanges.session = Session::default();
    }
}

/// Reads the frames of the requests.
struct Requests<'x, S> {
    exchanges: &'x mut Exchanges,
    scratch: &'x mut Scratch,
    sink: &'x mut S,
}

/// Reads the frames of the responses.
struct Responses<'x, S> {
    exchanges: &'x mut Exchanges,
    scratch: &'x mut Scratch,
    sink: &'x mut S,
}

fn count_gap(piece: crate::stream::Piece<'_>, counters: &mut Counters) -> bool {
    let crate::stream::Piece::Gap { bytes } = piece else { return false };
    counters.lose(Lost::Gap);
    counters.gap_bytes = counters.gap_bytes.saturating_add(bytes);
    true
}

impl<S: Sink> Requests<'_, S> {
    fn piece(&mut self, framer: &mut Option<Framer>, piece: crate::stream::Piece<'_>, max_bytes: usize) {
        if count_gap(piece, &mut self.scratch.counters) {
            self.exchanges.missed_requests = true;
            // It may have taken a Fetch that moved the consumer elsewhere.
            self.exchanges.session = Session::default();
        }
        let Some(framer) = framer else { return };
        if framer.is_searching() {
            self.exchanges.missed_requests = true;
        }
        // A connection seen from its beginning begins with a request, or it is not Kafka.
        if self.exchanges.speaks == Speaks::Unknown
            && !framer.is_searching()
            && let crate::stream::Piece::Data { bytes, .. } = piece
            && framer.held_bytes() == 0
        {
            if is_tls(bytes) {
                self.exchanges.speaks = Speaks::Tls;
                return;
            }
            if bytes.len() >= header::PLAUSIBLE_BYTES && !RequestHeader::may_begin(bytes) {
                self.exchanges.speaks = Speaks::Other;
                return;
            }
        }
        framer.push(piece, max_bytes, self);
    }
}

/// A TLS record of the handshake: type 22, version 3.x.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 3, 0..=4, ..])
}

impl<S: Sink> Reader for Requests<'_, S> {
    fn plausible(&mut self, bytes: &[u8], _first: bool) -> bool {
        let Some((size, frame)) = bytes.split_first_chunk() else { return false };
        let len = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let found = RequestHeader::is_plausible(bytes)
            && exchange::request_is_plausible(frame, len, self.exchanges.client_id.as_deref());
        self.exchanges.unconfirmed |= found;
        found
    }

    fn bad_size(&mut self) -> Verdict {
        self.refuse()
    }

    fn frame(&mut self, frame: Frame<'_>) -> Verdict {
        let Frame { bytes, broken, seq, start_ns, end_ns } = frame;
        let (header, body) = match RequestHeader::read(bytes) {
            Ok(read) => read,
            Err(_) if broken => {
                // Its header is gone: nobody knows what its response is to be.
                self.scratch.counters.lose(Lost::FrameBroken);
                self.exchanges.missed_requests = true;
                return Verdict::Next;
            }
            Err(_) => return self.refuse(),
        };
        // What a search found is believed when all of it is there.
        if self.exchanges.unconfirmed && !broken && !exchange::request_is_plausible(bytes, bytes.len(), None)
        {
            return self.refuse();
        }
        if broken {
            self.scratch.counters.lose(Lost::FrameBroken);
        } else {
            self.scratch.counters.frames = self.scratch.counters.frames.saturating_add(1);
        }
        let acks = (header.api_key == key::PRODUCE).then(|| header::produce_acks(header.version, body));
        let mut pending = Pending {
            api_key: header.api_key,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id: self.exchanges.client(header.client_id),
            seq,
            start_ns,
            end_ns,
            body: Bytes::new(),
            broken,
            perhaps_silent: acks == Some(None),
        };
        if acks == Some(Some(0)) {
            if !broken {
                exchange::read(
                    &pending.head(None),
                    body,
                    &[],
                    &mut self.exchanges.session,
                    self.scratch,
                    self.sink,
                );
            }
            return Verdict::Next;
        }
        let limits = self.scratch.limits;
        if self.exchanges.pending.len() >= limits.pending {
            self.scratch.counters.lose(Lost::TooManyPending);
            self.exchanges.missed_requests = true;
            return Verdict::Next;
        }
        if !broken && is_read(header.api_key) {
            let held = self.exchanges.pending_bytes.saturating_add(body.len());
            if held > limits.pending_bytes {
                self.scratch.counters.lose(Lost::TooManyPending);
                pending.broken = true;
            } else {
                self.exchanges.pending_bytes = held;
                pending.body = Bytes::copy_from_slice(body);
            }
        }
        self.exchanges.pending.push_back(pending);
        Verdict::Next
    }
}

impl<S> Requests<'_, S> {
    fn refuse(&mut self) -> Verdict {
        if self.exchanges.speaks == Speaks::Unknown {
            self.exchanges.speaks = Speaks::Other;
            return Verdict::Stop;
        }
        self.scratch.counters.refuse(Malformed::Frame);
        self.exchanges.missed_requests = true;
        Verdict::Lost
    }
}

impl<S: Sink> Responses<'_, S> {
    fn piece(&mut self, framer: &mut Option<Framer>, piece: crate::stream::Piece<'_>, max_bytes: usize) {
        if count_gap(piece, &mut self.scratch.counters) {
            self.exchanges.missed_responses = true;
        }
        let Some(framer) = framer else { return };
        if framer.is_searching() {
            self.exchanges.missed_responses = true;
        }
        framer.push(piece, max_bytes, self);
    }
}

impl<S: Sink> Reader for Responses<'_, S> {
    /// A response names neither its API nor its version: it is found by the correlation id of a pending request, and by
    /// being what that request's API answers. Small numbers abound in any data, so one that is not whole yet is believed
    /// only where a segment begins with it.
    fn plausible(&mut self, bytes: &[u8], first: bool) -> bool {
        let Some((&[s0, s1, s2, s3, c0, c1, c2, c3], _)) = bytes.split_first_chunk::<8>() else {
            return false;
        };
        if s0 > 6 {
            return false;
        }
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let id = i32::from_be_bytes([c0, c1, c2, c3]);
        if !(4..=header::MAX_FRAME_BYTES).contains(&size) {
            return false;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let frame = bytes.get(4..).unwrap_or_default();
        if frame.len() < size && !first {
            return false;
        }
        let mut candidates = self.exchanges.pending.iter().filter(|pending| pending.correlation_id == id);
        if !candidates.by_ref().take(MAX_CANDIDATES).any(|pending| pending.is_answered_by(id, frame, size)) {
            return false;
        }
        // Behind it nothing follows yet, or another response that is waited for, or it goes on beyond these bytes.
        match frame.get(size..) {
            None | Some([]) => true,
            Some([_, _, _, _, c0, c1, c2, c3, ..]) => {
                let next = i32::from_be_bytes([*c0, *c1, *c2, *c3]);
                self.exchanges.pending.iter().any(|pending| pending.correlation_id == next)
            }
            Some(_) => false,
        }
    }

    fn bad_size(&mut self) -> Verdict {
        self.scratch.counters.refuse(Malformed::Frame);
        self.exchanges.missed_responses = true;
        Verdict::Lost
    }

    fn frame(&mut self, frame: Frame<'_>) -> Verdict {
        let Frame { bytes, broken, seq, start_ns, end_ns } = frame;
        let exchanges = &mut *self.exchanges;
        let counters = &mut self.scratch.counters;
        if !broken {
            counters.frames = counters.frames.saturating_add(1);
        }
        let Ok(id) = header::correlation_id(bytes) else {
            if broken {
                // Whose response it was is known by what the next one is.
                counters.lose(Lost::FrameBroken);
                exchanges.missed_responses = true;
                return Verdict::Next;
            }
            counters.refuse(Malformed::Frame);
            return Verdict::Lost;
        };
        let place = if exchanges.missed_responses && !broken {
            // Where the order is not sure, the response has to be what the request's API answers. Ids may come again,
            // and then nobody can tell which request it is.
            let mut tries = 0_usize;
            let mut answers = |pending: &Pending| {
                tries = tries.saturating_add(usize::from(pending.correlation_id == id));
                tries <= MAX_CANDIDATES && pending.is_answered_by(id, bytes, bytes.len())
            };
            let first = exchanges.pending.iter().position(&mut answers);
            let last = exchanges.pending.iter().rposition(|pending| pending.correlation_id == id);
            let last = first.and(last);
            if first != last {
                exchanges.give_up(last.map_or(0, |last| last.saturating_add(1)), counters);
                return Verdict::Next;
            }
            first
        } else {
            exchanges.pending.iter().position(|pending| pending.correlation_id == id)
        };
        let Some(place) = place else {
            if exchanges.missed_requests || exchanges.pending.is_empty() {
                counters.lose(Lost::ResponseWithoutRequest);
                return Verdict::Next;
            }
            counters.refuse(Malformed::ResponseOrder);
            exchanges.missed_responses = true;
            return Verdict::Lost;
        };
        let passed_over_is_fine = exchanges.missed_responses
            || exchanges.pending.iter().take(place).all(|pending| pending.perhaps_silent);
        if place > 0 && !passed_over_is_fine {
            counters.refuse(Malformed::ResponseOrder);
            exchanges.missed_responses = true;
            return Verdict::Lost;
        }
        exchanges.give_up(place, counters);
        let Some(pending) = exchanges.pending.pop_front() else { return Verdict::Lost };
        if exchanges.pending.is_empty() && exchanges.pending.capacity() > 16 {
            exchanges.pending = VecDeque::new();
        }
        exchanges.pending_bytes = exchanges.pending_bytes.saturating_sub(pending.body.len());
        exchanges.missed_responses = false;
        exchanges.unconfirmed = false;
        exchanges.missed_requests &= !exchanges.pending.is_empty();
        exchanges.speaks = Speaks::Kafka;
        if broken {
            counters.lose(Lost::FrameBroken);
        }
        if broken || pending.broken {
            // What a broken Fetch asked for, or got, is not known: neither is where the consumer stands.
            if pending.api_key == key::FETCH {
                exchanges.session = Session::default();
            }
            return Verdict::Next;
        }
        let head = pending.head(Some(ResponseHead { start_ns, end_ns, seq }));
        exchange::read(&head, &pending.body, bytes, &mut exchanges.session, self.scratch, self.sink);
        Verdict::Next
    }
}

impl Exchanges {
    /// Waits no longer for the responses of the oldest requests.
    fn give_up(&mut self, count: usize, counters: &mut Counters) {
        for passed_over in self.pending.drain(..count.min(self.pending.len())) {
            self.pending_bytes = self.pending_bytes.saturating_sub(passed_over.body.len());
            // What it asked for is not applied, so where the consumer stands is not known.
            if passed_over.api_key == key::FETCH {
                self.session = Session::default();
            }
            if passed_over.api_key == key::PRODUCE && !passed_over.broken {
                counters.lose(Lost::Unanswered);
            }
        }
    }

    /// The client id as shared bytes.
    fn client(&mut self, id: Option<&str>) -> Option<Bytes> {
        let id = id?;
        if self.client_id.as_deref() != Some(id.as_bytes()) {
            self.client_id = Some(Bytes::copy_from_slice(id.as_bytes()));
        }
        self.client_id.clone()
    }
}

/// Whether an API of this key is in the table (its framing is kept either way).
#[must_use]
pub fn is_known(api_key: i16) -> bool {
    Api::of(api_key).is_some()
}
