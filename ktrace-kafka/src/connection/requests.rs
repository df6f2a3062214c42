//! The frames of the requests: each waits for its response, or is reported at once where it has
//! none.

use super::exchange::{self, is_read};
use super::exchanges::{Exchanges, PROOF, Speaks, count_gap};
use super::found::{Found, is_first_request, request_is_plausible};
use super::pending::Pending;
use super::sasl::{self, Sent};
use super::scratch::Scratch;
use super::session::Sessions;
use super::tls;
use crate::counters::{Lost, Malformed, NotKafka};
use crate::protocol::api::key;
use crate::protocol::header::{self, Begins, PLAUSIBLE_BYTES, RequestHeader};
use crate::sink::Sink;
use crate::stream::Piece;
use crate::stream::frame::{Frame, Framer, Reader, Verdict};

/// Reads the frames of the requests.
pub struct Requests<'x, S> {
    pub exchanges: &'x mut Exchanges,
    pub scratch: &'x mut Scratch,
    pub sink: &'x mut S,
}

impl<S: Sink> Requests<'_, S> {
    pub fn piece(&mut self, framer: &mut Option<Framer>, piece: Piece<'_>, max_bytes: usize) {
        let piece = match self.behind_preface(framer.as_ref(), piece) {
            Some(piece) => piece,
            None => return,
        };
        self.exchanges.opening.has_asked = true;
        if let Some(bytes) = count_gap(piece, &mut self.scratch.counters) {
            self.exchanges.opening.has_gap = true;
            self.sink.missed(bytes);
            self.exchanges.miss_requests();
            // It may have taken a Fetch that moved the consumer elsewhere.
            self.exchanges.carried.sessions = Sessions::default();
        }
        let Some(framer) = framer else { return };
        if framer.is_searching() {
            self.exchanges.miss_requests();
            if self.exchanges.is_tls_amid(piece) {
                return;
            }
        }
        if let Piece::Data { bytes, .. } = piece
            && framer.held_bytes() == 0
        {
            self.judge(framer, bytes);
        }
        if matches!(self.exchanges.speaks, Speaks::Tls | Speaks::Other) {
            return;
        }
        framer.push(piece, max_bytes, self);
        // The first segments may be short.
        self.judge(framer, framer.held());
    }

    /// A connection seen from its beginning begins with a request, or with a token, or it is not
    /// Kafka.
    fn judge(&mut self, framer: &Framer, bytes: &[u8]) {
        if self.exchanges.speaks != Speaks::Unknown
            || framer.is_searching()
            || self.exchanges.search.unconfirmed
            || self.exchanges.tokens.are_expected()
        {
            return;
        }
        if tls::is_handshake(bytes) && !self.exchanges.is_inside {
            if self.exchanges.opening.preface.was_begun() && !self.scratch.ports_are_given {
                self.exchanges.speak_other(NotKafka::TlsBehindProxy);
            } else {
                self.exchanges.speaks = Speaks::Tls;
            }
        } else if let Begins::No(reason) = RequestHeader::may_begin(bytes) {
            if sasl::begins_with_gssapi(bytes) {
                self.exchanges.tokens.expect();
            } else {
                self.exchanges.speak_other(reason);
            }
        }
    }

    /// The part of a piece that is behind the words for a proxy; `None` if all of it is for one.
    fn behind_preface<'a>(&mut self, framer: Option<&Framer>, piece: Piece<'a>) -> Option<Piece<'a>> {
        let preface = &mut self.exchanges.opening.preface;
        if !preface.is_open() {
            return Some(piece);
        }
        let Piece::Data { seq, bytes, time_ns } = piece else {
            preface.close();
            return Some(piece);
        };
        if framer.is_some_and(Framer::is_searching) {
            preface.close();
            return Some(piece);
        }
        // A request of 64 MiB or more begins with the same byte as a word to a SOCKS proxy, but no
        // such word reads as a request.
        if preface.is_at_start()
            && bytes.len() >= PLAUSIBLE_BYTES
            && RequestHeader::may_begin(bytes) == Begins::Perhaps
        {
            preface.close();
            return Some(piece);
        }
        match preface.client(bytes) {
            Ok([]) => {
                // Silence is the server's part again.
                self.exchanges.opening.has_asked = false;
                None
            }
            Ok(behind) => {
                let passed = u32::try_from(bytes.len().saturating_sub(behind.len())).unwrap_or(u32::MAX);
                Some(Piece::Data { seq: seq.wrapping_add(passed), bytes: behind, time_ns })
            }
            Err(reason) => {
                self.exchanges.speak_other(reason);
                None
            }
        }
    }
}

