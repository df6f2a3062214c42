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
//! missing from the queue, or responses: then the correlation id alone decides, and what lies before is given up. Raw SASL
//! tokens, which have no header, are taken out of both directions before.

mod exchange;
mod halves;
mod inflation;
mod keys;
mod pending;
mod preface;
mod record_set;
mod requests;
mod responses;
mod sasl;
mod session;
mod tls;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::Decompressor;
use crate::context::Extractor;
use crate::counters::{Counters, Lost, NotKafka};
use crate::protocol::api::key;
use crate::protocol::table::Surplus;
use crate::room::{Boundless, Room};
use crate::sink::Sink;
use crate::stream::frame::Framer;
use crate::stream::{Piece, Run, Stream};
use ktrace_tls::Sender;
use ktrace_tls::session::{Closed as TlsClosed, Session};

use halves::Halves;
use inflation::{Inflating, Inflation};
pub use keys::Unread;
use pending::Pending;
use preface::Preface;
use sasl::Tokens;
use session::Sessions;

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
    /// Requests that wait for a response. Clients have five or so on their way at once; a response may have to be looked for
    /// among all.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Of one batch, decompressed.
    pub decompressed_bytes: usize,
    /// Of all batches of one exchange, decompressed; the batch that crosses it is the last that is read. An exchange that is
    /// large on the wire may have more.
    pub exchange_bytes: usize,
    /// Of each buffer that is used again and again.
    pub kept_bytes: usize,
    /// How far a beginning is searched for before the connection is taken for something else than Kafka, where nothing was lost.
    pub search_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 100 << 20,
            held_bytes: 8 << 20,
            pending: 1 << 10,
            pending_bytes: 64 << 20,
            decompressed_bytes: 128 << 20,
            exchange_bytes: 256 << 20,
            kept_bytes: 8 << 20,
            search_bytes: 64 << 20,
        }
    }
}

/// What the connections of one worker share: bounds, buffers, and counters.
pub struct Scratch {
    pub limits: Limits,
    /// The user has said that Kafka is spoken on these ports: TLS behind a proxy is Kafka's.
    pub ports_are_given: bool,
    pub counters: Counters,
    pub(crate) extractor: Extractor,
    pub(crate) decompressor: Decompressor,
    /// A buffer for the next frame that comes in pieces.
    pub(crate) spare: Vec<u8>,
    /// Bytes that the exchange at hand may still decompress.
    pub(crate) budget: usize,
    /// And those that it may in vain.
    pub(crate) inflating: Inflating,
    /// The correlation ids of the connection at hand, while a search asks for many.
    pub(crate) ids: Vec<i32>,
}

impl Scratch {
    #[must_use]
    pub fn new(limits: Limits, extractor: Extractor) -> Self {
        Self::within(limits, extractor, Arc::new(Boundless))
    }

    /// The same, where what is large is asked for in `room`.
    #[must_use]
    pub fn within(limits: Limits, extractor: Extractor, room: Arc<dyn Room>) -> Self {
        let Limits { decompressed_bytes, kept_bytes, .. } = limits;
        Self {
            limits,
            ports_are_given: true,
            counters: Counters::default(),
            extractor,
            decompressor: Decompressor::within(decompressed_bytes, kept_bytes, room),
            spare: Vec::new(),
            budget: 0,
            inflating: Inflating::default(),
            ids: Vec::new(),
        }
    }

    /// Overwrites what the buffers hold of messages that were read. To be called now and then, also while nothing comes.
    pub fn wipe(&mut self) {
        self.decompressor.wipe();
        let mut spare = std::mem::take(&mut self.spare);
        spare.resize(spare.capacity(), 0);
        spare.fill(0);
        // The last use of the bytes, or the compiler might leave the zeros out.
        std::hint::black_box(&mut spare);
    }
}

/// What a connection was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Not enough seen yet.
    Unknown,
    Kafka,
    /// TLS of which nothing is read: it is not wanted, or there is no key.
    Tls,
    /// Something else.
    Other,
}

/// See the module.
pub struct Connection {
    requests: (Stream, Option<Framer>),
    responses: (Stream, Option<Framer>),
    exchanges: Exchanges,
    closed: Closed,
    /// What is inside TLS is read.
    reads_tls: bool,
    /// What stands between the streams and the framers of a connection that is TLS.
    inside: Option<Box<Session>>,
    /// Why the session is over.
    unread: Option<Unread>,
    /// It was found to be none of Kafka's, counted, and holds nothing.
    is_settled: bool,
}

