//! The frames of the responses: each is held against the request that it answers.

use super::exchange;
use super::exchanges::{Exchanges, Speaks, count_gap};
use super::found::Found;
use super::sasl;
use super::scratch::Scratch;
use super::session::Sessions;
use crate::counters::{Lost, Malformed, NotKafka};
use crate::protocol::api::key;
use crate::protocol::header;
use crate::sink::{ResponseHead, Sink};
use crate::stream::Piece;
use crate::stream::frame::{Frame, Framer, Reader, Verdict};

/// Requests of the same correlation id that a response is held against: ids come again only in odd
/// clients.
const MAX_CANDIDATES: usize = 4;

/// Reads the frames of the responses.
pub struct Responses<'x, S> {
    pub exchanges: &'x mut Exchanges,
    pub scratch: &'x mut Scratch,
    pub sink: &'x mut S,
    asked: Asked,
}

/// How often the ids of the pending requests were looked through for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Times(u32),
    /// So often that they were put in order, in [`Scratch::ids`].
    Sorted,
}

/// From this time on they are in order: once is the usual case, and sorting costs as much as looking
/// through them some times.
const SORT_AT: u32 = 2;

impl<'x, S: Sink> Responses<'x, S> {
    pub fn new(exchanges: &'x mut Exchanges, scratch: &'x mut Scratch, sink: &'x mut S) -> Self {
        Self { exchanges, scratch, sink, asked: Asked::Times(0) }
    }

    /// Whether a request with this correlation id waits for its response.
    fn is_pending(&mut self, id: i32) -> bool {
        let pending = &self.exchanges.pending;
        match self.asked {
            _ if pending.front().is_none_or(|oldest| oldest.correlation_id == id) => !pending.is_empty(),
            Asked::Times(times) if times < SORT_AT => {
                self.asked = Asked::Times(times.saturating_add(1));
                pending.iter().any(|pending| pending.correlation_id == id)
            }
            Asked::Times(_) => {
                self.scratch.ids.clear();
                self.scratch.ids.extend(pending.iter().map(|pending| pending.correlation_id));
                self.scratch.ids.sort_unstable();
                self.asked = Asked::Sorted;
                self.scratch.ids.binary_search(&id).is_ok()
            }
            Asked::Sorted => self.scratch.ids.binary_search(&id).is_ok(),
        }
    }

    pub fn piece(&mut self, framer: &mut Option<Framer>, piece: Piece<'_>, max_bytes: usize) {
        let piece = match self.behind_preface(piece) {
            Some(piece) => piece,
            None => return,
        };
        if let Some(bytes) = count_gap(piece, &mut self.scratch.counters) {
            self.sink.missed(bytes);
            self.exchanges.missed.responses = true;
        }
        let Some(framer) = framer else { return };
        if framer.is_searching() {
            self.exchanges.missed.responses = true;
            if self.exchanges.is_tls_amid(piece) {
                return;
            }
        }
        framer.push(piece, max_bytes, self);
    }
}

impl<S: Sink> Responses<'_, S> {
    /// The part of a piece that is behind a proxy's answer; `None` if all of it is that.
    fn behind_preface<'a>(&mut self, piece: Piece<'a>) -> Option<Piece<'a>> {
        let exchanges = &mut *self.exchanges;
        if !exchanges.opening.preface.is_answered() {
            return Some(piece);
        }
        let Piece::Data { seq, bytes, time_ns } = piece else {
            exchanges.opening.preface.close();
            return Some(piece);
        };
        match exchanges.opening.preface.proxy(bytes) {
            Ok([]) => None,
            // Who is behind the proxy speaks first.
            Ok(_) if exchanges.opening.preface.has_just_ended() => {
                exchanges.speak_other(NotKafka::ServerSpeaksFirst);
                None
            }
            Ok(behind) => {
                let passed = u32::try_from(bytes.len().saturating_sub(behind.len())).unwrap_or(u32::MAX);
                Some(Piece::Data { seq: seq.wrapping_add(passed), bytes: behind, time_ns })
            }
            Err(reason) => {
                exchanges.speak_other(reason);
                None
            }
        }
    }
}

