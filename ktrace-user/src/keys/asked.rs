//! What workers ask for, until it is answered or withdrawn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktrace_tls::Sender;
use ktrace_tls::sample::{FoundKey, Sample, Samples};
use ktrace_tls::session::Closed;

use super::memory::Target;
use super::trial::Wanted;
use crate::seen::{ConnectionId, Ends, Process};

/// Searches for one connection, and the pauses between them: a key may not have been there yet, or
/// have moved while memory was read.
pub(super) const SEARCHES: usize = 3;
const PAUSES: [Duration; SEARCHES - 1] = [Duration::from_millis(200), Duration::from_secs(2)];
/// Connections that may be asked for at once, and bytes of their records. Workers give up after ten
/// seconds, so more than this is more than is searched in that time.
const MOST: usize = 16_384;
const MOST_BYTES: usize = 64 << 20;
/// How long the first record of the other direction is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection of which records wait for a key.
pub struct Ask {
    pub connection: ConnectionId,
    /// Who is answered.
    pub worker: usize,
    /// Whose memory holds the key.
    pub process: Arc<Process>,
    /// Shown to the user with the process.
    pub ends: Ends,
    /// Of the directions that lack a key.
    pub samples: Samples,
    /// How long the search may wait: the connection's other end may be on this host, and have its
    /// key found at less cost.
    pub delay: Duration,
}

/// What a worker gets.
pub enum Answer {
    /// There may be one for each direction.
    Key { connection: ConnectionId, key: FoundKey },
    /// No key will come for what the connection still lacks.
    Nothing { connection: ConnectionId, why: Closed },
}

impl Answer {
    pub fn connection(&self) -> ConnectionId {
        match self {
            Self::Key { connection, .. } | Self::Nothing { connection, .. } => *connection,
        }
    }
}

/// Connections that wait for keys, and the processes to search for them.
#[derive(Default)]
pub(super) struct Asked {
    connections: HashMap<ConnectionId, Connection>,
    bytes: usize,
    /// Changes when more is wanted.
    pub(super) number: u64,
}

struct Connection {
    worker: usize,
    target: Target,
    process: Arc<Process>,
    ends: Ends,
    asked: Instant,
    client: Lack,
    server: Lack,
    searches: usize,
    /// When the next search is due; `None` while all its records are opened.
    due: Option<Instant>,
}

/// What a direction lacks.
#[derive(Clone)]
enum Lack {
    /// No record has come, or it has a key already.
    Record,
    Key(Arc<[Sample]>),
    Nothing,
}

/// What is searched next.
pub(super) struct Due {
    pub(super) target: Target,
    pub(super) process: Arc<Process>,
    /// Of one of the connections.
    pub(super) ends: Ends,
    pub(super) connections: usize,
    /// Searches of the connection that was searched most often.
    pub(super) searches: usize,
}

impl Asked {
    /// Takes a new ask, or one anew. What cannot be searched for is answered at once.
    pub(super) fn ask(&mut self, ask: Ask, now: Instant) -> Option<(usize, Answer)> {
        let Ask { connection, worker, process, ends, samples, delay } = ask;
        self.remove(connection);
        let nothing = |why| Some((worker, Answer::Nothing { connection, why }));
        let Some(started) = Some(process.start_time).filter(|started| process.pid != 0 && *started != 0)
        else {
            return nothing(Closed::Ended);
        };
        let target = Target { pid: process.pid, started };
        let [client, server] = [Lack::of(samples.client), Lack::of(samples.server)];
        let bytes = client.bytes() + server.bytes();
        if self.connections.len() >= MOST || self.bytes + bytes > MOST_BYTES {
            return nothing(Closed::Full);
        }
        let due = (client.is_key() || server.is_key()).then_some(now + delay);
        let searches = 0;
        let new = Connection { worker, target, process, ends, asked: now, client, server, searches, due };
        self.connections.insert(connection, new);
        self.bytes += bytes;
        self.number += 1;
        None
    }

    /// Takes newer records of a connection, of the directions that were not answered yet. Returns
    /// whether it is asked for.
    pub(super) fn more(&mut self, connection: ConnectionId, samples: Samples, now: Instant) -> bool {
        let Some(of) = self.connections.get_mut(&connection) else { return false };
        let before = of.client.bytes() + of.server.bytes();
        for (lack, samples) in [(&mut of.client, samples.client), (&mut of.server, samples.server)] {
            if !samples.is_empty() && !matches!(lack, Lack::Nothing) {
                *lack = Lack::Key(samples.into());
                self.number += 1;
                of.due = of.due.or(Some(now));
            }
        }
        self.bytes = self.bytes - before + of.client.bytes() + of.server.bytes();
        if self.bytes > MOST_BYTES {
            // The worker has the records, and asks again.
            self.remove(connection);
            return false;
        }
        true
    }

