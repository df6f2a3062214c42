//! The broker's end of a connection that may be captured at the client's end too: it holds its hops
//! until the other end is found, or for two seconds. What the other end shows is dropped here.
//!
//! The deadline is the connection's and not a hop's, and a clock that is set back begins the search
//! anew: one that ends too early would show twice what the other end shows. So hops wait with their
//! search, and not in a [`Pending`](super::pending::Pending).

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};

use super::pending::is_over;
use super::{Admit, Next, Scope, Stage, When};
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::both_ends::{ExchangePlaces, PATIENCE_NS, Place};
use crate::worker::refused::Count;
use crate::worker::world::World;

/// Hops that a worker holds while it seeks the other ends of their connections.
const MAX_HOPS: usize = 64 << 10;

/// Places of its own that a broker's end still looks for.
const MAX_OPEN: usize = 16;

/// Looks for them, four in a second, before they are given up.
const MAX_LOOKS: u8 = 8;

/// What is known of the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum OtherEnd {
    /// On another host, as far as is known; or it is not asked for.
    Elsewhere,
    /// It may be captured here, too.
    Sought,
    /// It is captured here, and shows the connection.
    Found,
}

/// Brokers' ends whose other ends may be captured, by connection.
#[derive(Default)]
pub(in crate::worker) struct BothEnds {
    searches: HashMap<ConnectionId, Search>,
    /// The answer to the last question: most are asked of the same connection, several times for a
    /// record.
    last: Cell<Option<(ConnectionId, OtherEnd)>>,
    held: usize,
    early: u64,
}

impl BothEnds {
    /// A broker's end is opened whose other end may be captured.
    pub fn seek(&mut self, connection: ConnectionId) {
        self.last.set(None);
        self.searches.insert(connection, Search::begin());
    }

    /// Asked several times for each record: with `--side client`, which is the default, there is
    /// nothing to look up.
    #[inline(always)]
    pub fn other_end(&self, connection: ConnectionId) -> OtherEnd {
        if self.searches.is_empty() { OtherEnd::Elsewhere } else { self.look_up(connection) }
    }

    #[inline(never)]
    fn look_up(&self, connection: ConnectionId) -> OtherEnd {
        if let Some((of, end)) = self.last.get()
            && of == connection
        {
            return end;
        }
        let end = self.searches.get(&connection).map_or(OtherEnd::Elsewhere, Search::other_end);
        self.last.set(Some((connection, end)));
        end
    }

    /// Whether the other end shows this connection.
    #[inline(always)]
    pub fn has_found(&self, connection: ConnectionId) -> bool {
        self.other_end(connection) == OtherEnd::Found
    }

    /// Whether the other end shows this connection, or may be found to.
    #[inline(always)]
    pub fn may_find(&self, connection: ConnectionId) -> bool {
        self.other_end(connection) != OtherEnd::Elsewhere
    }

    /// The broker's end has read an exchange that stands here.
    pub fn at(&mut self, connection: ConnectionId, place: Place, world: &World, now_ns: u64) {
        self.last.set(None);
        if let Some(search) = self.searches.get_mut(&connection) {
            let superfluous = search.at(place, &world.shared.both_ends, now_ns);
            self.held = self.held.saturating_sub(superfluous);
        }
    }

    /// Holds a count while the other end is sought; gives it back if it counts here.
    pub fn count(&mut self, connection: ConnectionId, count: Count) -> Option<Count> {
        match self.searches.get_mut(&connection) {
            Some(search) => search.count(count),
            None => Some(count),
        }
    }

    /// Looks again for the other end of a connection, for the last time where `now_ns` is `None`.
    fn look(
        &mut self,
        connection: ConnectionId,
        now_ns: Option<u64>,
        world: &mut World,
        next: &mut impl Next,
    ) {
        let Some(search) = self.searches.get_mut(&connection) else { return };
        self.last.set(None);
        let (held, done) = search.turn(&world.shared.both_ends, now_ns);
        self.held = self.held.saturating_sub(done);
        for count in search.take_counts() {
            world.shared.counts.add(count);
        }
        for hop in held {
            next.push(connection, hop, world);
        }
    }
}

impl Stage for BothEnds {
    const NAME: &'static str = "both_ends";
    const PATIENCE_NS: u64 = PATIENCE_NS;
    const BOUND: usize = MAX_HOPS;

    #[inline]
    fn is_clear(&self, connection: ConnectionId) -> bool {
        !self.may_find(connection)
    }

    fn admit(&mut self, connection: ConnectionId, _hop: &mut Hop, _world: &mut World) -> Admit {
        match self.other_end(connection) {
            OtherEnd::Sought => Admit::Wait,
            OtherEnd::Elsewhere | OtherEnd::Found => Admit::Pass,
        }
    }

    fn hold(&mut self, connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
        let Some(search) = self.searches.get_mut(&connection) else { return };
        let now_ns = hop.passage.end_ns;
        if let Some(hop) = search.hold(hop, now_ns) {
            return next.push(connection, hop, world);
        }
        self.held = self.held.saturating_add(1);
        if self.held > MAX_HOPS {
            self.early = self.early.saturating_add(1);
            self.look(connection, None, world, next);
        }
    }