impl<S: Sink> Reader for Requests<'_, S> {
    fn plausible(&mut self, bytes: &[u8], first: bool, cost: &mut usize) -> bool {
        let Some((size, frame)) = bytes.split_first_chunk() else { return false };
        let len = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let found = RequestHeader::is_plausible(bytes)
            && request_is_plausible(
                &Found { bytes: frame, len, first, may_have_surplus: self.exchanges.surplus.client },
                self.exchanges.clients.confirmed.as_deref().map(str::as_bytes),
                cost,
            );
        if found {
            self.exchanges.search.unconfirmed = true;
            self.exchanges.search.in_a_row = 0;
            self.exchanges.drop_unproven(&mut self.scratch.counters);
        }
        found
    }

    fn in_vain(&self) -> bool {
        self.exchanges.search.unconfirmed
    }

    fn skipped(&mut self, bytes: u64) {
        self.exchanges.skip(bytes);
    }

    fn spare(&mut self) -> &mut Vec<u8> {
        &mut self.scratch.spare
    }

    fn spare_bytes(&self) -> usize {
        self.scratch.limits.kept_bytes / 2
    }

    fn bad_size(&mut self) -> Verdict {
        self.refuse()
    }

    fn frame(&mut self, frame: Frame<'_>) -> Verdict {
        let Frame { bytes, broken, seq, start_ns, end_ns } = frame;
        match self.exchanges.tokens.take(bytes, broken) {
            Sent::Request => {}
            Sent::Token => {
                self.scratch.counters.sasl_tokens = self.scratch.counters.sasl_tokens.saturating_add(1);
                return Verdict::Forget;
            }
            Sent::Neither => return self.refuse(),
        }
        let (header, body) = match RequestHeader::read(bytes) {
            Ok(read) => read,
            Err(_) if broken => {
                // Its header is gone, so what its response will be is unknown.
                self.scratch.counters.lose(Lost::FrameBroken);
                self.exchanges.miss_requests();
                return Verdict::Forget;
            }
            Err(_) => return self.refuse(),
        };
        if self.exchanges.speaks == Speaks::Unknown
            && !self.exchanges.search.unconfirmed
            && !broken
            && RequestHeader::is_odd(bytes)
            && !is_first_request(bytes)
        {
            self.exchanges.speak_other(NotKafka::ClientId);
            return Verdict::Stop;
        }
        let verdict = if header.api_key == key::SASL_AUTHENTICATE { Verdict::Forget } else { Verdict::Next };
        // What a search found is believed when all of it is there.
        if self.exchanges.search.unconfirmed && !broken {
            let found = Found::whole(bytes, self.exchanges.surplus.client);
            if !request_is_plausible(&found, None, &mut 0) {
                return self.refuse();
            }
            self.prove();
        }
        if broken {
            self.scratch.counters.lose(Lost::FrameBroken);
        } else {
            self.scratch.counters.frames = self.scratch.counters.frames.saturating_add(1);
        }
        let acks = (header.api_key == key::PRODUCE).then(|| header::produce_acks(header.version, body));
        let (client_id, owns_id) = self.exchanges.clients.share(header.client_id);
        let mut pending = Pending {
            api_key: header.api_key,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id,
            seq,
            start_ns,
            end_ns,
            body: Box::default(),
            broken,
            perhaps_silent: acks == Some(None) || self.exchanges.search.unconfirmed,
            misses: self.exchanges.missed.times,
            owns_id,
        };
        let limits = self.scratch.limits;
        let held = self.exchanges.pending.bytes().saturating_add(body.len());
        if acks == Some(Some(0)) {
            if broken {
                return verdict;
            }
            if self.is_proven(&pending) {
                self.emit(&pending, body);
            } else if held > limits.pending_bytes {
                self.scratch.counters.lose(Lost::TooManyPending);
            } else {
                pending.body = body.into();
                self.exchanges.search.unproven = Some(Box::new(pending));
            }
            return verdict;
        }
        if self.exchanges.pending.len() >= limits.pending {
            self.scratch.counters.lose(Lost::TooManyPending);
            self.exchanges.miss_requests();
            return verdict;
        }
        if !broken && is_read(header.api_key) {
            if held > limits.pending_bytes {
                self.scratch.counters.lose(Lost::TooManyPending);
                pending.broken = true;
            } else {
                pending.body = body.into();
            }
        }
        if !pending.broken && !pending.perhaps_silent {
            exchange::announce(&pending.head(None), body, self.sink);
        }
        if sasl::announces_tokens(&header) {
            self.exchanges.tokens.expect();
        }
        self.exchanges.pending.push(pending);
        verdict
    }
}