    /// Forgets connections that have waited too long for the other direction's first record.
    pub(super) fn expire(&mut self, now: Instant) {
        // Those have no records, and so no bytes.
        let waits = |of: &Connection| of.due.is_some() || now.saturating_duration_since(of.asked) < PATIENCE;
        self.connections.retain(|_, of| waits(of));
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        if let Some(of) = self.connections.remove(&connection) {
            self.bytes -= of.client.bytes() + of.server.bytes();
        }
    }

    /// When the next search is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.connections.values().filter_map(|of| of.due).min()
    }

    /// The process whose search is due longest, with all that is asked of it.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let due = self.connections.values().filter(|of| of.due.is_some_and(|due| due <= now));
        let first = due.min_by_key(|of| of.due)?;
        let all = || self.of(first.target).filter(|(_, of)| of.due.is_some());
        Some(Due {
            target: first.target,
            process: Arc::clone(&first.process),
            ends: first.ends,
            connections: all().count(),
            searches: all().map(|(_, of)| of.searches).max().unwrap_or(0),
        })
    }

    /// The directions of a process's connections that lack a key and have records, and of
    /// connections of other processes that have the very same records: they are the other ends.
    pub(super) fn wanted(&self, target: Target) -> Vec<Wanted> {
        let mut wanted = Self::lacking(self.of(target));
        let mut records: HashMap<_, Vec<&Sample>> = HashMap::new();
        for own in &wanted {
            for sample in own.samples.iter() {
                records.entry((own.sender, sample.seq)).or_default().push(sample);
            }
        }
        let is_known = |sender, sample: &Sample| {
            let same = records.get(&(sender, sample.seq)).into_iter().flatten();
            same.into_iter().any(|own| own.header == sample.header && own.body == sample.body)
        };
        let mut twins = Self::lacking(self.connections.iter().filter(|(_, of)| of.target != target));
        twins.retain(|other| other.samples.iter().any(|sample| is_known(other.sender, sample)));
        wanted.append(&mut twins);
        wanted
    }

    fn lacking<'c>(connections: impl Iterator<Item = (&'c ConnectionId, &'c Connection)>) -> Vec<Wanted> {
        let each = connections.flat_map(|(connection, of)| {
            [(Sender::Client, &of.client), (Sender::Server, &of.server)].map(|(sender, lack)| match lack {
                Lack::Key(samples) => {
                    Some(Wanted { connection: *connection, sender, samples: Arc::clone(samples) })
                }
                Lack::Record | Lack::Nothing => None,
            })
        });
        each.flatten().collect()
    }

    /// Whether anything is wanted of the process.
    pub(super) fn wants_of(&self, target: Target) -> bool {
        self.of(target).next().is_some()
    }

    /// Whether a direction may want a key of the process that has had no record yet.
    pub(super) fn lacks_record(&self, target: Target) -> bool {
        self.of(target).any(|(_, of)| matches!(of.client, Lack::Record) || matches!(of.server, Lack::Record))
    }

    /// A key is proved. Returns who asked for it, and how long ago; `None` if it is not wanted any
    /// more.
    pub(super) fn found(
        &mut self,
        connection: ConnectionId,
        sender: Sender,
        now: Instant,
    ) -> Option<(usize, Duration)> {
        let of = self.connections.get_mut(&connection)?;
        let lack = match sender {
            Sender::Client => &mut of.client,
            Sender::Server => &mut of.server,
        };
        if matches!(lack, Lack::Nothing) {
            return None;
        }
        self.bytes -= lack.bytes();
        *lack = Lack::Nothing;
        let answer = (of.worker, now.saturating_duration_since(of.asked));
        match (&of.client, &of.server) {
            (Lack::Nothing, Lack::Nothing) => self.remove(connection),
            (client, server) if !client.is_key() && !server.is_key() => of.due = None,
            _ => {}
        }
        Some(answer)
    }

    /// A process was searched for `searched`. Those that lack a key still are searched for again,
    /// or given up: these are returned.
    pub(super) fn searched(
        &mut self,
        target: Target,
        searched: &[Wanted],
        now: Instant,
    ) -> Vec<(usize, Answer)> {
        let mut connections: Vec<_> = searched.iter().map(|wanted| wanted.connection).collect();
        connections.dedup();
        let mut given_up = Vec::new();
        for connection in connections {
            let due = |of: &&mut Connection| of.due.is_some() && of.target == target;
            let Some(of) = self.connections.get_mut(&connection).filter(due) else {
                continue;
            };
            of.due = PAUSES.get(of.searches).map(|pause| now + *pause);
            of.searches += 1;
            if of.due.is_none() {
                let why = Closed::NoKey;
                given_up.push((of.worker, Answer::Nothing { connection, why }));
                self.remove(connection);
            }
        }
        given_up
    }

    /// A process cannot be searched: all that is asked of it and due.
    pub(super) fn cannot(&mut self, target: Target, why: Closed) -> Vec<(usize, Answer)> {
        let due = self.of(target).filter(|(_, of)| of.due.is_some());
        let all: Vec<_> = due.map(|(connection, of)| (*connection, of.worker)).collect();
        all.iter().for_each(|(connection, _)| self.remove(*connection));
        all.into_iter().map(|(connection, worker)| (worker, Answer::Nothing { connection, why })).collect()
    }

    fn of(&self, target: Target) -> impl Iterator<Item = (&ConnectionId, &Connection)> {
        self.connections.iter().filter(move |(_, of)| of.target == target)
    }
}