    fn amend(&mut self, scope: Scope<'_>, change: &mut dyn FnMut(&mut Hop), _world: &mut World) {
        if let Some(search) = self.searches.get_mut(&scope.connection) {
            search.amend(change);
        }
    }

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        if !matches!(when, When::Sweep(_) | When::Shed | When::End) {
            return;
        }
        let open = self.searches.iter().filter(|(_, search)| search.is_open());
        let mut open: Vec<ConnectionId> = open.map(|(connection, _)| *connection).collect();
        open.sort_unstable();
        for connection in open {
            self.look(connection, when.now_ns(), world, next);
        }
    }

    fn connection_over(&mut self, connection: ConnectionId, world: &mut World, next: &mut impl Next) {
        self.look(connection, None, world, next);
        self.searches.remove(&connection);
        self.last.set(None);
    }

    fn len(&self) -> usize {
        self.held
    }

    fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }
}

/// What a broker's end knows of its other end.
#[derive(Default)]
struct Search {
    /// Where it was itself, and the client's end was not yet.
    open: VecDeque<Place>,
    /// Looks since the last place was added.
    looks: u8,
    state: State,
    /// What brokers refused or held back meanwhile, which the other end counts if it is found.
    counted: Vec<Count>,
}

/// Counts that are held; those behind them are counted at once, as of an end that is alone. A
/// connection has some ten in two seconds.
const MAX_COUNTED: usize = 64;

#[derive(Default)]
enum State {
    /// Since this time, which is that of the first exchange.
    Sought { since_ns: Option<u64>, held: Vec<Hop> },
    /// The client's end is on another host, as far as is known.
    #[default]
    Alone,
    /// It is on this host, and shows the connection itself.
    Found,
}

impl Search {
    /// For an end whose other end may be seen too.
    fn begin() -> Self {
        let state = State::Sought { since_ns: None, held: Vec::new() };
        Self { state, ..Self::default() }
    }

    fn other_end(&self) -> OtherEnd {
        match self.state {
            State::Sought { .. } => OtherEnd::Sought,
            State::Alone => OtherEnd::Elsewhere,
            State::Found => OtherEnd::Found,
        }
    }

    /// The broker's end was at this place. Returns how many hops the client's end makes
    /// superfluous.
    fn at(&mut self, place: Place, places: &ExchangePlaces, now_ns: u64) -> usize {
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
        self.look(places)
    }

    fn look(&mut self, places: &ExchangePlaces) -> usize {
        if matches!(self.state, State::Found) || self.open.is_empty() || !places.any(&self.open) {
            return 0;
        }
        (self.open, self.counted) = (VecDeque::new(), Vec::new());
        match std::mem::replace(&mut self.state, State::Found) {
            State::Sought { held, .. } => held.len(),
            State::Alone | State::Found => 0,
        }
    }

    /// Changes the hops that are held.
    fn amend(&mut self, change: impl FnMut(&mut Hop)) {
        if let State::Sought { held, .. } = &mut self.state {
            held.iter_mut().for_each(change);
        }
    }

    /// Holds a count while the other end is sought; gives it back if it counts here. Nothing counts
    /// here where the other end was found.
    fn count(&mut self, count: Count) -> Option<Count> {
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
    fn take_counts(&mut self) -> Vec<Count> {
        if matches!(self.state, State::Alone) { std::mem::take(&mut self.counted) } else { Vec::new() }
    }

    /// Holds a hop while the other end is sought; gives it back if it need not be held.
    fn hold(&mut self, hop: Hop, now_ns: u64) -> Option<Hop> {
        let State::Sought { since_ns, held } = &mut self.state else { return Some(hop) };
        since_ns.get_or_insert(now_ns);
        held.push(hop);
        None
    }

    /// Looks again, and ends the search when it has taken long enough (`None`: at once); where the
    /// clock was set back it begins anew, as one that ends too early shows twice what the other end
    /// shows. Returns what was held, and how many hops are held no more.
    fn turn(&mut self, places: &ExchangePlaces, now_ns: Option<u64>) -> (Vec<Hop>, usize) {
        let superfluous = self.look(places);
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
    fn is_open(&self) -> bool {
        matches!(self.state, State::Sought { .. }) || !self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::samples;
    use crate::worker::both_ends::tests::place;

    #[test]
    fn counts_are_held_until_it_is_known_whose_they_are() {
        let count = Count::Refused("Fetch", 29);
        for is_met in [false, true] {
            let (places, mut search) = (ExchangePlaces::default(), Search::begin());
            search.at(place(1), &places, 1);
            assert_eq!(search.count(count), None);
            assert_eq!(search.take_counts(), []);
            if is_met {
                places.note(place(1), 1);
            }
            // Also where no hop was held, as of a client that was only refused.
            search.turn(&places, Some(1 + PATIENCE_NS));
            assert_eq!(search.take_counts(), if is_met { vec![] } else { vec![count] });
            assert_eq!(search.count(count), (!is_met).then_some(count));
        }
    }

    /// Where it has not seen its other end yet when the clock is set back.
    #[test]
    fn a_search_begins_anew_when_the_clock_is_set_back() {
        let from_ns = 3_600_000_000_000;
        for (back_ns, is_met) in [(2_000_000_000, false), (from_ns, false), (from_ns, true)] {
            let (places, mut search) = (ExchangePlaces::default(), Search::begin());
            search.at(place(1), &places, from_ns);
            assert!(search.hold(samples::sent(), from_ns).is_none());
            let now_ns = from_ns - back_ns;
            let mut held = |now_ns| {
                let (held, done) = search.turn(&places, Some(now_ns));
                (held.len(), done)
            };
            assert_eq!([now_ns, now_ns + PATIENCE_NS - 1].map(&mut held), [(0, 0); 2], "{back_ns}");
            if is_met {
                places.note(place(1), now_ns);
            }
            assert_eq!(held(now_ns + PATIENCE_NS), (usize::from(!is_met), 1), "{back_ns}");
        }
    }
}
