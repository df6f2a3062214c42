//! Which group, and which member of it, a connection reads for.
//!
//! A Fetch request names neither. Group requests do, most often on another connection of the same
//! client: the same process (in a capture file and at the broker's end: the same address) with the
//! same client id. If a client has several members, for example a process that reads for several
//! groups, what each may read distinguishes them:
//!
//! - a member that sends group requests on the fetching connection is the reader;
//! - a member reads only partitions that it was assigned, and only from then on;
//! - a member ruled out for one partition is ruled out for the connection;
//! - a member has one connection to a broker: once it is known, other connections belong to other
//!   members, unless each has fetched one partition alone (some clients open one for each);
//! - a member that asked for its committed offset begins to fetch there; so does a consumer that
//!   assigns its partitions itself and asks for its group's offset.
//!
//! If two members remain, neither is named.

mod instance;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::error;

use super::store::{Bound, Bounded, Knowledge, drop_evicted};
use crate::seen::ConnectionId;
use instance::{Has, Instance, MEMBER_BYTES, PARTITION_BYTES, TOPIC_BYTES};

/// The sender of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Speaker {
    Process(u32),
    /// By its address, where the process is not known.
    Address(IpAddr),
}

/// The sender of requests, with its client id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub speaker: Speaker,
    pub id: Option<Arc<str>>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub group: Arc<str>,
    /// Empty for a consumer that is not a member: one that assigns its partitions itself, and
    /// commits.
    pub id: Arc<str>,
    /// The generation of a classic group, the member's epoch in the others; `None` where it is not
    /// known.
    pub generation: Option<i32>,
}

/// The consumer that a connection reads for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// No group, or several candidates.
    #[default]
    Unknown,
    /// One of this group's members, it is not known which.
    Group(Arc<str>),
    Member(Arc<Member>),
}

impl Reader {
    #[must_use]
    pub fn group(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unknown => None,
            Self::Group(group) => Some(group),
            Self::Member(member) => Some(&member.group),
        }
    }
}

/// A partition, its topic by its id, its name, or both.
#[derive(Clone, Copy, Debug)]
pub struct TopicPartition<'a> {
    pub id: Option<u128>,
    pub name: Option<&'a str>,
    pub partition: i32,
}

impl TopicPartition<'_> {
    /// A hash that is equal for equal ids, or for equal names where there is no id.
    fn place(self) -> u64 {
        let mut state = DefaultHasher::new();
        match (self.id, self.name) {
            (Some(id), _) => id.hash(&mut state),
            (None, name) => name.hash(&mut state),
        }
        self.partition.hash(&mut state);
        state.finish()
    }
}

/// A connection and its broker's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub connection: ConnectionId,
    pub broker: SocketAddr,
}

/// What all clients may take, in bytes. Over the limit, those that were silent longest are evicted
/// until [`LOW_WATER`] is reached; they are learnt again from their next heartbeat.
const MAX_BYTES: usize = 48 << 20;

/// The part of [`MAX_BYTES`] at which evictions end. A batch of evictions looks through all
/// connections once.
const LOW_WATER: f64 = 0.75;

/// What a client takes, in bytes, beside its id and its members.
const CLIENT_BYTES: usize = 128;

/// Members ruled out for one connection that are remembered; further ones are ruled out again at
/// each fetch.
const MAX_EXCLUDED: usize = 32;

/// Members of one client; over the limit the one that is silent longest is evicted. A process with
/// more consumers under one client id is rare, and each fetch looks through all of them.
const MAX_INSTANCES: usize = 256;

/// Groups that a client asks for without being a member, and may read for. A tool that watches
/// groups asks for many, and reads for none.
const MAX_ASKED: usize = 8;

/// A member without any connection expires after this.
const GONE_NS: u64 = 600_000_000_000;

/// The members of groups by their clients, and the owners of connections, shared by all workers.
/// The client whose last group request is oldest is evicted first. Fetches do not count as a use: a
/// client that sends no heartbeats is no longer a member.
#[derive(Debug)]
pub struct Groups {
    clients: Bounded<Client, Vec<Instance>>,
    /// The client of each connection that sent group requests or reads for a known member.
    connections: HashMap<ConnectionId, Client>,
    /// Members ruled out for a connection whose reader is not known, by their numbers.
    excluded: HashMap<ConnectionId, HashSet<u64>>,
    /// Members so far.
    count: u64,
    /// Members evicted.
    evicted: u64,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            clients: Bounded::new(Bound::bytes(MAX_BYTES)),
            connections: HashMap::new(),
            excluded: HashMap::new(),
            count: 0,
            evicted: 0,
        }
    }
}

