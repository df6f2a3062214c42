//! From Events to Hops: the pipeline of one ring or one capture file.
//!
//! ```text
//!  Event ─▶ connection table ─▶ ktrace_kafka::Connection ─▶ Listener ─▶ Hop ─▶ Waiting ─▶ Hop
//! ```
//!
//! A worker owns its connections; no lock lies on the way of the bytes. What it shares with the workers of other rings is
//! [`Shared`].

mod acknowledged;
mod at;
mod backlog;
mod brokers;
mod chained;
mod delays;
mod grouped;
mod late_runs;
mod listener;
mod losses;
mod may_open;
mod memory;
mod options;
mod own_telemetry;
mod peer;
mod pending_commits;
mod refused;
mod shared;
mod sizes;
mod span_limit;
mod throttle;
mod tls;
mod tls_options;
mod told;
mod totals;
mod transactional;
mod twins;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use ktrace_kafka as kafka;
use ktrace_kafka::connection::Speaks;
use ktrace_kafka::context::{Extractor, Wanted, WantedError};
use ktrace_kafka::counters::Lost;
use ktrace_kafka::room::Room;
use ktrace_kafka::{Push, Scratch};

use crate::capture::{ConnectionId, Direction, Ends, Event, Segment, Side};
use crate::hop::patience::is_over;
use crate::hop::topics::Topics;
use crate::hop::{Hop, Waiting};
use crate::process::Process;
use crate::purge;
pub use brokers::Brokers;
use chained::LateSends;
use late_runs::LateRuns;
use listener::Listener;
pub use losses::{LossLines, Lossy, keep_lossiest};
pub use may_open::{Learned, MAX_LEARNED, Opening, may_open};
pub use memory::{Fixed, budget, queued_at_most};
pub use options::{Sides, WorkerOptions};
use peer::{Peer, StandIns};
use pending_commits::LateCommits;
pub use refused::{Refused, Throttled, Waits};
pub use shared::{Others, Shared};
pub use throttle::Throttle;
use tls::Tls;
pub use tls_options::{TlsOptions, TlsSource};
use told::Told;
pub use totals::Totals;
use transactional::Ended;
use twins::Search;

/// Connections at once, as many as the kernel source remembers. Past it, those that were silent longest are forgotten;
/// should they speak again, they are read from their next whole exchange on.
const MAX_CONNECTIONS: usize = 128 << 10;

/// A connection that holds less is not worth shedding.
const LIGHT_BYTES: usize = 4096;

/// A place in the table of connections.
const PLACE_BYTES: usize = size_of::<(ConnectionId, Connection)>() + 1;

/// With fewer connections, forgetting some gives nothing.
const FEW_CONNECTIONS: usize = 64;

/// How often what waits is looked through.
const SWEEP_NS: u64 = 250_000_000;

/// How far a connection is searched for its first request if it was taken for Kafka because it began with one.
const RECOGNISED_SEARCH_BYTES: u64 = 1 << 20;

/// One connection, and what its hops share.
struct Connection {
    kafka: kafka::Connection,
    peer: Peer,
    /// What its lists took when they were last weighed.
    peer_bytes: usize,
    /// Nobody wants to know what it says: it is not read.
    left_out: bool,
    /// It was found to be TLS or something else, and the source was told to leave it.
    given_up: bool,
    /// It is TLS, and a key has opened it.
    tls_is_read: bool,
    /// When it was last heard of.
    last_ns: u64,
    /// By its process, or by both sides' FIN.
    closed: bool,
    /// By an RST, unless data has followed.
    reset: bool,
    /// Of it, the direction in which it passed, if it told what its sender had.
    refused: Option<Direction>,
    /// Who has sent a FIN: (client, broker).
    fin: (bool, bool),
}