impl<S: Sink> Reader for Responses<'_, S> {
    /// A response names neither its API nor its version: it is found by the correlation id of a
    /// pending request, and by being what that request's API answers. Small numbers abound in any
    /// data, so one that is not whole yet is believed only where a segment begins with it.
    fn plausible(&mut self, bytes: &[u8], first: bool, cost: &mut usize) -> bool {
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
        if !self.is_pending(id) {
            return false;
        }
        // It is looked for among all, and perhaps the next one too.
        *cost = cost.saturating_add(self.exchanges.pending.len().saturating_mul(2));
        // A segment that is one frame says where the frame ends.
        let may_have_surplus = self.exchanges.surplus.broker || (first && frame.len() == size);
        let found = Found { bytes: frame, len: size, first, may_have_surplus };
        let mut candidates = self.exchanges.pending.iter().filter(|pending| pending.correlation_id == id);
        if !candidates.by_ref().take(MAX_CANDIDATES).any(|pending| pending.is_answered_by(id, &found, cost)) {
            return false;
        }
        // Behind it nothing follows yet, or another response that is waited for, or it goes on
        // beyond these bytes.
        match frame.get(size..) {
            None | Some([]) => true,
            Some([_, _, _, _, c0, c1, c2, c3, ..]) => {
                let next = i32::from_be_bytes([*c0, *c1, *c2, *c3]);
                self.exchanges.pending.iter().any(|pending| pending.correlation_id == next)
            }
            Some(_) => false,
        }
    }

    /// A response that is found answers a request.
    fn in_vain(&self) -> bool {
        false
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
        self.scratch.counters.refuse(Malformed::Frame);
        self.exchanges.missed.responses = true;
        Verdict::Lost
    }

    fn frame(&mut self, frame: Frame<'_>) -> Verdict {
        let Frame { bytes, broken, seq, start_ns, end_ns } = frame;
        let id = header::correlation_id(bytes);
        let is_pending = id.is_ok_and(|id| self.is_pending(id));
        let exchanges = &mut *self.exchanges;
        let counters = &mut self.scratch.counters;
        if exchanges.tokens.answer(bytes, exchanges.pending.front(), exchanges.surplus.broker) {
            counters.sasl_tokens = counters.sasl_tokens.saturating_add(1);
            return Verdict::Forget;
        }
        if !broken {
            counters.frames = counters.frames.saturating_add(1);
        }
        let Ok(id) = id else {
            if broken {
                // Whose response it was is known by what the next one is.
                counters.lose(Lost::FrameBroken);
                exchanges.missed.responses = true;
                return Verdict::Next;
            }
            counters.refuse(Malformed::Frame);
            return Verdict::Lost;
        };
        let place = if !is_pending {
            None
        } else if exchanges.missed.responses && !broken {
            // Where the order is not sure, the response has to be what the request's API answers.
            // Ids may come again, and then the request is unknown.
            let first = |may_have_surplus| {
                let found = Found::whole(bytes, may_have_surplus);
                let mut tries = 0_usize;
                exchanges.pending.iter().position(|pending| {
                    tries = tries.saturating_add(usize::from(pending.correlation_id == id));
                    tries <= MAX_CANDIDATES && pending.is_answered_by(id, &found, &mut 0)
                })
            };
            // Only what is none of the others is one that goes on behind its body.
            let first = first(false).or_else(|| first(true));
            let last = exchanges.pending.iter().rposition(|pending| pending.correlation_id == id);
            let last = first.and(last);
            if first != last {
                counters.lose(Lost::AmbiguousResponse);
                self.asked = Asked::Times(0);
                exchanges.give_up(last.map_or(0, |last| last.saturating_add(1)), counters);
                return Verdict::Next;
            }
            first
        } else {
            exchanges.pending.iter().position(|pending| pending.correlation_id == id)
        };
        let Some(place) = place else {
            if exchanges.missed.requests || exchanges.pending.is_empty() {
                counters.lose(Lost::ResponseWithoutRequest);
                return Verdict::Next;
            }
            counters.refuse(Malformed::ResponseOrder);
            exchanges.missed.responses = true;
            return Verdict::Lost;
        };
        let passed_over_is_fine = exchanges.missed.responses
            || exchanges.pending.iter().take(place).all(|pending| pending.perhaps_silent);
        if place > 0 && !passed_over_is_fine {
            counters.refuse(Malformed::ResponseOrder);
            exchanges.missed.responses = true;
            return Verdict::Lost;
        }
        self.asked = Asked::Times(0);
        exchanges.give_up(place, counters);
        let Some(pending) = exchanges.pending.pop() else { return Verdict::Lost };
        exchanges.missed.responses = false;
        // One of before says nothing of those that came later.
        if pending.misses == exchanges.missed.times {
            exchanges.missed.requests = false;
            exchanges.search.unconfirmed = false;
        }
        // The client of an unknown API is unknown.
        if pending.client_id.is_some() && exchanges.clients.confirmed != pending.client_id {
            exchanges.clients.confirmed.clone_from(&pending.client_id);
        }
        exchanges.speaks = Speaks::Kafka;
        exchanges.count_skipped(counters);
        if sasl::is_refused(&pending, bytes) {
            exchanges.tokens.refuse();
        }
        let verdict = if pending.api_key == key::SASL_AUTHENTICATE { Verdict::Forget } else { Verdict::Next };
        if broken {
            counters.lose(Lost::FrameBroken);
        }
        if broken || pending.broken {
            // What a broken Fetch asked for, or got, is not known: neither is where the consumer
            // stands.
            if pending.api_key == key::FETCH {
                exchanges.carried.sessions = Sessions::default();
            }
            // Missing bytes were reported; here the request was not kept.
            if !broken && matches!(pending.api_key, key::FETCH | key::SHARE_FETCH) {
                self.sink.missed(0);
            }
            return verdict;
        }
        let head = pending.head(Some(ResponseHead { start_ns, end_ns, seq }));
        let carried = &mut exchanges.carried;
        let surplus = exchange::read(&head, &pending.body, bytes, carried, self.scratch, self.sink);
        exchanges.note_surplus(surplus);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Direction, Limits, Push};
    use crate::context::Extractor;

    struct Ignore;

    impl Sink for Ignore {}

    /// A connection on which as many requests wait as can, from this id on.
    fn waiting(scratch: &mut Scratch, first: i32) -> Connection {
        let mut connection = Connection::default();
        let syn = Push {
            direction: Direction::ToBroker,
            seq: 0,
            ack: None,
            syn: true,
            fin: false,
            bytes: &[],
            len: 0,
            time_ns: 0,
        };
        connection.push(scratch, syn, &mut Ignore);
        let mut seq = 1;
        for id in first..first.saturating_add(i32::try_from(Limits::default().pending).unwrap()) {
            let mut bytes = vec![0, 0, 0, 10, 0, 3, 0, 0];
            bytes.extend(id.to_be_bytes());
            bytes.extend([0xff, 0xff]);
            let len = bytes.len() as u32;
            connection.push(scratch, Push { seq, syn: false, bytes: &bytes, len, ..syn }, &mut Ignore);
            seq += len;
        }
        assert_eq!(connection.exchanges.pending.len(), Limits::default().pending);
        connection
    }

    /// Every fourth place could be a response, by its size.
    #[test]
    fn a_search_looks_through_the_pending_requests_a_few_times_only() {
        let mut scratch = Scratch::new(Limits::default(), Extractor::default());
        let bytes = [0, 0, 4, 0].repeat(16 << 10);
        for (first, some_are_pending) in [(1_000_000, false), (1, true)] {
            let mut connection = waiting(&mut scratch, first);
            let mut ignore = Ignore;
            let mut half = Responses::new(&mut connection.exchanges, &mut scratch, &mut ignore);
            let mut costs = (0..bytes.len()).map(|at| {
                let mut cost = 0;
                assert!(!half.plausible(&bytes[at..], false, &mut cost));
                cost
            });
            // What is not pending costs nothing; what is, as much as it is looked for, which the
            // framer bounds.
            assert_eq!(costs.by_ref().max() >= Some(Limits::default().pending), some_are_pending);
            drop(costs);
            assert_eq!(half.asked, Asked::Sorted);
        }
    }

    #[test]
    fn unknown_responses_seldom_look_through_pending_requests() {
        let mut scratch = Scratch::new(Limits::default(), Extractor::default());
        let mut connection = waiting(&mut scratch, 1);
        connection.exchanges.miss_requests();
        let mut ignore = Ignore;
        let mut half = Responses::new(&mut connection.exchanges, &mut scratch, &mut ignore);
        for id in 5000..9000_u32 {
            let bytes = [id.to_be_bytes(), [0; 4]].concat();
            let frame = Frame { bytes: &bytes, broken: false, seq: 0, start_ns: 0, end_ns: 0 };
            assert_eq!(half.frame(frame), Verdict::Next);
        }
        assert_eq!(half.asked, Asked::Sorted);
        // One that is pending is found all the same, and the next search begins anew.
        let bytes = [2_u32.to_be_bytes(), [0; 4]].concat();
        let frame = Frame { bytes: &bytes, broken: true, seq: 0, start_ns: 0, end_ns: 0 };
        half.exchanges.missed.responses = true;
        assert_eq!(half.frame(frame), Verdict::Next);
        assert_eq!((half.asked, half.is_pending(2), half.is_pending(3)), (Asked::Times(0), false, true));
    }
}