/// A fetch from a partition.
#[derive(Clone, Copy, Debug)]
pub struct FetchFrom<'a> {
    pub at: TopicPartition<'a>,
    /// When the client first asked for this offset, in nanoseconds since 1970.
    pub ns: u64,
    /// The offset that it fetches from; −1 if unknown.
    pub offset: i64,
}

/// The client, connection and time of a group request.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub client: &'a Client,
    pub line: Line,
    pub now_ns: u64,
}

/// Whether an error means that the member has left the group and has to join again.
fn is_out(code: i16) -> bool {
    error::ends_membership(code)
}

impl Groups {
    /// What a client takes, in bytes, about.
    fn weight(client: &Client, list: &[Instance]) -> usize {
        let id = client.id.as_ref().map_or(0, |id| id.len());
        list.iter().map(Instance::bytes).fold(CLIENT_BYTES.saturating_add(id), usize::saturating_add)
    }

    fn evict(&mut self) {
        let Self { clients, connections, excluded, evicted, .. } = self;
        clients.shrink_to(
            LOW_WATER,
            |client, list| Self::weight(client, list),
            |_, list| {
                *evicted = evicted.saturating_add(list.len() as u64);
            },
        );
        connections.retain(|_, client| clients.peek(client).is_some());
        excluded.retain(|connection, _| connections.contains_key(connection));
    }

    /// A client takes one partition more, with the name of its topic.
    fn grow(&mut self, client: &Client, at: TopicPartition<'_>) {
        let name = at.name.map_or(0, str::len);
        self.clients.grow(client, (PARTITION_BYTES + TOPIC_BYTES).saturating_add(name));
    }

    /// A member has sent a request. Returns whether that changes what it may read.
    pub fn member(&mut self, heard: Heard<'_>, member: &kafka::Member<'_>) -> bool {
        use kafka::MemberState::{Joining, Leaving, Pausing, Stable};
        let error = match error::name(member.error) {
            Some("NONE" | "REBALANCE_IN_PROGRESS" | "MEMBER_ID_REQUIRED") => false,
            _ if is_out(member.error) => true,
            // Other errors say nothing of the member.
            _ => return false,
        };
        let Some(instance) = self.instance(heard, member.group_id, member.member_id) else { return false };
        if error || matches!(member.state, Leaving | Pausing) {
            return instance.out(heard.now_ns, error);
        }
        let joins = member.state == Joining && member.protocol != kafka::GroupProtocol::Classic;
        let mut news =
            instance.comes(heard.line.connection, joins || instance.is_new(Stable != member.state));
        if member.generation_or_epoch >= 0 {
            news |= instance.generation(member.generation_or_epoch);
        }
        news
    }

    /// An assignment follows, and replaces the previous one. Returns whether the member is known.
    pub fn assignment_begins(
        &mut self,
        heard: Heard<'_>,
        group: &str,
        member: &str,
        generation: i32,
    ) -> bool {
        let Some(instance) = self.instance(heard, group, member) else { return false };
        instance.comes(heard.line.connection, false);
        instance.generation(generation);
        instance.begin(heard.now_ns);
        true
    }

    /// A member is assigned a partition. Returns whether that is news.
    pub fn assigned(&mut self, heard: Heard<'_>, group: &str, member: &str, at: TopicPartition<'_>) -> bool {
        let Some(instance) = self.instance(heard, group, member) else { return false };
        let is_news = instance.assign(at, heard.now_ns);
        self.grow(heard.client, at);
        is_news
    }

    /// A member is assigned tasks of Kafka Streams, whose partitions are not on the wire.
    pub fn assigned_unseen(&mut self, heard: Heard<'_>, group: &str, member: &str) -> bool {
        let Some(instance) = self.instance(heard, group, member) else { return false };
        instance.unknown()
    }

    /// An offset is committed for a group: its sender reads the partition. `member` is empty for a
    /// consumer that assigns its partitions itself.
    pub fn reads(&mut self, heard: Heard<'_>, group: &str, member: &str, at: TopicPartition<'_>) -> bool {
        if member.is_empty() {
            let known = self.clients.peek(heard.client).into_iter().flatten();
            if known.filter(|instance| *instance.member.group == *group).any(|instance| {
                instance.speaks_on == Some(heard.line.connection) && !instance.member.id.is_empty()
                    || instance.has(at, heard.now_ns) == Has::Yes
            }) {
                return false;
            }
        }
        let Some(instance) = self.instance(heard, group, member) else { return false };
        let comes = instance.comes(heard.line.connection, false);
        let is_new = instance.is_seen_to_read(at);
        if is_new {
            self.grow(heard.client, at);
        }
        comes | is_new
    }