/// Who has closed its end, and reads nothing more that it does not have yet.
#[derive(Clone, Copy, Default)]
struct Closed {
    client: bool,
    broker: bool,
}

/// What both directions share.
struct Exchanges {
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// The last client id; nearly always that of the next request too.
    client_id: Option<Arc<str>>,
    /// The client id of the last request that its response has confirmed.
    confirmed_client_id: Option<Arc<str>>,
    sessions: Sessions,
    /// What its batches were inflated in vain.
    inflation: Inflation,
    speaks: Speaks,
    /// Why it is none of Kafka's, where it is something else.
    not_kafka: Option<NotKafka>,
    /// What is said to a proxy, and answered.
    preface: Preface,
    /// Bytes of the client's were missed.
    has_gap: bool,
    /// Bytes that searches have passed over and that are not counted yet.
    skipped: u64,
    /// Of a connection whose beginning was not seen.
    tls: tls::Records,
    /// What is read lies inside TLS.
    is_inside: bool,
    tokens: Tokens,
    /// Something of the client's was seen, or missed.
    has_asked: bool,
    /// Requests may have been missed, and no later one has been answered yet.
    missed_requests: bool,
    /// How often.
    misses: u32,
    /// Responses may have been missed since the last one that was matched.
    missed_responses: bool,
    /// Requests were found by a search, and no response has confirmed them yet.
    unconfirmed: bool,
    /// Whole frames, one behind the other, since such a search.
    in_a_row: u32,
    /// A request without a response that such a search has found: it waits for what follows it.
    unproven: Option<Box<Pending>>,
    /// Bodies of this connection end before their frames do: those of its client, and of its broker.
    surplus: HasSurplus,
}

/// Who ends bodies with bytes that their schemas do not have.
#[derive(Clone, Copy, Debug, Default)]
struct HasSurplus {
    client: bool,
    broker: bool,
}

/// So many frames in a row are none by chance.
const PROOF: u32 = 2;

/// Of the requests that wait, so many heads stay when memory is given back, so that their responses are not taken for those
/// of others.
const KEPT_HEADS: usize = 16;

impl Default for Connection {
    fn default() -> Self {
        Self {
            requests: (Stream::default(), None),
            responses: (Stream::default(), None),
            exchanges: Exchanges {
                pending: VecDeque::new(),
                pending_bytes: 0,
                client_id: None,
                confirmed_client_id: None,
                sessions: Sessions::default(),
                inflation: Inflation::default(),
                speaks: Speaks::Unknown,
                not_kafka: None,
                preface: Preface::default(),
                has_gap: false,
                skipped: 0,
                tls: tls::Records::default(),
                is_inside: false,
                tokens: Tokens::default(),
                has_asked: false,
                missed_requests: false,
                misses: 0,
                missed_responses: false,
                unconfirmed: false,
                in_a_row: 0,
                unproven: None,
                surplus: HasSurplus::default(),
            },
            closed: Closed::default(),
            reads_tls: false,
            inside: None,
            unread: None,
            is_settled: false,
        }
    }
}

