//! One ring, read: from the kernel's records to events.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use ktrace_common::{SegmentHeader, flags};
use ktrace_kafka::Push;

use super::calls::Calls;
use super::clock::{Clock, monotonic_ns};
use super::connections::{Connections, direction, ends, side};
use super::epoll::Sleeper;
use super::owners::Owned;
use super::pre_accept::PreAccept;
use super::resolver::Resolver;
use super::ring::{Record, decode};
use super::scrubber::{self, Scrubbed};
use crate::sched;
use crate::seen::{ConnectionId, Event, Process, Segment, Side};

/// How long the agent sleeps while the ring is empty: at first, doubled each time that nothing
/// came, and at most. An idle host is so looked at ten times a second, for less than a thousandth
/// of a CPU; a busy one wakes the agent by amount.
const SHORTEST_SLEEP_MS: u32 = 10;
const LONGEST_SLEEP_MS: u32 = 100;
/// Records read between two looks at the rest (stop, clock, owners).
const BATCH: usize = 4096;
/// Between two measurements of the clocks and clearings of what is over.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long the ring may fill while the sockets of the host are listed at the start.
const FIRST_SEARCH: Duration = Duration::from_millis(500);
/// How long a socket may be without owner before it is searched for: most often the owner is just
/// being read.
const GRACE: Duration = Duration::from_millis(200);
/// Sockets without owner that are looked for; more wait for their next segment.
const MOST_LACKING: usize = 64 << 10;

/// Whose connections are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) pid: Option<u32>,
    /// The inode of a network namespace.
    pub(super) netns: Option<u64>,
}

/// What all readers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) calls: Calls,
    pub(super) wanted: Wanted,
}

/// Reads a ring.
pub(super) struct Reader {
    number: u8,
    ring: RingBuf<MapData>,
    scrubbed: Scrubbed,
    sleeper: Sleeper,
    owned: Receiver<Owned>,
    shared: Shared,
    clock: Clock,
    connections: Connections,
    pre_accept: PreAccept,
    /// Sockets without owner, and since when.
    lacking: HashMap<u64, Instant>,
    /// Searches whose result was looked at.
    searches: u64,
    /// Sockets whose end the kernel side is to report although it did not see their beginning.
    untracked: Vec<u64>,
}