    /// A client asked for a group's committed offset. Not only members do: admin tools ask, too,
    /// and read nothing.
    pub fn position(&mut self, heard: Heard<'_>, group: &str, at: TopicPartition<'_>, offset: i64) -> bool {
        let (mut is_known, mut others) = (false, 0_usize);
        for instance in self.clients.peek_mut(heard.client).into_iter().flatten() {
            others = others.saturating_add(usize::from(*instance.member.group != *group));
            // It asks for a further partition.
            let is_other = *instance.member.group != *group || instance.is_asking(at);
            is_known |= !is_other;
            if !is_other && instance.speaks_on == Some(heard.line.connection) {
                instance.position(at, offset, heard.now_ns);
            }
        }
        if is_known || others >= MAX_ASKED || offset < 0 {
            return false;
        }
        let Some(instance) = self.instance(heard, group, "") else { return false };
        instance.comes(heard.line.connection, false);
        instance.asks(at, offset, heard.now_ns);
        self.grow(heard.client, at);
        true
    }

    /// The reader of a partition on a connection, and whether the decision is news for the client's
    /// other connections.
    pub fn reader(&mut self, client: &Client, line: Line, asked: FetchFrom<'_>) -> (Reader, bool) {
        let Some(list) = self.clients.peek_mut(client) else { return (Reader::Unknown, false) };
        let of = |instance: &Instance| Reader::Member(Arc::clone(&instance.member));
        // Members that send group requests or are known to read on this connection.
        let own = |instance: &Instance| {
            instance.speaks_on == Some(line.connection)
                || instance.reads_on.iter().any(|read| read.line == line)
        };
        let owners: Vec<usize> =
            (0..).zip(&*list).filter(|(_, one)| own(one)).map(|(place, _)| place).collect();
        if let Found::One(place) | Found::Perhaps(place) = find(list, &owners, asked)
            && let Some(instance) = list.get_mut(place)
        {
            let is_news = instance.reads_also(line, asked.at);
            return (of(instance), is_news && list.len() > 1);
        }
        // The partition was taken from it, after it had sent its next fetch.
        let mut late = owners.iter().filter_map(|place| list.get(*place)).filter(|one| one.had(asked.at));
        if let (Some(instance), None) = (late.next(), late.next()) {
            return (of(instance), false);
        }
        let mut excluded = self.excluded.remove(&line.connection).unwrap_or_default();
        let is_free = |one: &Instance| {
            !excluded.contains(&one.number)
                && one.reads_on.iter().all(|read| read.line.broker != line.broker)
                && one.may_begin(asked.at, asked.offset)
        };
        let free: Vec<usize> =
            (0..).zip(&*list).filter(|(_, one)| is_free(one)).map(|(place, _)| place).collect();
        let found = find(list, &free, asked);
        if let Found::One(place) | Found::Perhaps(place) = found
            && let Some(group) = list.get(place).map(|one| &one.member.group)
        {
            let may_be_it = |(at, one): (usize, &Instance)| {
                !free.contains(&at)
                    && one.member.group != *group
                    && !excluded.contains(&one.number)
                    && one.has(asked.at, asked.ns) == Has::Yes
                    && one.may_read_beside(line.broker, asked.at)
            };
            if (0..).zip(&*list).any(may_be_it) {
                if !excluded.is_empty() {
                    self.excluded.insert(line.connection, excluded);
                }
                return (Reader::Unknown, false);
            }
        }
        match found {
            Found::Perhaps(place) => (list.get(place).map_or(Reader::Unknown, of), false),
            Found::One(place) => {
                let alone = list.len() == 1;
                let Some(instance) = list.get_mut(place) else { return (Reader::Unknown, false) };
                // If its assignment is not known, for example because the agent started later,
                // nothing is concluded for good.
                if !instance.is_known() {
                    return (of(instance), false);
                }
                instance.reads(line, asked.at);
                self.connections.insert(line.connection, client.clone());
                (of(instance), !alone)
            }
            found @ (Found::None | Found::Group(_)) => {
                let free = || free.iter().filter_map(|place| list.get(*place));
                let is_out = |one: &&Instance| one.has(asked.at, asked.ns) == Has::No;
                // If no member can be it, some request was missed.
                if !free().all(|one| is_out(&one)) {
                    let more = MAX_EXCLUDED.saturating_sub(excluded.len());
                    excluded.extend(free().filter(is_out).map(|one| one.number).take(more));
                }
                excluded.retain(|number| list.iter().any(|one| one.number == *number));
                if !excluded.is_empty() {
                    self.connections.insert(line.connection, client.clone());
                    self.excluded.insert(line.connection, excluded);
                }
                match found {
                    Found::Group(group) => (Reader::Group(group), false),
                    _ => (Reader::Unknown, false),
                }
            }
        }
    }

    /// A connection has ended. Returns whether that is news.
    pub fn gone(&mut self, connection: ConnectionId, now_ns: u64) -> bool {
        let Some(client) = self.connections.remove(&connection) else { return false };
        self.excluded.remove(&connection);
        let Some(list) = self.clients.peek_mut(&client) else { return false };
        for instance in &mut *list {
            instance.hangs_up(connection, now_ns);
        }
        list.retain(|instance| !instance.is_over());
        if list.is_empty() {
            self.clients.remove(&client);
        }
        true
    }

