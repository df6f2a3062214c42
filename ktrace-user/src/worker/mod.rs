//! From Events to Hops: the pipeline of one ring or one capture file.
//!
//! ```text
//!  Event ─▶ connection table ─▶ ktrace_kafka::Connection ─▶ Listener ─▶ Hop ─▶ Stages ─▶ emitted
//! ```
//!
//! A worker owns its connections; no lock lies on the way of the bytes. What it shares with the
//! workers of other rings is [`Shared`].

mod both_ends;
mod brokers;
mod connection;
mod deliveries;
mod listener;
mod losses;
mod may_open;
mod memory;
mod options;
mod own_telemetry;
mod pending_commits;
mod refused;
mod shared;
mod sizes;
mod span_limit;
mod stage;
mod stand_ins;
mod throttle;
mod tls;
mod tls_options;
mod totals;
mod upkeep;
mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use ktrace_kafka as kafka;
use ktrace_kafka::Speaks;
use ktrace_kafka::context::{Extractor, Wanted, WantedError};
use ktrace_kafka::counters::Lost;
use ktrace_kafka::room::Room;
use ktrace_kafka::{Push, Scratch};

use crate::hop::Hop;
use crate::hop::deadline::is_over;
use crate::losses::{Group, keep_lossiest};
use crate::purge;
use crate::seen::{ConnectionId, Ends, Event, Process, Segment, Side};
pub use brokers::Brokers;
use connection::Connection;
use connection::state::State;
use listener::Listener;
pub use may_open::{Learned, MAX_LEARNED, Opening, may_open};
pub use memory::{Fixed, budget, queued_at_most};
pub use options::{Selection, Sides, WorkerOptions};
pub use refused::{Refused, Throttled, Waits};
pub use shared::{Others, Shared};
use stage::When;
pub use stage::filter::{Filter, FilterOptions, TracePrefix};
pub use stage::follow::Follow;
use stage::table::Stages;
pub use throttle::Throttle;
use tls::Tls;
pub use tls_options::{TlsOptions, TlsSource};
pub use totals::Totals;
use world::{Settings, World};

/// Connections at once, as many as the kernel source remembers. With more, those that were silent
/// longest are forgotten; should they speak again, they are read from their next whole exchange on.
const MAX_CONNECTIONS: usize = 128 << 10;

/// A connection that holds less is not worth shedding.
const LIGHT_BYTES: usize = 4096;

/// A place in the table of connections.
const PLACE_BYTES: usize = size_of::<(ConnectionId, Connection)>() + 1;

/// With fewer connections, forgetting some gives nothing.
const FEW_CONNECTIONS: usize = 64;

/// How often all that waits is looked through: what is seldom due, or costs a look at each item.
const SWEEP_NS: u64 = 250_000_000;

/// How far a connection is searched for its first request if it was taken for Kafka because it
/// began with one.
const RECOGNISED_SEARCH_BYTES: u64 = 1 << 20;

/// Everything between one source of segments and the sinks: pure, but for what it shares with other
/// workers.
///
/// - **Input** is [`Worker::event`]: connections that open and close, segments, and ticks, from one
///   ring or one capture file, in the order in which they passed. A tick is due ten times a second
///   while nothing else comes, so that hops do not wait for traffic.
/// - **Output** is the function given to [`Worker::new`]: it gets each hop that is to be emitted,
///   within the call that decides so. A second function, given to [`Worker::refuse_by`], gets
///   connections that turn out to be nothing to read.
/// - **Time is an argument.** The worker has no clock: it is as late as its last segment or tick.
///   That is a wall clock's time, and may go back; then nothing waits for more than twice as long
///   as it would have.
/// - **Order of calls:** `new`, then at most once `refuse_by`, then any number of `event`s, then
///   [`Worker::finish`], which emits all that still waits. Workers with the same [`Shared`] are
///   made before the first event of any; each can then run in a thread of its own.
/// - **Within an event:** stages release what is due, the connection's parser reads, its
///   [`Listener`] makes hops of that and hands them to the [`Stages`]; in the end these release
///   what waited for news that the event has brought. Four times a second, all that waits is looked
///   through, and once a second all connections.
pub struct Worker {
    sides: Sides,
    agents: Vec<IpNet>,
    connections: HashMap<ConnectionId, Connection>,
    scratch: Scratch,
    world: World,
    stages: Stages,
    totals: Totals,
    swept_ns: u64,
    looked_ns: u64,
    held_bytes: usize,
    held_told: memory::Told,
    /// TLS connections that are not read and not counted yet, with the time when that was found.
    unread_tls: Vec<(ConnectionId, u64)>,
    /// Those that are to be read, and lack keys.
    tls: Tls,
    refuse: Option<Refuse>,
}

