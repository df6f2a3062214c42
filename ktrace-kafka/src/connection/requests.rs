//! The frames of the requests: each waits for its response, or is told at once where it has none.

use super::exchange::{self, is_read};
use super::pending::Pending;
use super::sasl::{self, Sent};
use super::{Exchanges, Scratch, Session, Speaks, count_gap, tls};
use crate::counters::{Lost, Malformed};
use crate::protocol::api::key;
use crate::protocol::header::{self, RequestHeader};
use crate::protocol::sink::Sink;
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
        self.exchanges.has_asked = true;
        if let Some(bytes) = count_gap(piece, &mut self.scratch.counters) {
            self.sink.missed(bytes);
            self.exchanges.missed_requests = true;
            // It may have taken a Fetch that moved the consumer elsewhere.
            self.exchanges.session = Session::default();
        }
        let Some(framer) = framer else { return };
        if framer.is_searching() {
            self.exchanges.missed_requests = true;
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

    /// A connection seen from its beginning begins with a request, or with a token, or it is not Kafka.
    fn judge(&mut self, framer: &Framer, bytes: &[u8]) {
        if self.exchanges.speaks != Speaks::Unknown
            || framer.is_searching()
            || self.exchanges.tokens.are_expected()
        {
            return;
        }
        if tls::is_handshake(bytes) {
            self.exchanges.speaks = Speaks::Tls;
        } else if !RequestHeader::may_begin(bytes) {
            if sasl::begins_with_gssapi(bytes) {
                self.exchanges.tokens.expect();
            } else {
                self.exchanges.speaks = Speaks::Other;
            }
        }
    }
}

impl<S: Sink> Reader for Requests<'_, S> {
    fn plausible(&mut self, bytes: &[u8], _first: bool) -> bool {
        let Some((size, frame)) = bytes.split_first_chunk() else { return false };
        let len = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let found = RequestHeader::is_plausible(bytes)
            && exchange::request_is_plausible(
                frame,
                len,
                self.exchanges.confirmed_client_id.as_deref().map(str::as_bytes),
            );
        self.exchanges.unconfirmed |= found;
        found
    }

    fn spare(&mut self) -> &mut Vec<u8> {
        &mut self.scratch.spare
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
                // Its header is gone: nobody knows what its response is to be.
                self.scratch.counters.lose(Lost::FrameBroken);
                self.exchanges.missed_requests = true;
                return Verdict::Forget;
            }
            Err(_) => return self.refuse(),
        };
        let verdict = if header.api_key == key::SASL_AUTHENTICATE { Verdict::Forget } else { Verdict::Next };
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
            body: Box::default(),
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
            return verdict;
        }
        let limits = self.scratch.limits;
        if self.exchanges.pending.len() >= limits.pending {
            self.scratch.counters.lose(Lost::TooManyPending);
            self.exchanges.missed_requests = true;
            return verdict;
        }
        if !broken && is_read(header.api_key) {
            let held = self.exchanges.pending_bytes.saturating_add(body.len());
            if held > limits.pending_bytes {
                self.scratch.counters.lose(Lost::TooManyPending);
                pending.broken = true;
            } else {
                self.exchanges.pending_bytes = held;
                pending.body = body.into();
            }
        }
        if sasl::announces_tokens(&header) {
            self.exchanges.tokens.expect();
        }
        self.exchanges.pending.push_back(pending);
        verdict
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