    /// The member of a client, known or new. Its client is used by that.
    fn instance(&mut self, heard: Heard<'_>, group: &str, member: &str) -> Option<&mut Instance> {
        if self.clients.is_over() {
            self.evict();
        }
        self.connections.insert(heard.line.connection, heard.client.clone());
        let id = heard.client.id.as_ref().map_or(0, |id| id.len());
        let mut is_new = false;
        let new = || {
            is_new = true;
            vec![]
        };
        // Weighed below, so that nothing is evicted here.
        let list = self.clients.get_or_insert(heard.client, 0, new, drop_evicted);
        let speaks = Some(heard.line.connection);
        let same = |one: &Instance| *one.member.group == *group && *one.member.id == *member;
        // The same member under another id: it was given one by the broker, or has lost its place
        // and joins again.
        let renamed = |one: &Instance| {
            *one.member.group == *group
                && one.speaks_on == speaks
                && (one.member.id.is_empty() || one.is_lost())
        };
        let place = list.iter().position(same).or_else(|| {
            let place = list.iter().position(renamed).filter(|_| !member.is_empty())?;
            list.get_mut(place)?.rename(member);
            Some(place)
        });
        let place = match place {
            Some(place) => place,
            None => {
                let gone_ns = heard.now_ns.saturating_sub(GONE_NS);
                list.retain(|one| one.silent_since().is_none_or(|since| since >= gone_ns));
                if list.len() >= MAX_INSTANCES {
                    let silent =
                        (0..).zip(&*list).min_by_key(|(_, one)| one.silent_since().unwrap_or(u64::MAX));
                    let place = silent.map_or(0, |(place, _)| place);
                    list.remove(place);
                    self.evicted = self.evicted.saturating_add(1);
                }
                self.count = self.count.saturating_add(1);
                list.push(Instance::new(self.count, group, member));
                let place = list.len().saturating_sub(1);
                let client = if is_new { CLIENT_BYTES.saturating_add(id) } else { 0 };
                let names = group.len().saturating_add(member.len());
                self.clients.grow(heard.client, MEMBER_BYTES.saturating_add(names).saturating_add(client));
                place
            }
        };
        let instance = self.clients.peek_mut(heard.client)?.get_mut(place)?;
        instance.heard_ns = heard.now_ns;
        Some(instance)
    }
}

impl Knowledge for Groups {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        let members = self.clients.iter().map(|(_, list)| list.len()).sum();
        vec![("clients", self.clients.len()), ("members", members)]
    }

    fn bytes(&self) -> usize {
        self.clients.bytes()
    }

    fn hold_at_most(&mut self, part: f64) {
        self.clients.hold_at_most(part);
    }

    fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

enum Found {
    None,
    Group(Arc<str>),
    /// No other member is left, but this one is not known to read the partition.
    Perhaps(usize),
    One(usize),
}

/// Which of these members reads the partition.
fn find(list: &[Instance], of: &[usize], FetchFrom { at, ns, offset }: FetchFrom<'_>) -> Found {
    let (mut sure, mut perhaps) = (Vec::new(), Vec::new());
    for place in of {
        let Some(instance) = list.get(*place) else { continue };
        match instance.has(at, ns) {
            Has::Yes => sure.push((*place, instance)),
            Has::Unknown => perhaps.push((*place, instance)),
            Has::No => {}
        }
    }
    let group = |(_, one): &(usize, &Instance)| Arc::clone(&one.member.group);
    let Some(first) = sure.first().or_else(|| perhaps.first()).map(group) else { return Found::None };
    if sure.iter().chain(&perhaps).any(|(_, one)| one.member.group != first) {
        // All of them asked for their committed offsets, and exactly one begins at this one.
        let begins: Vec<_> = sure.iter().filter(|(_, one)| one.began_at(at) == Some(offset)).collect();
        let are_told = perhaps.is_empty() && sure.iter().all(|(_, one)| one.began_at(at).is_some());
        return match begins.as_slice() {
            [(place, _)] if are_told => Found::One(*place),
            _ => Found::None,
        };
    }
    // In a group one member has a partition: the one that was assigned it last, and rather a member
    // than a consumer without an id.
    let rank = |(_, one): &&(usize, &Instance)| (!one.member.id.is_empty(), one.since(at));
    match (sure.iter().max_by_key(rank), perhaps.as_slice()) {
        (Some((place, _)), _) => Found::One(*place),
        (None, [(place, _)]) => Found::Perhaps(*place),
        (None, _) => Found::Group(first),
    }
}

#[cfg(test)]
mod tests;