impl Connection {
    /// What the connection was found to be.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        self.exchanges.speaks
    }

    /// Why the connection is [`Speaks::Other`].
    #[must_use]
    pub fn not_kafka(&self) -> Option<NotKafka> {
        self.exchanges.not_kafka
    }

    /// Bytes that the connection holds beyond its own size.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let half = |half: &(Stream, Option<Framer>)| {
            half.0.held_bytes().saturating_add(half.1.as_ref().map_or(0, Framer::held_bytes))
        };
        let inside = self
            .inside
            .as_ref()
            .map_or(0, |session| session.held_bytes().saturating_add(size_of::<Session>()));
        half(&self.requests)
            .saturating_add(half(&self.responses))
            .saturating_add(self.exchanges.held_bytes())
            .saturating_add(inside)
    }

    /// Gives back what it holds, as far as it is much: early segments, the frames at hand, the requests that wait, and
    /// where consumers stand.
    pub fn shed(&mut self, scratch: &mut Scratch) {
        scratch.counters.lose(Lost::MemoryLimit);
        for (stream, framer) in [&mut self.requests, &mut self.responses] {
            stream.forget();
            if let Some(framer) = framer {
                framer.shed();
            }
        }
        self.shed_tls(scratch);
        self.exchanges.shed(&mut scratch.counters);
    }

    /// Bytes that taking so many of this direction will allocate beside what is held, where that is much: a frame that grows is
    /// copied, and a request is kept once it is whole.
    #[must_use]
    pub fn wants(&self, direction: Direction, len: usize) -> usize {
        let (stream, framer) = match direction {
            Direction::ToBroker => &self.requests,
            Direction::ToClient => &self.responses,
        };
        let Some(framer) = framer else { return 0 };
        framer.wants(len.saturating_add(stream.held_bytes()), direction == Direction::ToBroker)
    }

    /// Whether a part of the frames at hand is not kept.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        [&self.requests.1, &self.responses.1].into_iter().flatten().any(Framer::is_broken)
    }

    /// Takes a segment, and tells `sink` what it completes.
    pub fn push(&mut self, scratch: &mut Scratch, segment: Push<'_>, sink: &mut impl Sink) {
        if self.is_given_up() {
            return;
        }
        let limits = scratch.limits;
        let Push { direction, seq, ack, syn, fin, bytes, len, time_ns } = segment;
        let run = Run { seq, bytes, len, syn, fin, time_ns };
        let closed = &mut self.closed;
        let (from, to) = match direction {
            Direction::ToBroker => {
                closed.client = fin || (closed.client && !syn);
                (Sender::Client, Sender::Server)
            }
            Direction::ToClient => {
                closed.broker = fin || (closed.broker && !syn);
                (Sender::Server, Sender::Client)
            }
        };
        // What a segment acknowledges was there before it.
        if let Some(ack) = ack {
            let between = match to {
                Sender::Client => &self.requests.1,
                Sender::Server => &self.responses.1,
            };
            // Records of TLS end where no frame does.
            let between = self.inside.is_some() || between.as_ref().is_none_or(Framer::is_between);
            let (stream, mut halves) = self.stream(to, scratch, sink);
            stream.acknowledged(ack, between, |piece| halves.piece(to, piece));
        }
        let (stream, mut halves) = self.stream(from, scratch, sink);
        let framer = match from {
            Sender::Client => &mut *halves.requests,
            Sender::Server => &mut *halves.responses,
        };
        framer.get_or_insert_with(|| Framer::new(syn));
        // A broker never speaks first.
        if from == Sender::Server
            && ack.is_some()
            && len > 0
            && halves.exchanges.speaks == Speaks::Unknown
            && !halves.exchanges.has_asked
            && !halves.exchanges.preface.is_answered()
            && halves.requests.as_ref().is_some_and(|framer| !framer.is_searching())
        {
            halves.exchanges.speak_other(NotKafka::ServerSpeaksFirst);
        } else if stream.push(run, limits.held_bytes, |piece| halves.piece(from, piece)) {
            halves.scratch.counters.lose(Lost::HeldTooMuch);
        }
        if from == Sender::Client {
            self.give_up_search(limits);
        }
        self.settle(scratch);
    }

    /// The stream of a direction, and what reads both.
    #[inline]
    fn stream<'x, S: Sink>(
        &'x mut self,
        from: Sender,
        scratch: &'x mut Scratch,
        sink: &'x mut S,
    ) -> (&'x mut Stream, Halves<'x, S>) {
        let Self { requests, responses, exchanges, inside, reads_tls, .. } = self;
        let stream = match from {
            Sender::Client => &mut requests.0,
            Sender::Server => &mut responses.0,
        };
        let (requests, responses, reads_tls) = (&mut requests.1, &mut responses.1, *reads_tls);
        (stream, Halves { requests, responses, inside, reads_tls, exchanges, scratch, sink })
    }

    /// Gives up a connection that was just found to be none of Kafka's.
    fn settle(&mut self, scratch: &mut Scratch) {
        if let Some(why) = self.inside.as_ref().and_then(|session| session.closed()) {
            self.exchanges.speaks = Speaks::Tls;
            let suite = self.inside.as_ref().and_then(|session| session.hello().suite);
            self.unread = Some(Unread { why, suite });
        }
        let reason = match (self.exchanges.speaks, self.unread) {
            (Speaks::Unknown | Speaks::Kafka, _) => return,
            (Speaks::Tls, unread) => unread.map_or(Lost::Tls, Unread::reason),
            (Speaks::Other, _) => Lost::NotKafka,
        };
        if !std::mem::replace(&mut self.is_settled, true) {
            scratch.counters.lose(reason);
        }
        self.release();
    }

    /// Nothing more will come: what is held is read as far as it goes, and what waits for a response is counted.
    pub fn finish(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        // What an end that has closed never acknowledged never came to it, and is not read here either.
        let Self { requests, responses, closed, .. } = self;
        for (nobody_reads, stream) in [(closed.broker, &mut requests.0), (closed.client, &mut responses.0)] {
            if nobody_reads {
                let unread = &mut scratch.counters.unread_bytes;
                *unread = unread.saturating_add(stream.abandon());
            }
        }
        self.give_up_holes(scratch, sink);
        if self.inside.as_ref().is_some_and(|session| !session.lacks().is_empty()) {
            self.give_up_tls(TlsClosed::Ended, scratch, sink);
        }
        self.exchanges.drop_unproven(&mut scratch.counters);
        let Exchanges { speaks, preface, has_asked, .. } = &self.exchanges;
        if *speaks == Speaks::Unknown && preface.was_begun() && !has_asked {
            self.exchanges.speak_other(NotKafka::NothingBehindProxy);
            self.settle(scratch);
        }
        if !self.is_given_up() {
            self.exchanges.count_skipped(&mut scratch.counters);
        }
        // A consumer's last requests have no answer, and nothing is lost with them.
        let lost = |pending: &Pending| pending.api_key == key::PRODUCE && !pending.broken;
        for _ in self.exchanges.pending.iter().filter(|pending| lost(pending)) {
            scratch.counters.lose(Lost::Unanswered);
        }
        self.release();
    }

    /// The connection has ended before all of its requests were answered, and they never will be: what was produced by them is told
    /// with the error `NETWORK_EXCEPTION`. Where an answer may have been missed, nothing is.
    pub fn end(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        let holds = self.requests.0.held_since().or(self.responses.0.held_since()).is_some()
            || self.inside.as_ref().is_some_and(|session| session.held().is_some());
        let Exchanges { pending, pending_bytes, sessions, inflation, missed_responses, .. } =
            &mut self.exchanges;
        if holds || *missed_responses {
            return;
        }
        let is_told =
            |pending: &Pending| pending.api_key == key::PRODUCE && !pending.broken && !pending.perhaps_silent;
        for one in std::mem::take(pending) {
            if is_told(&one) {
                *pending_bytes = pending_bytes.saturating_sub(one.held_bytes());
                let state = (&mut *sessions, &mut *inflation);
                let _ = exchange::read(&one.head(None), &one.body, &[], state, scratch, sink);
            } else {
                pending.push_back(one);
            }
        }
    }

    /// Whether something held has waited since before this time for what comes before it.
    #[must_use]
    pub fn has_hole_since(&self, time_ns: u64) -> bool {
        [&self.requests.0, &self.responses.0]
            .into_iter()
            .any(|stream| stream.held_since().is_some_and(|since| since < time_ns))
    }

    /// Who sends in this direction has reset the connection, and acknowledged what it had: it reads nothing more.
    pub fn reset(&mut self, direction: Direction) {
        match direction {
            Direction::ToBroker => self.closed.client = true,
            Direction::ToClient => self.closed.broker = true,
        }
    }

    /// Waits no longer for what is missing: it becomes a gap, and what is held behind it is read.
    pub fn give_up_holes(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        if self.is_given_up() {
            return;
        }
        for from in [Sender::Client, Sender::Server] {
            let (stream, mut halves) = self.stream(from, scratch, sink);
            stream.finish(|piece| halves.piece(from, piece));
        }
        self.settle(scratch);
    }

    fn is_given_up(&self) -> bool {
        matches!(self.exchanges.speaks, Speaks::Tls | Speaks::Other)
    }

    /// What was lost may have been a request, and the rest of it is as long as a request may be.
    fn give_up_search(&mut self, limits: Limits) {
        let request_bytes = u64::try_from(limits.frame_bytes).unwrap_or(u64::MAX);
        let rest = if self.exchanges.has_gap { request_bytes } else { 0 };
        if let Some(framer) = &self.requests.1
            && self.exchanges.speaks == Speaks::Unknown
            && framer.searched() > limits.search_bytes.saturating_add(rest)
        {
            self.exchanges.speak_other(NotKafka::Searched);
        }
    }

    fn release(&mut self) {
        for (stream, framer) in [&mut self.requests, &mut self.responses] {
            *stream = Stream::default();
            if let Some(framer) = framer {
                framer.stop();
            }
        }
        self.inside = None;
        let exchanges = &mut self.exchanges;
        exchanges.pending = VecDeque::new();
        exchanges.pending_bytes = 0;
        exchanges.unproven = None;
        exchanges.sessions = Sessions::default();
        (exchanges.client_id, exchanges.confirmed_client_id) = (None, None);
    }
}