impl<S: Sink> Requests<'_, S> {
    /// A frame that a search has found, or one behind it, is whole, and what it should be. The
    /// second proves the first.
    fn prove(&mut self) {
        self.exchanges.search.in_a_row = self.exchanges.search.in_a_row.saturating_add(1);
        if self.exchanges.search.in_a_row >= PROOF
            && let Some(proven) = self.exchanges.search.unproven.take()
        {
            self.emit(&proven, &proven.body);
        }
    }

    /// Whether a request without a response can be reported: it was not found by a search, or is of
    /// the client that this connection is known to be of, or is not the first in a row.
    fn is_proven(&self, request: &Pending) -> bool {
        let Exchanges { search, clients, .. } = &*self.exchanges;
        let is_known = clients.confirmed.is_some() && clients.confirmed == request.client_id;
        !search.unconfirmed || is_known || search.in_a_row >= PROOF
    }

    /// Reports a request that has no response.
    fn emit(&mut self, request: &Pending, body: &[u8]) {
        let carried = &mut self.exchanges.carried;
        let surplus = exchange::read(&request.head(None), body, &[], carried, self.scratch, self.sink);
        self.exchanges.note_surplus(surplus);
    }

    fn refuse(&mut self) -> Verdict {
        if self.exchanges.search.unconfirmed {
            // What a search has found was none.
            self.exchanges.drop_unproven(&mut self.scratch.counters);
            self.exchanges.miss_requests();
            return Verdict::Lost;
        }
        if self.exchanges.speaks == Speaks::Unknown {
            self.exchanges.speak_other(NotKafka::NoRequest);
            return Verdict::Stop;
        }
        self.scratch.counters.refuse(Malformed::Frame);
        self.exchanges.miss_requests();
        Verdict::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::connection::limits::Limits;
    use crate::context::Extractor;

    struct Ignore;

    impl Sink for Ignore {}

    /// Heads every twelve bytes, each of a body that only its end shows to be none: their cost is
    /// what was read.
    #[test]
    fn what_a_look_reads_is_what_it_costs() {
        let mut scratch = Scratch::new(Limits::default(), Extractor::default());
        let mut connection = Connection::default();
        let piece = [0, 0, 0x70, 1, 0, 3, 0, 0x0a, 3, 0x0e, 0, 0x70].repeat((64 << 10) / 12);
        let mut half =
            Requests { exchanges: &mut connection.exchanges, scratch: &mut scratch, sink: &mut Ignore };
        let mut cost = 0;
        for at in 0..piece.len() {
            half.plausible(&piece[at..], false, &mut cost);
        }
        assert!(cost > 100 * piece.len(), "{cost}");
    }
}