/// Tells the source that no more of a connection is wanted.
type Refuse = Box<dyn FnMut(ConnectionId) + Send>;

impl Worker {
    /// `sink` gets every hop. One worker for each ring, all with the same `shared`.
    ///
    /// # Errors
    /// Names the context format that is none.
    pub fn new(
        options: WorkerOptions,
        shared: &Arc<Shared>,
        sink: Box<dyn FnMut(Hop) + Send>,
    ) -> Result<Self, WantedError> {
        let wanted: Vec<Wanted> = options
            .context
            .iter()
            .map(|name| match name.strip_prefix("key:") {
                Some(key) => Wanted::Key(key.to_owned()),
                None => Wanted::Format(name.clone()),
            })
            .collect();
        let number = shared.workers.fetch_add(1, Ordering::Relaxed);
        let extractor = if wanted.is_empty() { Extractor::default() } else { Extractor::new(&wanted)? };
        let mut limits = shared.memory.limits();
        if options.recognised {
            limits.search_bytes = RECOGNISED_SEARCH_BYTES;
        }
        let room = Arc::clone(&shared.memory) as Arc<dyn Room>;
        let mut scratch = Scratch::within(limits, extractor, room);
        scratch.ports_are_given = !options.recognised;
        let settings = Settings {
            both_ends: options.sides == Sides::Both,
            sampling: options.sampling,
            exceptions: options.exceptions,
            keys: options.keys,
            infer: options.infer,
            own_telemetry: options.own_telemetry,
            old_is_late: options.old_is_late,
            uncommitted: options.selection.uncommitted.clone(),
        };
        let stages = Stages::new(&options.selection, sink);
        Ok(Self {
            sides: options.sides,
            agents: options.agents,
            connections: HashMap::new(),
            scratch,
            world: World::new(settings, options.recognised, shared),
            stages,
            totals: Totals::default(),
            swept_ns: 0,
            looked_ns: 0,
            held_bytes: 0,
            held_told: memory::Told::default(),
            unread_tls: Vec::new(),
            tls: Tls::new((options.key_log, options.derived), options.search, options.tls, number),
            refuse: None,
        })
    }

