//! Connections within the host that are captured at both ends: where their exchanges stand, as the
//! clients' ends of all workers have noted. The client's end is shown, the broker's end is silent
//! ([`stage::both_ends`](super::stage::both_ends)).
//!
//! Addresses and ports do not prove that two sockets are the ends of one connection: a translation
//! (NAT) may stand between them, and network namespaces may have the same addresses. Sequence
//! numbers pass all of these unchanged. So the client's end notes where some of its exchanges
//! stand, chosen in a way that both ends agree on, and the broker's end looks for its own among
//! them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use ktrace_kafka::Head;

use crate::hop::deadline::is_over;
use crate::hop::store::Store;

/// Exchanges at the beginning of a connection (as far as it was seen) that are noted; of later
/// ones, each whose correlation id divides by the second number.
const FIRST: u32 = 8;
const EVERY: i32 = 64;

/// Places noted at once; the oldest go first. The other end sees the same exchange within
/// milliseconds.
const MAX_PLACES: usize = 64 << 10;

/// What one takes in the set and in the queue, about.
const PLACE_BYTES: usize = 80;

/// Where an exchange stands, the same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    request_seq: u32,
    correlation_id: i32,
    response_seq: Option<u32>,
}

impl Place {
    /// The place of a connection's `nth` exchange, if it is one of those that are noted.
    pub(super) fn of(head: &Head<'_>, nth: u32) -> Option<Self> {
        (nth < FIRST || head.correlation_id % EVERY == 0).then_some(Self {
            request_seq: head.request_seq,
            correlation_id: head.correlation_id,
            response_seq: head.response.map(|response| response.seq),
        })
    }
}

/// What the clients' ends of all workers have noted.
#[derive(Default)]
pub(super) struct ExchangePlaces {
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    places: HashSet<Place>,
    /// With when they were noted.
    order: VecDeque<(Place, u64)>,
    /// Those that had to make room while their other end may still have looked for them.
    forgotten: u64,
}

impl ExchangePlaces {
    /// A client's end was at this place.
    pub(super) fn note(&self, place: Place, now_ns: u64) {
        let Noted { places, order, forgotten } =
            &mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.insert(place) {
            return;
        }
        order.push_back((place, now_ns));
        if order.len() > MAX_PLACES
            && let Some((oldest, since_ns)) = order.pop_front()
        {
            places.remove(&oldest);
            *forgotten += u64::from(!is_over(since_ns, PATIENCE_NS, now_ns));
        }
    }

    /// Whether a client's end was at one of these.
    pub(super) fn any(&self, places: &VecDeque<Place>) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().any(|place| noted.places.contains(place))
    }

    /// How many places had to make room too early since this was asked last.
    pub(super) fn take_forgotten(&self) -> u64 {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner).forgotten)
    }
}

impl Store for ExchangePlaces {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        vec![("exchanges of clients' ends", noted.places.len())]
    }

    fn bytes(&self) -> usize {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).places.len().saturating_mul(PLACE_BYTES)
    }

    fn take_evicted(&self) -> u64 {
        self.take_forgotten()
    }
}

/// How long a broker's end holds its hops at first, while the client's end may yet show up.
pub(super) const PATIENCE_NS: u64 = 2_000_000_000;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn place(at: u32) -> Place {
        Place { request_seq: at, correlation_id: 0, response_seq: None }
    }

    /// Hostile: exchanges that never end.
    #[test]
    fn places_are_bounded_and_those_forgotten_too_early_are_counted() {
        let most = MAX_PLACES as u32;
        // The first of them are old when they go, or of before the clock was set back.
        for first_ns in [0, 4 * PATIENCE_NS] {
            let places = ExchangePlaces::default();
            for at in 0..3 * most {
                places.note(place(at), if at < most { first_ns } else { 2 * PATIENCE_NS });
            }
            let noted = places.noted.lock().unwrap();
            assert_eq!((noted.places.len(), noted.order.len()), (MAX_PLACES, MAX_PLACES));
            drop(noted);
            assert_eq!([places.take_forgotten(), places.take_forgotten()], [most.into(), 0], "{first_ns}");
        }
    }
}