/// See the module.
pub struct Worker {
    sides: Sides,
    agents: Vec<IpNet>,
    connections: HashMap<ConnectionId, Connection>,
    scratch: Scratch,
    told: Told,
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
        Ok(Self {
            sides: options.sides,
            agents: options.agents,
            connections: HashMap::new(),
            scratch,
            told: Told {
                now_ns: 0,
                shared: Arc::clone(shared),
                both: options.sides == Sides::Both,
                topics: Topics::default(),
                ended: Ended::default(),
                numbers: [0; 4],
                stand_ins: StandIns::default(),
                waiting: Waiting::default(),
                late: LateCommits::default(),
                late_sends: LateSends::default(),
                late_runs: LateRuns::default(),
                acquired: 0,
                sought_hops: 0,
                sampling: options.sampling,
                exceptions: options.exceptions,
                keys: options.keys,
                infer: options.infer,
                own_telemetry: options.own_telemetry,
                old_is_late: options.old_is_late,
                uncommitted: options.uncommitted,
                own_losses: losses::Own::new(options.recognised),
                sink,
            },
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

    /// `refuse` is told of connections of which no more is wanted.
    pub fn refuse_by(&mut self, refuse: Refuse) {
        self.refuse = Some(refuse);
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { connection, ends, side, owner } => {
                self.opened(connection, (ends, side), owner);
                self.look_at_tls(connection, self.told.now_ns);
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
        self.told.give_late_runs(None);
        for id in ids {
            self.forget(id);
        }
        self.give_up_commits(None);
        self.told.give_sent(None);
        self.told.give_late(None);
        self.told.release(None);
        self.held_told.tell(&self.told.shared.memory, 0, true);
        self.told.tell_losses(&self.scratch.counters);
        let Self { mut totals, scratch: Scratch { counters, .. }, told, .. } = self;
        totals.frames = counters.frames;
        totals.exchanges = counters.exchanges;
        totals.batches = counters.batches;
        totals.records = counters.records;
        totals.lost = told.own_losses.counts(&counters, told.waiting.unnamed()).collect();
        totals.sasl_tokens = counters.sasl_tokens;
        totals.tls_records = counters.tls_records;
        totals.unread_bytes = counters.unread_bytes;
        totals.surplus_bytes = counters.surplus_bytes;
        totals.malformed = counters.malformed().map(|(reason, count)| (reason.name(), count)).collect();
        totals.malformed_contexts.clone_from(&counters.malformed_contexts);
        if told.own_losses.recognised {
            let others = counters.lost_by(Lost::NotKafka);
            totals.connections = totals.connections.saturating_sub(others);
        }
        totals.lost.retain(|_, count| *count > 0);
        totals.malformed.retain(|_, count| *count > 0);
        totals
    }

    fn opened(&mut self, id: ConnectionId, (ends, side): (Ends, Side), owner: Option<Arc<Process>>) {
        if let Some(known) = self.connections.get_mut(&id)
            && known.peer.ends == ends
        {
            if let Some(owner) = owner {
                known.peer.owned(owner);
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
        let mut peer = Peer::new(ends, side);
        if let Some(owner) = owner {
            peer.owned(owner);
        }
        let has_agent = |net: &IpNet| net.contains(&ends.client.ip());
        let left_out = !self.sides.have(side) || (side == Side::Broker && self.agents.iter().any(has_agent));
        if left_out {
            self.totals.left_out = self.totals.left_out.saturating_add(1);
        } else if self.sides == Sides::Both && side == Side::Broker {
            peer.search = Search::begin();
        }
        let mut kafka = kafka::Connection::default();
        if self.tls.may_open(&peer, false, &self.told.shared) != Opening::No {
            kafka.read_tls();
        }
        let connection = Connection {
            kafka,
            peer,
            peer_bytes: 0,
            left_out,
            given_up: false,
            tls_is_read: false,
            last_ns: self.swept_ns,
            closed: false,
            reset: false,
            refused: None,
            fin: (false, false),
        };
        self.connections.insert(id, connection);
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.totals.segments = self.totals.segments.saturating_add(1);
        let Push { direction, fin, len, time_ns, .. } = segment.push;
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
            // Sources tell of a connection before its first segment, so this one was forgotten.
            None => self.opened(segment.connection, (segment.ends, segment.side), None),
        }
        let Some(connection) = self.connections.get_mut(&segment.connection) else { return };
        connection.last_ns = time_ns;
        self.told.now_ns = time_ns;
        self.told.give_late_runs(Some(time_ns));
        self.told.give_sent(Some(time_ns));
        let mut listener =
            Listener { id: segment.connection, peer: &mut connection.peer, told: &mut self.told };
        let scratch = &mut self.scratch;
        if !connection.left_out {
            weigh(&mut self.held_bytes, &mut connection.kafka, |kafka| {
                kafka.push(scratch, segment.push, &mut listener);
                listener.settle();
            });
            weigh_peer(&mut self.held_bytes, connection);
        }
        if claimed > 0 {
            self.told.shared.memory.give_back(claimed);
        }
        let over = connection.left_out || matches!(connection.kafka.speaks(), Speaks::Tls | Speaks::Other);
        let is_to_be_given_up = over && !connection.given_up;
        let is_inside = connection.kafka.tls().is_some() || self.tls.is_waiting(segment.connection);
        if fin {
            match direction {
                Direction::ToBroker => connection.fin.0 = true,
                Direction::ToClient => connection.fin.1 = true,
            }
        }
        connection.closed |= connection.fin == (true, true);
        // Data after a reset says that the reset was none: TCP checks it after it was seen here.
        connection.reset = segment.rst || (connection.reset && len == 0);
        if segment.rst && segment.push.ack.is_some() {
            connection.refused = Some(direction);
        } else if len > 0 {
            connection.refused = None;
        }
        let hangs_up = segment.rst || (fin && connection.closed);
        if is_to_be_given_up || is_inside {
            self.give_up(segment.connection, time_ns);
            self.look_at_tls(segment.connection, time_ns);
        }
        if hangs_up {
            self.hung_up(segment.connection);
        }
        self.told.release_news(time_ns);
        self.weigh_all(claimed > 0);
    }

    /// Gives up a connection of which nothing more is wanted, if it is such a one.
    fn give_up(&mut self, id: ConnectionId, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let speaks = connection.kafka.speaks();
        let over = connection.left_out || matches!(speaks, Speaks::Tls | Speaks::Other);
        if !over || std::mem::replace(&mut connection.given_up, true) {
            return;
        }
        count_not_kafka(connection, &mut self.totals, &self.told.shared);
        if speaks == Speaks::Tls {
            self.unread_tls.push((id, now_ns));
        }
        if let Some(refuse) = &mut self.refuse {
            refuse(id);
        }
    }

    /// Asks for what a frame of this connection will take beside what is held; where there is no room for it, what holds most gives way, or the
    /// frame itself where others hold more than this worker. Returns how much is taken.
    #[cold]
    fn claim(&mut self, id: ConnectionId, wants: usize) -> usize {
        let shared = Arc::clone(&self.told.shared);
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

    /// Tells the other workers what this one holds, and gives some of it back where all hold too much and this one more than
    /// its part.
    fn weigh_all(&mut self, at_once: bool) {
        let bytes = self.weight();
        let Shared { memory, workers, .. } = &*self.told.shared;
        if !self.held_told.tell(memory, bytes, at_once) || !memory.is_over() {
            return;
        }
        if bytes > memory.left() / workers.load(Ordering::Relaxed).max(1) {
            self.make_light(bytes.saturating_sub(memory.surplus()));
            self.held_told.tell(&self.told.shared.memory, self.weight(), true);
        }
    }

    /// Makes the table of connections larger, or forgets some where there is no room.
    #[cold]
    fn enlarge(&mut self) {
        let (len, memory) = (self.connections.len(), Arc::clone(&self.told.shared.memory));
        // The table grows to twice its places, seven of eight of which are used; the old one is there until then.
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
        let late = self.told.late.len() + self.told.late_runs.len() + self.told.late_sends.len();
        let hops = self.told.waiting.len() + self.told.sought_hops + late;
        self.held_bytes
            .saturating_add(hops.saturating_mul(memory::HOP_BYTES))
            .saturating_add(self.connections.len().saturating_mul(memory::CONNECTION_BYTES))
            .saturating_add(
                self.connections
                    .capacity()
                    .saturating_sub(self.connections.len())
                    .saturating_mul(PLACE_BYTES),
            )
    }

    /// The heaviest connections give up their frames and all that waits for its rest, until no more than `wanted` bytes are held.
    fn shed_heaviest(&mut self, wanted: usize) {
        let mut heavy: Vec<(usize, ConnectionId)> = self
            .connections
            .iter()
            .map(|(id, connection)| {
                (connection.kafka.held_bytes().saturating_add(connection.peer_bytes), *id)
            })
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
            listener.misses(listener.told.now_ns);
            listener.missed_ends();
            listener.peer.shed();
            listener.answers_nothing();
            listener.forget_acquired(true);
            listener.peer.missed.messages();
            listener.missed_commits();
        });
    }

    /// Gives back what is held until no more than `wanted` bytes are: see [`memory`] for what goes first.
    fn make_light(&mut self, wanted: usize) {
        self.shed_heaviest(wanted);
        purge::give_back();
        if self.weight() <= wanted {
            return;
        }
        for (id, connection) in &mut self.connections {
            Listener { id: *id, peer: &mut connection.peer, told: &mut self.told }.turn(None);
        }
        self.told.give_sent(None);
        self.told.give_late_runs(None);
        self.told.give_late(None);
        self.told.release(None);
        if self.weight() > wanted && self.connections.len() > FEW_CONNECTIONS {
            self.make_room();
        }
    }

    /// Does something to a connection, and tells what comes of it.
    fn act(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut kafka::Connection, &mut Scratch, &mut Listener<'_>),
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let scratch = &mut self.scratch;
        let mut listener = Listener { id, peer: &mut connection.peer, told: &mut self.told };
        weigh(&mut self.held_bytes, &mut connection.kafka, |kafka| {
            act(kafka, scratch, &mut listener);
            listener.settle();
        });
        weigh_peer(&mut self.held_bytes, connection);
    }

    /// A connection is over: its client may go on with another.
    fn hung_up(&mut self, id: ConnectionId) {
        let now_ns = self.swept_ns;
        self.act(id, |kafka, scratch, listener| {
            kafka.end(scratch, listener);
            listener.settle();
            // For whom it has read is found out a little later.
            if !listener.told.late_runs.is_over(id, listener.peer.late_until_ns) {
                listener.told.shared.groups.tell(|groups| groups.gone(id, now_ns));
            }
        });
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.tls.is_waiting(id) {
            self.end_tls(id);
        }
        if let Some(mut connection) = self.connections.remove(&id) {
            let held = connection.kafka.held_bytes().saturating_add(connection.peer_bytes);
            self.held_bytes = self.held_bytes.saturating_sub(held);
            let mut listener = Listener { id, peer: &mut connection.peer, told: &mut self.told };
            if let Some(direction) = connection.refused {
                connection.kafka.reset(direction);
            }
            connection.kafka.finish(&mut self.scratch, &mut listener);
            listener.settle();
            listener.forget_acquired(false);
            listener.answers_nothing();
            listener.turn(None);
            self.told.give_late_runs_of(id, connection.peer.late_until_ns);
            self.told.shared.groups.tell(|groups| groups.gone(id, self.swept_ns));
            let Peer { missed, ends, .. } = &connection.peer;
            if missed.gaps > 0 {
                let lossy = Lossy {
                    service: connection.peer.service(),
                    client: ends.client.to_string(),
                    broker: ends.broker.to_string(),
                    gaps: missed.gaps,
                    gap_bytes: missed.bytes,
                };
                keep_lossiest(&mut self.totals.lossy, [lossy]);
            }
            if !connection.given_up {
                count_not_kafka(&connection, &mut self.totals, &self.told.shared);
            }
            if connection.given_up
                && let Some(at) = self.unread_tls.iter().position(|(pending, _)| *pending == id)
            {
                self.unread_tls.swap_remove(at);
                count_tls(&connection, &mut self.totals, &self.told.shared);
            }
        }
    }
}

/// Counts a connection that was found not to be Kafka's, by reason.
fn count_not_kafka(connection: &Connection, totals: &mut Totals, shared: &Shared) {
    if let Some(reason) = connection.kafka.not_kafka() {
        let count = totals.not_kafka.entry(reason.name()).or_default();
        *count = count.saturating_add(1);
        shared.count_not_kafka(reason, connection.peer.ends);
    }
}

/// Counts a connection inside TLS that is not read.
fn count_tls(connection: &Connection, totals: &mut Totals, shared: &Shared) {
    let service = connection.peer.service();
    shared::count(&mut totals.tls, &service);
    let why = connection.kafka.tls_unread().map(|unread| unread.to_string());
    if let Some(why) = &why {
        shared::count_why(&mut totals.tls_unread, &service, why);
    }
    shared.count_tls(&service, why.as_deref().unwrap_or(Lost::Tls.name()));
}

/// Does something to a connection, and keeps the sum of what all connections hold right.
fn weigh(held: &mut usize, kafka: &mut kafka::Connection, act: impl FnOnce(&mut kafka::Connection)) {
    let before = kafka.held_bytes();
    act(kafka);
    *held = held.saturating_sub(before).saturating_add(kafka.held_bytes());
}

fn weigh_peer(held: &mut usize, connection: &mut Connection) {
    let before = std::mem::replace(&mut connection.peer_bytes, connection.peer.held_bytes());
    *held = held.saturating_sub(before).saturating_add(connection.peer_bytes);
}

#[cfg(test)]
mod tests;