/// The bytes of a gap, counted.
fn count_gap(piece: Piece<'_>, counters: &mut Counters) -> Option<u64> {
    let Piece::Gap { bytes } = piece else { return None };
    counters.lose(Lost::Gap);
    counters.gap_bytes = counters.gap_bytes.saturating_add(bytes);
    Some(bytes)
}

impl Exchanges {
    /// The connection is none of Kafka's, if it is not known yet what it is.
    fn speak_other(&mut self, reason: NotKafka) {
        if self.speaks == Speaks::Unknown {
            self.speaks = Speaks::Other;
            self.not_kafka = Some(reason);
        }
    }

    /// Whether a connection whose beginning was not seen turns out to be TLS.
    fn is_tls_amid(&mut self, piece: Piece<'_>) -> bool {
        if let Piece::Data { bytes, .. } = piece
            && self.speaks == Speaks::Unknown
            && !self.is_inside
            && self.tls.see(bytes)
        {
            self.speaks = Speaks::Tls;
        }
        self.speaks == Speaks::Tls
    }

    fn held_bytes(&self) -> usize {
        let id = |id: &Option<Arc<str>>| id.as_ref().map_or(0, |id| id.len());
        let unproven = self.unproven.as_ref().map_or(0, |unproven| unproven.held_bytes());
        self.pending
            .capacity()
            .saturating_mul(size_of::<Pending>())
            .saturating_add(self.pending_bytes)
            .saturating_add(unproven)
            .saturating_add(id(&self.client_id))
            .saturating_add(id(&self.confirmed_client_id))
            .saturating_add(self.sessions.held_bytes())
    }

