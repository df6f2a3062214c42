//! Both directions of a connection, and what lies between their streams and their framers: nothing,
//! or TLS.
//!
//! ```text
//!  stream ──▶ framer                   in the clear
//!  stream ──▶ Session ──▶ framer       inside TLS: plaintext of either direction, in the order in which it passed
//! ```

use ktrace_tls::Sender;
use ktrace_tls::session::{Plain, Session};

use super::exchanges::{Exchanges, Speaks};
use super::requests::Requests;
use super::responses::Responses;
use super::scratch::Scratch;
use super::unread::Unread;
use crate::counters::Lost;
use crate::sink::Sink;
use crate::stream::Piece;
use crate::stream::frame::Framer;

/// Both directions' framers, with what reads their frames and, inside TLS, what opens their
/// records.
pub struct Halves<'x, S> {
    pub requests: &'x mut Option<Framer>,
    pub responses: &'x mut Option<Framer>,
    pub inside: &'x mut Option<Box<Session>>,
    /// TLS is to be read.
    pub reads_tls: bool,
    pub exchanges: &'x mut Exchanges,
    pub scratch: &'x mut Scratch,
    pub sink: &'x mut S,
}

impl<S: Sink> Halves<'_, S> {
    /// What a stream gives.
    #[inline]
    pub fn piece(&mut self, from: Sender, piece: Piece<'_>) {
        if self.inside.is_some() {
            self.ciphertext(from, piece);
            return;
        }
        self.plaintext(from, piece);
        if self.exchanges.speaks == Speaks::Tls && self.reads_tls {
            self.begin(from, piece);
        }
    }

    #[inline]
    fn plaintext(&mut self, from: Sender, piece: Piece<'_>) {
        let (exchanges, scratch, sink) = (&mut *self.exchanges, &mut *self.scratch, &mut *self.sink);
        let max_bytes = scratch.limits.frame_bytes;
        match from {
            Sender::Client => Requests { exchanges, scratch, sink }.piece(self.requests, piece, max_bytes),
            Sender::Server => {
                Responses::new(exchanges, scratch, sink).piece(self.responses, piece, max_bytes)
            }
        }
    }

    /// This piece has shown that the connection is TLS.
    #[cold]
    fn begin(&mut self, from: Sender, piece: Piece<'_>) {
        self.exchanges.speaks = Speaks::Unknown;
        self.exchanges.is_inside = true;
        self.exchanges.opening.preface.close();
        let framer = match from {
            Sender::Client => &mut *self.requests,
            Sender::Server => &mut *self.responses,
        };
        let from_beginning = framer.as_ref().is_some_and(|framer| !framer.is_searching());
        // The first bytes may have come in several pieces, of which the framer has kept those
        // before.
        let kept = framer.as_ref().filter(|_| from_beginning).map_or((0, Vec::new()), Framer::kept);
        *self.requests = Some(Framer::new(from_beginning));
        *self.responses = Some(Framer::new(from_beginning));
        *self.inside = Some(Box::new(Session::new(from_beginning)));
        let time_ns = if let Piece::Data { time_ns, .. } = piece { time_ns } else { 0 };
        match kept {
            (_, bytes) if bytes.is_empty() => self.ciphertext(from, piece),
            (seq, bytes) => self.ciphertext(from, Piece::Data { seq, bytes: &bytes, time_ns }),
        }
    }

    #[inline(never)]
    fn ciphertext(&mut self, from: Sender, piece: Piece<'_>) {
        self.open(|session, mut give| match piece {
            Piece::Data { seq, bytes, time_ns } => session.data(from, seq, bytes, time_ns, &mut give),
            Piece::Gap { bytes } => session.gap(from, bytes, &mut give),
        });
    }

    /// Does something to the session, and reads what it gives.
    pub fn open<R>(
        &mut self,
        act: impl FnOnce(&mut Session, &mut dyn FnMut(Sender, Plain<'_>)) -> R,
    ) -> Option<R> {
        let mut session = self.inside.take()?;
        let result = act(&mut session, &mut |from, plain| self.opened(from, plain));
        // The framers hear of what is lost when more of their direction is opened; whether a
        // response is still to come is judged before.
        let [requests, responses] = session.take_doubts();
        if requests {
            self.exchanges.miss_requests();
        }
        self.exchanges.missed.responses |= responses;
        let counts = session.take_counts();
        let counters = &mut self.scratch.counters;
        counters.lose_many(Lost::TlsRecord, counts.failed);
        counters.tls_records = counters.tls_records.saturating_add(counts.opened);
        counters.gap_bytes = counters.gap_bytes.saturating_add(counts.not_given_bytes);
        // Of a connection that is given up whole the reason is counted when it is closed.
        if let Some(why) = counts.given_up {
            counters.lose(Unread { why, suite: None }.reason());
        }
        *self.inside = Some(session);
        Some(result)
    }

    fn opened(&mut self, from: Sender, plain: Plain<'_>) {
        let piece = match plain {
            Plain::Data { seq, bytes, time_ns } => Piece::Data { seq, bytes, time_ns },
            Plain::Gap { bytes, exact: true } => Piece::Gap { bytes },
            Plain::Gap { bytes, exact: false } => {
                let lost = &mut self.scratch.counters.gap_bytes;
                *lost = lost.saturating_add(bytes);
                // The framer cannot know where the current frame ends.
                Piece::Gap { bytes: 0 }
            }
        };
        self.plaintext(from, piece);
    }
}