impl Lack {
    fn of(samples: Vec<Sample>) -> Self {
        if samples.is_empty() { Self::Record } else { Self::Key(samples.into()) }
    }

    fn is_key(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Key(samples) => samples.iter().map(|sample| sample.body.len() + size_of::<Sample>()).sum(),
            Self::Record | Self::Nothing => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::tests::{key, sealed};
    use super::*;

    fn ask(connection: u64, pid: u32, client: usize, server: usize) -> Ask {
        let samples =
            |count: usize| (0..count as u64).map(|number| sealed(&key(connection as u8), number)).collect();
        Ask {
            connection: ConnectionId(connection),
            worker: 3,
            process: Arc::new(Process { pid, start_time: 5, ..Process::default() }),
            ends: Ends { client: "[::1]:5".parse().unwrap(), broker: "[::1]:9093".parse().unwrap() },
            samples: Samples { client: samples(client), server: samples(server) },
            delay: Duration::ZERO,
        }
    }

    fn why(answers: Vec<(usize, Answer)>) -> Vec<(u64, Closed)> {
        let why = |(worker, answer): (usize, Answer)| {
            assert_eq!(worker, 3);
            match answer {
                Answer::Nothing { connection, why } => (connection.0, why),
                Answer::Key { .. } => panic!("a key"),
            }
        };
        let mut all: Vec<_> = answers.into_iter().map(why).collect();
        all.sort_by_key(|(connection, _)| *connection);
        all
    }

    #[test]
    fn three_searches_with_pauses() {
        let mut now = Instant::now();
        let mut asked = Asked::default();
        assert!(asked.ask(ask(1, 7, 1, 1), now).is_none());
        for pause in PAUSES {
            let due = asked.due(now).unwrap();
            assert_eq!((due.target, due.connections), (Target { pid: 7, started: 5 }, 1));
            let wanted = asked.wanted(due.target);
            assert_eq!(wanted.len(), 2);
            assert!(asked.searched(due.target, &wanted, now).is_empty());
            assert!(asked.due(now).is_none());
            // Records that come meanwhile do not make it sooner.
            asked.more(ConnectionId(1), ask(1, 7, 2, 2).samples, now);
            assert_eq!(asked.next(), Some(now + pause));
            now += pause;
        }
        let target = asked.due(now).unwrap().target;
        let wanted = asked.wanted(target);
        assert_eq!(why(asked.searched(target, &wanted, now)), [(1, Closed::NoKey)]);
        assert!(asked.next().is_none() && asked.connections.is_empty());
        assert_eq!(asked.bytes, 0);
    }

    #[test]
    fn a_process_is_searched_for_all_its_connections_at_once() {
        let now = Instant::now();
        let mut asked = Asked::default();
        for (connection, pid) in [(1, 7), (2, 8), (3, 7)] {
            assert!(asked.ask(ask(connection, pid, 1, 0), now).is_none());
        }
        let due = asked.due(now).unwrap();
        assert_eq!(due.connections, if due.target.pid == 7 { 2 } else { 1 });
        let target = Target { pid: 7, started: 5 };
        assert_eq!(asked.wanted(target).len(), 2);
        assert_eq!(why(asked.cannot(target, Closed::Denied)), [(1, Closed::Denied), (3, Closed::Denied)]);
        assert_eq!(asked.due(now).unwrap().target.pid, 8);
        asked.remove(ConnectionId(2));
        assert!(asked.due(now).is_none());
    }

    #[test]
    fn the_other_end_has_the_same_records() {
        let now = Instant::now();
        let mut asked = Asked::default();
        let broker =
            Ask { connection: ConnectionId(2), delay: Duration::from_millis(100), ..ask(1, 8, 1, 1) };
        assert!(asked.ask(broker, now).is_none() && asked.ask(ask(1, 7, 1, 1), now).is_none());
        assert!(asked.ask(ask(3, 9, 1, 1), now).is_none());
        let target = Target { pid: 7, started: 5 };
        let mut wanted: Vec<u64> = asked.wanted(target).iter().map(|wanted| wanted.connection.0).collect();
        wanted.sort_unstable();
        assert_eq!(wanted, [1, 1, 2, 2]);
        // Its own process is not searched by that.
        let wanted = asked.wanted(target);
        assert!(asked.searched(target, &wanted, now).is_empty());
        assert_eq!(asked.due(now).unwrap().target.pid, 9);
        asked.remove(ConnectionId(3));
        assert!(asked.due(now).is_none());
        assert_eq!(asked.due(now + Duration::from_millis(100)).unwrap().target.pid, 8);
    }

    #[test]
    fn a_direction_may_get_its_first_record_later() {
        let now = Instant::now();
        let mut asked = Asked::default();
        assert!(asked.ask(ask(1, 7, 1, 0), now).is_none());
        let target = asked.due(now).unwrap().target;
        let later = now + Duration::from_millis(3);
        let found = asked.found(ConnectionId(1), Sender::Client, later);
        assert_eq!(found, Some((3, Duration::from_millis(3))));
        assert_eq!(asked.found(ConnectionId(1), Sender::Client, later), None);
        assert!(asked.due(later).is_none() && asked.lacks_record(target) && asked.wanted(target).is_empty());

        asked.expire(later);
        assert!(asked.more(ConnectionId(1), ask(1, 7, 1, 1).samples, later));
        assert!(asked.due(later).is_some() && !asked.lacks_record(target));
        asked.expire(later + PATIENCE);
        let wanted = asked.wanted(target);
        assert_eq!(wanted.iter().map(|wanted| wanted.sender).collect::<Vec<_>>(), [Sender::Server]);
        assert!(asked.found(ConnectionId(1), Sender::Server, later).is_some());
        assert!(!asked.wants_of(target));
        assert_eq!(asked.bytes, 0);
        // It is not asked for any more.
        assert!(!asked.more(ConnectionId(1), ask(1, 7, 1, 1).samples, later));
        assert!(asked.due(later).is_none());

        assert!(asked.ask(ask(2, 7, 0, 0), now).is_none());
        asked.expire(now + PATIENCE);
        assert!(!asked.wants_of(target));
    }

    #[test]
    fn what_cannot_be_searched_is_answered_at_once() {
        let now = Instant::now();
        let mut asked = Asked::default();
        let mut answered = |ask| why(asked.ask(ask, now).into_iter().collect());
        let unknown = Process { pid: 7, ..Process::default() };
        assert_eq!(answered(Ask { process: Arc::new(unknown), ..ask(1, 7, 1, 1) }), [(1, Closed::Ended)]);
        assert_eq!(answered(ask(1, 0, 1, 1)), [(1, Closed::Ended)]);
        for connection in 0..MOST as u64 {
            assert_eq!(answered(ask(connection, 7, 0, 0)), []);
        }
        assert_eq!(answered(ask(MOST as u64, 7, 1, 1)), [(MOST as u64, Closed::Full)]);
    }

    #[test]
    fn an_ask_anew_begins_anew() {
        let now = Instant::now();
        let mut asked = Asked::default();
        for _ in 0..10 {
            assert!(asked.ask(ask(1, 7, 2, 2), now).is_none());
            let target = asked.due(now).unwrap().target;
            let wanted = asked.wanted(target);
            assert!(asked.searched(target, &wanted, now).is_empty());
        }
        assert_eq!(asked.connections.len(), 1);
        asked.remove(ConnectionId(1));
        assert_eq!(asked.bytes, 0);
    }
}