    fn shed(&mut self, counters: &mut Counters) {
        if self.pending.len() > KEPT_HEADS {
            self.pending = VecDeque::new();
            self.miss_requests();
        }
        for pending in &mut self.pending {
            pending.broken |= !pending.body.is_empty();
            pending.body = Box::default();
            (pending.client_id, pending.owns_id) = (None, false);
        }
        self.pending.shrink_to_fit();
        self.pending_bytes = 0;
        self.client_id = None;
        self.drop_unproven(counters);
        self.sessions = Sessions::default();
    }

    /// A search has passed over bytes. Those before a connection was known to be Kafka are not lost: it was there before.
    fn skip(&mut self, bytes: u64) {
        if self.speaks == Speaks::Kafka {
            self.skipped = self.skipped.saturating_add(bytes);
        }
    }

    /// Counts what searches have passed over.
    fn count_skipped(&mut self, counters: &mut Counters) {
        let skipped = std::mem::take(&mut self.skipped);
        counters.skipped_bytes = counters.skipped_bytes.saturating_add(skipped);
    }

    /// Requests may have been missed.
    fn miss_requests(&mut self) {
        self.missed_requests = true;
        self.misses = self.misses.wrapping_add(1);
    }

    /// What a search has found without a response was nothing, or nobody can tell.
    fn drop_unproven(&mut self, counters: &mut Counters) {
        if self.unproven.take().is_some() {
            counters.lose(Lost::Unconfirmed);
        }
    }

    /// What stood behind the bodies of an exchange.
    fn note_surplus(&mut self, surplus: Surplus) {
        self.surplus.client |= surplus.request > 0;
        self.surplus.broker |= surplus.response > 0;
    }

    /// Waits no longer for the responses of the oldest requests, as that of a later one is there.
    fn give_up(&mut self, count: usize, counters: &mut Counters) {
        for passed_over in self.pending.drain(..count.min(self.pending.len())) {
            self.pending_bytes = self.pending_bytes.saturating_sub(passed_over.held_bytes());
            // What it asked for is not applied, so where the consumer stands is not known.
            if passed_over.api_key == key::FETCH {
                self.sessions = Sessions::default();
            }
            if !passed_over.broken {
                counters.lose(Lost::Unanswered);
            }
        }
    }

    /// The client id, shared, and whether it is another than that of the request before.
    fn client(&mut self, id: Option<&str>) -> (Option<Arc<str>>, bool) {
        let Some(id) = id else { return (None, false) };
        let is_new = self.client_id.as_deref() != Some(id);
        if is_new {
            self.client_id = Some(id.into());
        }
        (self.client_id.clone(), is_new)
    }
}
