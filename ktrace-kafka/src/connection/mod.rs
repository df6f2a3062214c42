//! One connection of a client to a broker: its two streams, and which response answers which
//! request.
//!
//! ```text
//!  requests   stream ─▶ framer ─▶ pending (FIFO) ─┐
//!                                                 ├─▶ exchange ─▶ Sink
//!  responses  stream ─▶ framer ───────────────────┘
//! ```
//!
//! A broker answers the requests of a connection in their order, so the oldest pending request is
//! the one answered; the correlation id confirms it. A Produce with acks=0 has no response and is
//! reported at once. After a gap requests may be missing from the queue, or responses: then the
//! correlation id alone decides, and what lies before is given up. Raw SASL tokens, which have no
//! header, are taken out of both directions before.

mod exchange;
mod exchanges;
mod found;
mod halves;
mod inflation;
mod keys;
mod limits;
mod pending;
mod preface;
mod record_set;
mod requests;
mod responses;
mod sasl;
mod scratch;
mod session;
mod tls;
mod unread;

use crate::counters::{Lost, NotKafka};
use crate::protocol::api::key;
use crate::sink::Sink;
use crate::stream::frame::Framer;
use crate::stream::{Run, Stream};
use ktrace_tls::Sender;
use ktrace_tls::session::{Closed as TlsClosed, Session};

pub use exchanges::Speaks;
pub use limits::Limits;
pub use scratch::Scratch;
pub use unread::Unread;

use exchanges::{Clients, Exchanges};
use halves::Halves;
use pending::{Pending, Queue};
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
    /// Which way it goes.
    pub direction: Direction,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// What its sender has received of the other direction.
    pub ack: Option<u32>,
    /// It has the SYN flag.
    pub syn: bool,
    /// It has the FIN flag.
    pub fin: bool,
    /// Its payload, as far as it was captured.
    pub bytes: &'a [u8],
    /// Bytes that passed the socket, at least as many as `bytes`.
    pub len: u32,
    /// Nanoseconds of any clock that does not go back by much.
    pub time_ns: u64,
}

/// One TCP connection between a client and a broker.
///
/// It takes the segments of both directions as they passed the socket, and reports to a [`Sink`]
/// what they complete. It has no clock: times are those that come with the segments, and calls that
/// depend on time take one.
///
/// - [`push`](Self::push) takes a segment. Segments may come in any order and more than once; those
///   of the two directions are best given in the order in which they passed, as what one side
///   acknowledges closes gaps of the other.
/// - [`give_up_holes`](Self::give_up_holes) is for the caller's timer: bytes that are still missing
///   become a gap. Use it where [`has_hole_since`](Self::has_hole_since) says that something has
///   been held for too long.
/// - [`reset`](Self::reset), [`end`](Self::end) and [`finish`](Self::finish) are for the
///   connection's end, in this order: an RST was seen; no more segments will come, so requests
///   without a response failed; what is held is read as far as it goes. After `finish` the
///   connection holds nothing.
/// - [`held_bytes`](Self::held_bytes), [`wants`](Self::wants) and [`shed`](Self::shed) are for a
///   bound on all connections together. [`Limits`] bound each one.
/// - [`read_tls`](Self::read_tls) and what follows it are for connections inside TLS whose keys the
///   caller finds.
///
/// A connection that is found to be something else ([`Speaks::Tls`], [`Speaks::Other`]) is counted
/// once, releases all that it holds and ignores what follows.
///
/// The connections of a thread share a [`Scratch`]. A `Connection` that is idle holds a few hundred
/// bytes.
#[derive(Default)]
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
    /// It was found to be something else than Kafka and counted, and holds nothing.
    is_settled: bool,
}

/// Who has closed its end, and reads nothing more that it does not have yet.
#[derive(Clone, Copy, Default)]
struct Closed {
    client: bool,
    broker: bool,
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
        self.exchanges.opening.not_kafka
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

    /// Releases most of the memory that it holds: early segments, the current frames, pending
    /// requests, and where consumers stand.
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

    /// Bytes that taking `len` of this direction will allocate beside what is held, where that is
    /// much: a frame that grows is copied, and a request is kept once it is whole.
    #[must_use]
    pub fn wants(&self, direction: Direction, len: usize) -> usize {
        let (stream, framer) = match direction {
            Direction::ToBroker => &self.requests,
            Direction::ToClient => &self.responses,
        };
        let Some(framer) = framer else { return 0 };
        framer.wants(len.saturating_add(stream.held_bytes()), direction == Direction::ToBroker)
    }

    /// Whether a part of the current frames is not kept.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        [&self.requests.1, &self.responses.1].into_iter().flatten().any(Framer::is_broken)
    }

    /// Takes a segment and reports to `sink` what it completes.
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
            && !halves.exchanges.opening.has_asked
            && !halves.exchanges.opening.preface.is_answered()
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

    /// Counts and releases a connection that was just found to be something else than Kafka.
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

    /// Nothing more will come: what is held is read as far as it goes, and pending requests are
    /// counted.
    pub fn finish(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        // A closed end never received bytes that it did not acknowledge: they are skipped.
        let Self { requests, responses, closed, .. } = self;
        for (is_closed, stream) in [(closed.broker, &mut requests.0), (closed.client, &mut responses.0)] {
            if is_closed {
                let unread = &mut scratch.counters.unread_bytes;
                *unread = unread.saturating_add(stream.abandon());
            }
        }
        self.give_up_holes(scratch, sink);
        if self.inside.as_ref().is_some_and(|session| !session.lacks().is_empty()) {
            self.give_up_tls(TlsClosed::Ended, scratch, sink);
        }
        self.exchanges.drop_unproven(&mut scratch.counters);
        let Exchanges { speaks, opening, .. } = &self.exchanges;
        if *speaks == Speaks::Unknown && opening.preface.was_begun() && !opening.has_asked {
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

    /// The connection has ended before all of its requests were answered, and they never will be:
    /// what was produced by them is reported with the error `NETWORK_EXCEPTION`. Where an answer
    /// may have been missed, nothing is.
    pub fn end(&mut self, scratch: &mut Scratch, sink: &mut impl Sink) {
        let holds = self.requests.0.held_since().or(self.responses.0.held_since()).is_some()
            || self.inside.as_ref().is_some_and(|session| session.held().is_some());
        let Exchanges { pending, carried, missed, .. } = &mut self.exchanges;
        if holds || missed.responses {
            return;
        }
        let is_reported =
            |pending: &Pending| pending.api_key == key::PRODUCE && !pending.broken && !pending.perhaps_silent;
        for one in std::mem::take(pending) {
            if is_reported(&one) {
                let _ = exchange::read(&one.head(None), &one.body, &[], carried, scratch, sink);
            } else {
                pending.push(one);
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

    /// Who sends in this direction has reset the connection, and acknowledged what it had: it reads
    /// nothing more.
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
        let rest = if self.exchanges.opening.has_gap { request_bytes } else { 0 };
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
        exchanges.pending = Queue::default();
        exchanges.search.unproven = None;
        exchanges.carried.sessions = Sessions::default();
        exchanges.clients = Clients::default();
    }
}
