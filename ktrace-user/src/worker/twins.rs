//! Connections within the host that are captured at both ends: the client's end tells of them, the broker's end is silent.
//!
//! Neither addresses nor ports tell that two sockets are the ends of one connection: a translation (NAT) may stand between
//! them, and network namespaces may have the same addresses. Sequence numbers pass all of these unchanged. So the client's
//! end notes where some of its exchanges stand, chosen in a way that both ends agree on, and the broker's end looks for its
//! own among them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use ktrace_kafka::Head;

use crate::hop::Hop;
use crate::hop::deadline::is_over;
use crate::hop::store::Store;

/// Exchanges at the beginning of a connection (as far as it was seen) that are noted, and then one of so many.
const FIRST: u32 = 8;
const EVERY: i32 = 64;

/// Places noted at once; the oldest go first. The other end sees the same exchange within milliseconds.
const MAX_PLACES: usize = 64 << 10;

/// What one takes in the set and in the queue, about.
const PLACE_BYTES: usize = 80;

/// Places of its own that a broker's end still looks for.
const MAX_OPEN: usize = 16;

/// Looks for them, four in a second, before they are given up.
const MAX_LOOKS: u8 = 8;

/// How long a broker's end holds its hops at first, while the client's end may yet show up.
pub(super) const PATIENCE_NS: u64 = 2_000_000_000;

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
pub(super) struct Twins {
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

impl Twins {
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

    fn any(&self, places: &VecDeque<Place>) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().any(|place| noted.places.contains(place))
    }

    /// How many places had to make room too early since this was asked last.
    pub(super) fn take_forgotten(&self) -> u64 {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner).forgotten)
    }
}

/// What a broker's end knows of its other end.
#[derive(Default)]
pub(super) struct Search {
    /// Where it was itself, and the client's end was not yet.
    open: VecDeque<Place>,
    /// Looks since the last place was added.
    looks: u8,
    state: State,
    /// What brokers refused or held back meanwhile, which the other end counts if it is found.
    counted: Vec<Count>,
}

/// A response to be counted, by its API's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// With this error.
    Refused(&'static str, i16),
    /// With so many milliseconds.
    Throttled(&'static str, u32),
}

/// Counts that are held; those behind them are counted at once, as of an end that is alone. A connection has some ten in two
/// seconds.
const MAX_COUNTED: usize = 64;

#[derive(Default)]
enum State {
    /// Since this time, which the first exchange tells.
    Sought { since_ns: Option<u64>, held: Vec<Hop> },
    /// The client's end is on another host, as far as is known.
    #[default]
    Alone,
    /// It is on this host, and tells of the connection itself.
    Found,
}

impl Search {
    /// For an end whose other end may be seen too.
    pub(super) fn begin() -> Self {
        let state = State::Sought { since_ns: None, held: Vec::new() };
        Self { state, ..Self::default() }
    }

    /// Whether the other end tells of this connection.
    pub(super) fn has_found(&self) -> bool {
        matches!(self.state, State::Found)
    }

    /// Whether the other end may tell of this connection, now or later.
    pub(super) fn is_superfluous(&self) -> bool {
        !matches!(self.state, State::Alone)
    }

    /// The broker's end was at this place. Returns how many hops the client's end makes superfluous.
    pub(super) fn at(&mut self, place: Place, twins: &Twins, now_ns: u64) -> usize {
        match &mut self.state {
            State::Found => return 0,
            State::Sought { since_ns, .. } => drop(since_ns.get_or_insert(now_ns)),
            State::Alone => {}
        }
        if self.open.len() >= MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(place);
        self.looks = 0;
        self.look(twins)
    }

    fn look(&mut self, twins: &Twins) -> usize {
        if self.has_found() || self.open.is_empty() || !twins.any(&self.open) {
            return 0;
        }
        (self.open, self.counted) = (VecDeque::new(), Vec::new());
        match std::mem::replace(&mut self.state, State::Found) {
            State::Sought { held, .. } => held.len(),
            State::Alone | State::Found => 0,
        }
    }

    /// Tells the hops that are held something.
    pub(super) fn tell(&mut self, tell: impl FnMut(&mut Hop)) {
        if let State::Sought { held, .. } = &mut self.state {
            held.iter_mut().for_each(tell);
        }
    }

    /// Holds a count while the other end is sought; gives it back if it counts here. Nothing counts here where the other end was
    /// found.
    pub(super) fn count(&mut self, count: Count) -> Option<Count> {
        match self.state {
            State::Found => None,
            State::Sought { .. } if self.counted.len() < MAX_COUNTED => {
                self.counted.push(count);
                None
            }
            State::Sought { .. } | State::Alone => Some(count),
        }
    }

    /// What was held, once the other end is not to be found.
    pub(super) fn take_counts(&mut self) -> Vec<Count> {
        if self.is_superfluous() { Vec::new() } else { std::mem::take(&mut self.counted) }
    }

    /// Holds a hop while the other end is sought; gives it back if it need not be held.
    pub(super) fn hold(&mut self, hop: Hop, now_ns: u64) -> Option<Hop> {
        let State::Sought { since_ns, held } = &mut self.state else { return Some(hop) };
        since_ns.get_or_insert(now_ns);
        held.push(hop);
        None
    }

    /// Looks again, and ends the search when it has taken long enough (`None`: at once); where the clock was set back it begins
    /// anew, as what ends too early shows twice what the other end tells. Gives what was held, and how many hops are held no more.
    pub(super) fn turn(&mut self, twins: &Twins, now_ns: Option<u64>) -> (Vec<Hop>, usize) {
        let superfluous = self.look(twins);
        self.looks = self.looks.saturating_add(1);
        if self.looks >= MAX_LOOKS {
            self.open.clear();
        }
        let State::Sought { since_ns, held } = &mut self.state else { return (Vec::new(), superfluous) };
        let over = match (now_ns, since_ns) {
            (None, _) => true,
            (Some(now), Some(since)) => {
                *since = now.min(*since);
                is_over(*since, PATIENCE_NS, now)
            }
            (Some(_), None) => false,
        };
        if !over {
            return (Vec::new(), 0);
        }
        let held = std::mem::take(held);
        self.state = State::Alone;
        let count = held.len();
        (held, count)
    }

    /// Whether there is something to look for.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Sought { .. }) || !self.open.is_empty()
    }
}