impl Reader {
    pub(super) fn new(
        number: u8,
        (ring, ring_bytes): (RingBuf<MapData>, usize),
        owned: Receiver<Owned>,
        shared: Shared,
        connections: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            number,
            sleeper: Sleeper::new(&ring)?,
            ring,
            scrubbed: Scrubbed::new(ring_bytes),
            owned,
            shared,
            clock: Clock::measure(),
            connections: Connections::new(connections),
            pre_accept: PreAccept::default(),
            lacking: HashMap::new(),
            searches: 0,
            untracked: Vec::new(),
        })
    }

    /// Until `stop` is set.
    pub(super) fn watch(&mut self, stop: &AtomicBool, sink: &mut impl FnMut(Event<'_>)) -> io::Result<()> {
        if let Err(error) = sched::shorten() {
            tracing::debug!(%error, "the scheduler gives no shorter turns");
        }
        self.shared.resolver.first(FIRST_SEARCH);
        let mut sleep_ms = SHORTEST_SLEEP_MS;
        let mut upkeep = Instant::now();
        let mut scrubbed = upkeep;
        while !stop.load(Ordering::Relaxed) {
            let read = self.drain(BATCH, sink);
            sink(Event::Tick { time_ns: self.clock.wall_ns(monotonic_ns()) });
            let now = Instant::now();
            self.look_for_owners(now, sink);
            if now.saturating_duration_since(upkeep) >= UPKEEP {
                upkeep = now;
                self.clock = Clock::measure();
                self.connections.expire(monotonic_ns());
                self.pre_accept.expire(monotonic_ns());
            }
            // While much comes, that overwrites what was read, and needs the room.
            if read < BATCH && now.saturating_duration_since(scrubbed) >= scrubber::PAUSE {
                scrubbed = now;
                let records = self.scrubbed.next();
                if records > 0 {
                    self.shared.calls.scrub(self.number, records);
                    sleep_ms = SHORTEST_SLEEP_MS;
                }
            }
            match read {
                BATCH => {}
                0 => {
                    self.sleeper.sleep(Some(sleep_ms))?;
                    sleep_ms = (sleep_ms * 2).min(LONGEST_SLEEP_MS);
                }
                _ => {
                    sleep_ms = SHORTEST_SLEEP_MS;
                    self.sleeper.sleep(Some(sleep_ms))?;
                }
            }
        }
        Ok(())
    }

    /// Hands on what is left.
    pub(super) fn rest(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        while self.drain(BATCH, sink) > 0 {}
    }

    /// Hands on at most `limit` records of the ring, and says how many there were.
    fn drain(&mut self, limit: usize, sink: &mut impl FnMut(Event<'_>)) -> usize {
        let mut reading = Reading {
            owned: &self.owned,
            shared: &self.shared,
            clock: &self.clock,
            connections: &mut self.connections,
            pre_accept: &mut self.pre_accept,
            lacking: &mut self.lacking,
            untracked: &mut self.untracked,
            sink,
        };
        reading.take_owned(None);
        let (mut count, mut blanks) = (0, 0);
        while count < limit
            && let Some(record) = self.ring.next()
        {
            count += 1;
            match decode(&record) {
                Some(Record::Segment(header, payload)) => reading.piece(header, payload),
                Some(Record::Blank) => blanks += 1,
                Some(Record::Closed(closed)) => {
                    if let Some(event) = reading.connections.closed(closed.cookie, closed.time_ns) {
                        (reading.sink)(event);
                    }
                }
                Some(Record::Owner(_)) | None => {
                    tracing::error!("the ring holds a record of a kind that the programs do not write");
                }
            }
        }
        self.scrubbed.read(count, blanks);
        for cookie in self.untracked.drain(..) {
            self.shared.calls.track(cookie, self.number);
        }
        count
    }

    /// Gives sockets whose owner is not known the one that was found, and has the others searched
    /// for.
    fn look_for_owners(&mut self, now: Instant, sink: &mut impl FnMut(Event<'_>)) {
        if self.lacking.is_empty() {
            return;
        }
        let searches = self.shared.resolver.searches();
        if searches == self.searches {
            let waits = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
            if self.lacking.values().any(waits) {
                self.shared.resolver.ask();
            }
            return;
        }
        self.searches = searches;
        let now_ns = monotonic_ns();
        for (cookie, _) in self.lacking.drain() {
            let Some(found) = self.shared.resolver.found(cookie) else { continue };
            if !self.shared.wanted.takes(found.pid, found.netns) {
                self.connections.refuse(cookie);
                self.shared.calls.refuse(ConnectionId(cookie));
                continue;
            }
            let Some(process) = found.process else { continue };
            if let Some(opened) = self.connections.owned(cookie, process, now_ns) {
                sink(opened);
            }
        }
    }
}

impl Wanted {
    fn is_all(self) -> bool {
        self.pid.is_none() && self.netns.is_none()
    }

    fn takes(self, pid: Option<u32>, netns: u64) -> bool {
        self.pid.is_none_or(|wanted| pid == Some(wanted)) && self.netns.is_none_or(|wanted| wanted == netns)
    }
}

/// What it takes to read a record.
struct Reading<'x, S> {
    owned: &'x Receiver<Owned>,
    shared: &'x Shared,
    clock: &'x Clock,
    connections: &'x mut Connections,
    pre_accept: &'x mut PreAccept,
    lacking: &'x mut HashMap<u64, Instant>,
    untracked: &'x mut Vec<u64>,
    sink: &'x mut S,
}

impl<S: FnMut(Event<'_>)> Reading<'_, S> {
    /// Takes what processes have connected meanwhile. Returns whether this open socket was reported
    /// with its process.
    fn take_owned(&mut self, socket: Option<u64>) -> bool {
        let mut is_reported = false;
        while let Ok(owned) = self.owned.try_recv() {
            self.lacking.remove(&owned.cookie);
            if let Some(event) = self.connections.connecting(owned.cookie, owned.process, owned.time_ns) {
                is_reported |= socket == Some(owned.cookie);
                (self.sink)(event);
            }
        }
        is_reported
    }

    fn piece(&mut self, header: SegmentHeader, payload: &[u8]) {
        if header.flags & flags::LISTENING != 0 {
            self.pre_accept.hold(header, payload);
            return;
        }
        self.segment(&header, payload);
    }

    fn segment(&mut self, header: &SegmentHeader, payload: &[u8]) {
        let mut early = Vec::new();
        if let Some(opened) = self.connections.passes(header) {
            self.open(header, opened);
            early = self.pre_accept.of(header);
        } else if !self.lacking.is_empty() && self.lacking.contains_key(&header.cookie) {
            self.take_owned(None);
        }
        if !self.shared.wanted.is_all() && self.is_unwanted(header.cookie) {
            return;
        }
        // The beginning comes first, then what came before the socket, then the rest.
        let begins = header.flags & flags::SYN != 0;
        if begins {
            let segment = self.segment_of(header, payload);
            (self.sink)(Event::Segment(segment));
        }
        for (header, payload) in &early {
            let segment = self.segment_of(header, payload);
            (self.sink)(Event::Segment(segment));
        }
        if !begins {
            let segment = self.segment_of(header, payload);
            (self.sink)(Event::Segment(segment));
        }
    }

    /// The connection's first piece.
    fn open(&mut self, header: &SegmentHeader, opened: Event<'static>) {
        let cookie = header.cookie;
        // It may have connected while what was there before it was read.
        if self.connections.lacks_owner(cookie) && self.take_owned(Some(cookie)) {
            return;
        }
        if self.connections.lacks_owner(cookie) {
            self.untracked.push(cookie);
            let found = self.shared.resolver.found(cookie);
            if let Some(found) = &found
                && !self.shared.wanted.takes(found.pid, found.netns)
            {
                self.connections.refuse(cookie);
                self.shared.calls.refuse(ConnectionId(cookie));
                return;
            }
            // A socket that waits to be accepted was found without a process.
            let process = found.and_then(|found| found.process).or_else(|| self.accepting(header));
            if let Some(process) = process
                && let Some(opened) = self.connections.owned(cookie, process, header.time_ns)
            {
                (self.sink)(opened);
                return;
            }
            if self.lacking.len() < MOST_LACKING {
                self.lacking.insert(cookie, Instant::now());
            }
        }
        (self.sink)(opened);
    }

    /// Who accepts the connection, where its end is a broker's: its process will not be reported.
    /// Who listens may hand it to another process, so it is no answer to whether the process is a
    /// wanted one.
    fn accepting(&self, header: &SegmentHeader) -> Option<Arc<Process>> {
        let Shared { resolver, wanted, .. } = self.shared;
        if side(header) != Side::Broker || wanted.pid.is_some() || !resolver.accepts() {
            return None;
        }
        let process = resolver.accepting(ends(header).broker).and_then(|found| found.process);
        if process.is_none() {
            resolver.ask();
        }
        process
    }

    /// Where only some are wanted, those whose owner is not known yet are not reported either.
    fn is_unwanted(&self, cookie: u64) -> bool {
        self.connections.is_refused(cookie) || self.lacking.contains_key(&cookie)
    }

    fn segment_of<'a>(&self, header: &SegmentHeader, payload: &'a [u8]) -> Segment<'a> {
        let is = |bit: u8| header.flags & bit != 0;
        Segment {
            connection: ConnectionId(header.cookie),
            ends: ends(header),
            side: side(header),
            rst: is(flags::RST),
            push: Push {
                direction: direction(header),
                seq: header.seq,
                ack: is(flags::ACK).then_some(header.ack),
                syn: is(flags::SYN),
                fin: is(flags::FIN),
                bytes: payload,
                len: header.len,
                time_ns: self.clock.wall_ns(header.time_ns),
            },
        }
    }
}