    /// `refuse` gets connections of which no more is wanted.
    pub fn refuse_by(&mut self, refuse: Refuse) {
        self.refuse = Some(refuse);
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { connection, ends, side, owner } => {
                self.opened(connection, (ends, side), owner);
                self.look_at_tls(connection, self.world.now_ns);
            }
            Event::Segment(segment) => self.segment(&segment),
            Event::Closed { connection: id } => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.closed = true;
                    connection.last_ns = connection.last_ns.max(self.swept_ns);
                }
                self.hung_up(id);
            }
            Event::Tick { time_ns } => self.tick(time_ns),
        }
    }

    /// Gives what is held to the sink.
    #[must_use]
    pub fn finish(mut self) -> Totals {
        let mut ids: Vec<_> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        self.stages.release(When::Ending, &mut self.world);
        for id in ids {
            self.forget(id);
        }
        self.stages.release(When::End, &mut self.world);
        self.held_told.tell(&self.world.shared.memory, 0, true);
        self.publish_losses();
        let Self { mut totals, scratch: Scratch { counters, .. }, world, .. } = self;
        totals.frames = counters.frames;
        totals.exchanges = counters.exchanges;
        totals.batches = counters.batches;
        totals.records = counters.records;
        let ledger = world.losses.counts(&counters);
        totals.lost = ledger.of(Group::Lost).map(|(reason, count)| (reason.name(), count)).collect();
        totals.malformed =
            ledger.of(Group::Malformed).map(|(reason, count)| (reason.name(), count)).collect();
        totals.sasl_tokens = counters.sasl_tokens;
        totals.tls_records = counters.tls_records;
        totals.unread_bytes = counters.unread_bytes;
        totals.surplus_bytes = counters.surplus_bytes;
        totals.malformed_contexts.clone_from(&counters.malformed_contexts);
        if world.losses.recognised {
            let others = counters.lost_by(Lost::NotKafka);
            totals.connections = totals.connections.saturating_sub(others);
        }
        totals
    }

    fn opened(&mut self, id: ConnectionId, (ends, side): (Ends, Side), owner: Option<Arc<Process>>) {
        if let Some(known) = self.connections.get_mut(&id)
            && known.state.client.ends == ends
        {
            if let Some(owner) = owner {
                known.state.client.owned(owner);
            }
            return;
        }
        // The same socket goes elsewhere: its first connection is over.
        self.forget(id);
        if self.connections.len() >= MAX_CONNECTIONS {
            self.make_room();
        } else if self.connections.len() == self.connections.capacity() {
            self.enlarge();
        }
        self.totals.connections = self.totals.connections.saturating_add(1);
        let mut state = State::new(ends, side);
        if let Some(owner) = owner {
            state.client.owned(owner);
        }
        let has_agent = |net: &IpNet| net.contains(&ends.client.ip());
        let left_out = !self.sides.have(side) || (side == Side::Broker && self.agents.iter().any(has_agent));
        if left_out {
            self.totals.left_out = self.totals.left_out.saturating_add(1);
        } else if self.sides == Sides::Both && side == Side::Broker {
            self.stages.both_ends.seek(id);
        }
        let mut kafka = kafka::Connection::default();
        if self.tls.may_open(&state.client, false, &self.world.shared) != Opening::No {
            kafka.read_tls();
        }
        let connection = Connection::new(kafka, state, left_out, self.swept_ns);
        self.connections.insert(id, connection);
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.totals.segments = self.totals.segments.saturating_add(1);
        let Push { direction, len, time_ns, .. } = segment.push;
        self.totals.bytes = self.totals.bytes.saturating_add(u64::from(len));
        if is_over(self.swept_ns, SWEEP_NS, time_ns) {
            self.tick(time_ns);
        }
        let mut claimed = 0;
        match self.connections.get(&segment.connection) {
            Some(connection) => {
                let wants = connection.kafka.wants(direction, segment.push.bytes.len());
                if wants > 0 {
                    claimed = self.claim(segment.connection, wants);
                }
            }
            // A source announces a connection before its first segment, so this one was forgotten.
            None => self.opened(segment.connection, (segment.ends, segment.side), None),
        }
        let Some(connection) = self.connections.get_mut(&segment.connection) else { return };
        connection.last_ns = time_ns;
        self.world.now_ns = time_ns;
        self.stages.release(When::Due(time_ns), &mut self.world);
        if !connection.left_out {
            let (id, world, stages) = (segment.connection, &mut self.world, &mut self.stages);
            let scratch = &mut self.scratch;
            connection.weigh(&mut self.held_bytes, |kafka, state| {
                let mut listener = Listener { id, state, world, stages };
                kafka.push(scratch, segment.push, &mut listener);
                listener.settle();
            });
        }
        if claimed > 0 {
            self.world.shared.memory.give_back(claimed);
        }
        let is_to_be_given_up = connection.is_over() && !connection.given_up;
        let is_inside = connection.kafka.tls().is_some() || self.tls.is_waiting(segment.connection);
        let hangs_up = connection.end_by(segment);
        if is_to_be_given_up || is_inside {
            self.give_up(segment.connection, time_ns);
            self.look_at_tls(segment.connection, time_ns);
        }
        if hangs_up {
            self.hung_up(segment.connection);
        }
        self.stages.release(When::News(time_ns), &mut self.world);
        self.weigh_all(claimed > 0);
    }

    /// Gives up a connection of which nothing more is wanted, if it is such a one.
    fn give_up(&mut self, id: ConnectionId, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.is_over() || std::mem::replace(&mut connection.given_up, true) {
            return;
        }
        connection.count_not_kafka(&mut self.totals, &self.world.shared);
        if connection.kafka.speaks() == Speaks::Tls {
            self.unread_tls.push((id, now_ns));
        }
        if let Some(refuse) = &mut self.refuse {
            refuse(id);
        }
    }

    /// Asks for what a frame of this connection will take beside what is held; where there is no
    /// room for it, what holds most gives way, or the frame itself where others hold more than this
    /// worker. Returns how much is taken.
    #[cold]
    fn claim(&mut self, id: ConnectionId, wants: usize) -> usize {
        let shared = Arc::clone(&self.world.shared);
        let memory = &shared.memory;
        if memory.take(wants) {
            return wants;
        }
        let weight = self.weight();
        let part = memory.left() / shared.workers.load(Ordering::Relaxed).max(1);
        if wants <= memory.left() && weight.saturating_add(wants) > part {
            self.shed_heaviest(weight.saturating_sub(memory.surplus().max(wants)));
            self.held_told.tell(memory, self.weight(), true);
            purge::give_back();
            if self.connections.get(&id).is_none_or(|connection| connection.kafka.is_broken()) {
                return 0;
            }
            if memory.take(wants) {
                return wants;
            }
        }
        self.shed(id);
        0
    }

    /// Tells the other workers what this one holds, and gives some of it back where all hold too
    /// much and this one more than its part.
    fn weigh_all(&mut self, at_once: bool) {
        let bytes = self.weight();
        let Shared { memory, workers, .. } = &*self.world.shared;
        if !self.held_told.tell(memory, bytes, at_once) || !memory.is_over() {
            return;
        }
        if bytes > memory.left() / workers.load(Ordering::Relaxed).max(1) {
            self.make_light(bytes.saturating_sub(memory.surplus()));
            self.held_told.tell(&self.world.shared.memory, self.weight(), true);
        }
    }

    /// Makes the table of connections larger, or forgets some where there is no room.
    #[cold]
    fn enlarge(&mut self) {
        let (len, memory) = (self.connections.len(), Arc::clone(&self.world.shared.memory));
        // The table grows to twice its places, seven of eight of which are used; the old one is
        // there until then.
        let wants = len.saturating_mul(2).saturating_mul(PLACE_BYTES) / 7 * 8;
        if len < FEW_CONNECTIONS {
            return;
        }
        if memory.take(wants) {
            self.connections.reserve(len);
            memory.give_back(wants);
        } else {
            self.make_room();
        }
    }

    fn weight(&self) -> usize {
        self.held_bytes
            .saturating_add(self.stages.weight())
            .saturating_add(self.connections.len().saturating_mul(memory::CONNECTION_BYTES))
            .saturating_add(
                self.connections
                    .capacity()
                    .saturating_sub(self.connections.len())
                    .saturating_mul(PLACE_BYTES),
            )
    }

    /// The heaviest connections give up their frames and all that waits for its rest, until no more
    /// than `wanted` bytes are held.
    fn shed_heaviest(&mut self, wanted: usize) {
        let mut heavy: Vec<(usize, ConnectionId)> = self
            .connections
            .iter()
            .map(|(id, connection)| (connection.held_bytes(), *id))
            .filter(|(bytes, _)| *bytes > LIGHT_BYTES)
            .collect();
        heavy.sort_unstable_by(|a, b| b.cmp(a));
        for (_, id) in heavy {
            if self.weight() <= wanted {
                return;
            }
            self.shed(id);
        }
    }

    /// A connection gives up its frames and all that waits for its rest.
    fn shed(&mut self, id: ConnectionId) {
        self.act(id, |kafka, scratch, listener| {
            kafka.give_up_holes(scratch, listener);
            listener.settle();
            kafka.shed(scratch);
            listener.misses(listener.world.now_ns);
            listener.missed_ends();
            listener.state.shed();
            listener.answers_nothing();
            listener.forget_acquired(true);
            listener.state.missed.messages();
            listener.missed_commits();
        });
    }

    /// Gives back what is held until no more than `wanted` bytes are: see [`memory`] for what goes
    /// first.
    fn make_light(&mut self, wanted: usize) {
        self.shed_heaviest(wanted);
        purge::give_back();
        if self.weight() <= wanted {
            return;
        }
        self.stages.release(When::Shed, &mut self.world);
        if self.weight() > wanted && self.connections.len() > FEW_CONNECTIONS {
            self.make_room();
        }
    }

    /// Does something to a connection, and handles what comes of it.
    fn act(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut kafka::Connection, &mut Scratch, &mut Listener<'_>),
    ) {
        let Self { connections, held_bytes, scratch, world, stages, .. } = self;
        let Some(connection) = connections.get_mut(&id) else { return };
        connection.weigh(held_bytes, |kafka, state| {
            let mut listener = Listener { id, state, world, stages };
            act(kafka, scratch, &mut listener);
            listener.settle();
        });
    }

    /// A connection is over: its client may go on with another.
    fn hung_up(&mut self, id: ConnectionId) {
        let now_ns = self.swept_ns;
        self.act(id, |kafka, scratch, listener| {
            kafka.end(scratch, listener);
            listener.settle();
            if !listener.stages.hung_up(id) {
                listener.world.shared.groups.update(|groups| groups.gone(id, now_ns));
            }
        });
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.tls.is_waiting(id) {
            self.end_tls(id);
        }
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.held_bytes = self.held_bytes.saturating_sub(connection.held_bytes());
        let Connection { kafka, state, refused, .. } = &mut connection;
        let mut listener = Listener { id, state, world: &mut self.world, stages: &mut self.stages };
        if let Some(direction) = *refused {
            kafka.reset(direction);
        }
        kafka.finish(&mut self.scratch, &mut listener);
        listener.settle();
        listener.forget_acquired(false);
        listener.answers_nothing();
        self.stages.connection_over(id, &mut self.world);
        self.world.shared.groups.update(|groups| groups.gone(id, self.swept_ns));
        keep_lossiest(&mut self.totals.lossy, connection.lossy());
        if !connection.given_up {
            connection.count_not_kafka(&mut self.totals, &self.world.shared);
        }
        if connection.given_up
            && let Some(at) = self.unread_tls.iter().position(|(pending, _)| *pending == id)
        {
            self.unread_tls.swap_remove(at);
            connection.count_tls(&mut self.totals, &self.world.shared);
        }
    }

    /// Adds what is new of its losses to those of all workers.
    fn publish_losses(&mut self) {
        let early = self.stages.take_early();
        self.world.publish_losses(&self.scratch.counters, early);
    }
}

#[cfg(test)]
mod tests;
