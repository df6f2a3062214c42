//! What both directions of a connection share: the requests that wait for a response, and what is
//! known of the connection.

use std::sync::Arc;

use super::exchange::Carried;
use super::pending::{Pending, Queue};
use super::preface::Preface;
use super::sasl::Tokens;
use super::session::Sessions;
use super::tls;
use crate::counters::{Counters, Lost, NotKafka};
use crate::protocol::api::key;
use crate::protocol::bodies::Surplus;
use crate::stream::Piece;

/// This many frames in a row are none by chance: random bytes would have to be a head of a known API
/// twice, the second where the first says that its frame ends.
pub const PROOF: u32 = 2;

/// What a connection was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// Not enough seen yet.
    #[default]
    Unknown,
    /// Kafka: a response has answered a request.
    Kafka,
    /// TLS of which nothing is read: it is not wanted, or there is no key.
    Tls,
    /// Something else.
    Other,
}

/// What both directions share.
#[derive(Default)]
pub struct Exchanges {
    pub pending: Queue,
    pub clients: Clients,
    pub carried: Carried,
    pub speaks: Speaks,
    pub opening: Opening,
    /// What is read lies inside TLS.
    pub is_inside: bool,
    pub tokens: Tokens,
    pub missed: Missed,
    pub search: Search,
    /// Bodies of this connection end before their frames do: those of its client, and of its
    /// broker.
    pub surplus: HasSurplus,
}

/// The client ids of a connection, shared by its requests.
#[derive(Default)]
pub struct Clients {
    /// The last one; nearly always that of the next request too.
    pub last: Option<Arc<str>>,
    /// That of the last request that its response has confirmed.
    pub confirmed: Option<Arc<str>>,
}

/// What the beginning of a connection has shown.
#[derive(Default)]
pub struct Opening {
    /// What is said to a proxy, and answered.
    pub preface: Preface,
    /// Records of TLS, where the beginning was not seen.
    pub tls: tls::Records,
    /// Something of the client's was seen, or missed.
    pub has_asked: bool,
    /// Bytes of the client's were missed.
    pub has_gap: bool,
    /// Why it is not Kafka, where it is something else.
    pub not_kafka: Option<NotKafka>,
}

/// Which messages may have been missed.
#[derive(Default)]
pub struct Missed {
    /// Requests, and no later one has been answered yet.
    pub requests: bool,
    /// How often requests may have been missed.
    pub times: u32,
    /// Responses, since the last one that was matched.
    pub responses: bool,
}

/// What searches for the next request have found.
#[derive(Default)]
pub struct Search {
    /// Requests were found, and no response has confirmed them yet.
    pub unconfirmed: bool,
    /// Whole frames, one behind the other, since such a search.
    pub in_a_row: u32,
    /// A request without a response that such a search has found: it waits for what follows it.
    pub unproven: Option<Box<Pending>>,
    /// Bytes that searches have passed over and that are not counted yet.
    pub skipped: u64,
}

/// Who ends bodies with bytes that their schemas do not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct HasSurplus {
    pub client: bool,
    pub broker: bool,
}

impl Exchanges {
    /// Notes that the connection is something else than Kafka, unless it is known already.
    pub fn speak_other(&mut self, reason: NotKafka) {
        if self.speaks == Speaks::Unknown {
            self.speaks = Speaks::Other;
            self.opening.not_kafka = Some(reason);
        }
    }

    /// Whether a connection whose beginning was not seen turns out to be TLS.
    pub fn is_tls_amid(&mut self, piece: Piece<'_>) -> bool {
        if let Piece::Data { bytes, .. } = piece
            && self.speaks == Speaks::Unknown
            && !self.is_inside
            && self.opening.tls.see(bytes)
        {
            self.speaks = Speaks::Tls;
        }
        self.speaks == Speaks::Tls
    }

    pub fn held_bytes(&self) -> usize {
        let unproven = self.search.unproven.as_ref().map_or(0, |unproven| unproven.held_bytes());
        self.pending
            .held_bytes()
            .saturating_add(unproven)
            .saturating_add(self.clients.held_bytes())
            .saturating_add(self.carried.sessions.held_bytes())
    }

    pub fn shed(&mut self, counters: &mut Counters) {
        if self.pending.shed() {
            self.miss_requests();
        }
        self.clients.last = None;
        self.drop_unproven(counters);
        self.carried.sessions = Sessions::default();
    }

    /// A search has passed over bytes. Those before a connection was known to be Kafka are not
    /// lost: it was there before.
    pub fn skip(&mut self, bytes: u64) {
        if self.speaks == Speaks::Kafka {
            self.search.skipped = self.search.skipped.saturating_add(bytes);
        }
    }

    /// Counts what searches have passed over.
    pub fn count_skipped(&mut self, counters: &mut Counters) {
        let skipped = std::mem::take(&mut self.search.skipped);
        counters.skipped_bytes = counters.skipped_bytes.saturating_add(skipped);
    }

    /// Notes that requests may have been missed.
    pub fn miss_requests(&mut self) {
        self.missed.requests = true;
        self.missed.times = self.missed.times.wrapping_add(1);
    }

    /// Drops what a search has found without a response: it was nothing, or cannot be proved.
    pub fn drop_unproven(&mut self, counters: &mut Counters) {
        if self.search.unproven.take().is_some() {
            counters.lose(Lost::Unconfirmed);
        }
    }

    /// Notes what stood behind the bodies of an exchange.
    pub fn note_surplus(&mut self, surplus: Surplus) {
        self.surplus.client |= surplus.request > 0;
        self.surplus.broker |= surplus.response > 0;
    }

    /// Drops the oldest requests, as the response of a later one is there.
    pub fn give_up(&mut self, count: usize, counters: &mut Counters) {
        for passed_over in self.pending.drain(count) {
            // What it asked for is not applied, so where the consumer stands is not known.
            if passed_over.api_key == key::FETCH {
                self.carried.sessions = Sessions::default();
            }
            if !passed_over.broken {
                counters.lose(Lost::Unanswered);
            }
        }
    }
}

impl Clients {
    /// The client id, shared, and whether it is another than that of the request before.
    pub fn share(&mut self, id: Option<&str>) -> (Option<Arc<str>>, bool) {
        let Some(id) = id else { return (None, false) };
        let is_new = self.last.as_deref() != Some(id);
        if is_new {
            self.last = Some(id.into());
        }
        (self.last.clone(), is_new)
    }

    fn held_bytes(&self) -> usize {
        let id = |id: &Option<Arc<str>>| id.as_ref().map_or(0, |id| id.len());
        id(&self.last).saturating_add(id(&self.confirmed))
    }
}

/// The bytes of a gap, counted.
pub fn count_gap(piece: Piece<'_>, counters: &mut Counters) -> Option<u64> {
    let Piece::Gap { bytes } = piece else { return None };
    counters.lose(Lost::Gap);
    counters.gap_bytes = counters.gap_bytes.saturating_add(bytes);
    Some(bytes)
}