impl Store for Twins {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::samples;

    fn place(at: u32) -> Place {
        Place { request_seq: at, correlation_id: 0, response_seq: None }
    }

    /// Hostile: exchanges that never end.
    #[test]
    fn places_are_bounded_and_those_forgotten_too_early_are_counted() {
        let most = MAX_PLACES as u32;
        // The first of them are old when they go, or of before the clock was set back.
        for first_ns in [0, 4 * PATIENCE_NS] {
            let twins = Twins::default();
            for at in 0..3 * most {
                twins.note(place(at), if at < most { first_ns } else { 2 * PATIENCE_NS });
            }
            let noted = twins.noted.lock().unwrap();
            assert_eq!((noted.places.len(), noted.order.len()), (MAX_PLACES, MAX_PLACES));
            drop(noted);
            assert_eq!([twins.take_forgotten(), twins.take_forgotten()], [most.into(), 0], "{first_ns}");
        }
    }

    #[test]
    fn counts_are_held_until_it_is_known_whose_they_are() {
        let count = Count::Refused("Fetch", 29);
        for is_met in [false, true] {
            let (twins, mut search) = (Twins::default(), Search::begin());
            search.at(place(1), &twins, 1);
            assert_eq!(search.count(count), None);
            assert_eq!(search.take_counts(), []);
            if is_met {
                twins.note(place(1), 1);
            }
            // Also where no hop was held, as of a client that was only refused.
            search.turn(&twins, Some(1 + PATIENCE_NS));
            assert_eq!(search.take_counts(), if is_met { vec![] } else { vec![count] });
            assert_eq!(search.count(count), (!is_met).then_some(count));
        }
    }

    /// Where it has not seen its other end yet when the clock is set back.
    #[test]
    fn a_search_begins_anew_when_the_clock_is_set_back() {
        let from_ns = 3_600_000_000_000;
        for (back_ns, is_met) in [(2_000_000_000, false), (from_ns, false), (from_ns, true)] {
            let (twins, mut search) = (Twins::default(), Search::begin());
            search.at(place(1), &twins, from_ns);
            assert!(search.hold(samples::sent(), from_ns).is_none());
            let now_ns = from_ns - back_ns;
            let mut held = |now_ns| {
                let (held, done) = search.turn(&twins, Some(now_ns));
                (held.len(), done)
            };
            assert_eq!([now_ns, now_ns + PATIENCE_NS - 1].map(&mut held), [(0, 0); 2], "{back_ns}");
            if is_met {
                twins.note(place(1), now_ns);
            }
            assert_eq!(held(now_ns + PATIENCE_NS), (usize::from(!is_met), 1), "{back_ns}");
        }
    }
}
