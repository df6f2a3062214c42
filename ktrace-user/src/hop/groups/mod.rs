//! Which group and which of its members a client reads for.
//!
//! A Fetch names neither. Group requests do, most often on another connection of the same client: of the same process (in a
//! capture file and at the broker's end: the same address) under the same client id. Where one such client has several members,
//! as where a process reads for several groups, what tells them apart is what each may read:
//!
//! - who is heard on the very connection that fetches is the one who reads;
//! - nobody reads a partition that it was not assigned, nor before it was;
//! - who cannot be it for one partition is not it for the others;
//! - a member has one connection to a broker: if that is known, another connection is somebody else's, unless each has brought one partition alone,
//!   as of clients that have a connection for each;
//! - who was told a committed offset begins there; so does who takes its partitions by itself, and asks where its group stands.
//!
//! Where two still could be it, neither is named.

mod instance;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::error;

use crate::capture::ConnectionId;
use instance::{Has, Instance, MEMBER_BYTES, PARTITION_BYTES, TOPIC_BYTES};

/// Who sends requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Speaker {
    Process(u32),
    /// Where the process is not known.
    Address(IpAddr),
}

/// Who sends requests, under which client id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub speaker: Speaker,
    pub id: Option<Arc<str>>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub group: Arc<str>,
    /// Empty where the reader is no member, as one that takes its partitions by itself and commits.
    pub id: Arc<str>,
    /// The generation of a classic group, the member's epoch in the others; `None` where it is not known.
    pub generation: Option<i32>,
}

/// For whom a connection reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// For no group, or for one of several that cannot be told apart.
    #[default]
    Unknown,
    /// For one of this group's members.
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

/// A partition, its topic by all names that are known.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    pub id: Option<u128>,
    pub name: Option<&'a str>,
    pub partition: i32,
}

impl At<'_> {
    /// The same for all that name the topic alike.
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

/// A connection, and the broker it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub connection: ConnectionId,
    pub broker: SocketAddr,
}

/// What all of it may take; past it clients that were silent longest are forgotten, and learnt anew with their next heartbeat.
const MAX_BYTES: usize = 48 << 20;

/// What a client takes beside its id and its members.
const CLIENT_BYTES: usize = 128;

/// Who a connection cannot be is kept of so many.
const MAX_EXCLUDED: usize = 32;

/// Members of one client; past it those that were silent longest are forgotten.
const MAX_INSTANCES: usize = 256;

/// Groups that a client asks for without being a member of any, and which it may read for: who watches groups asks for many.
const MAX_ASKED: usize = 8;

/// A member without any connection is forgotten after this.
const GONE_NS: u64 = 600_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Groups {
    clients: HashMap<Client, Vec<Instance>>,
    /// Whose connections have a part in this.
    connections: HashMap<ConnectionId, Client>,
    /// Whose connections they cannot be, of those that are not known.
    excluded: HashMap<ConnectionId, HashSet<u64>>,
    /// Members so far.
    count: u64,
    /// What it takes, at most: what was added since it was last summed up, and that sum.
    bytes: usize,
    most: Room,
    /// Members that had to make room.
    forgotten: u64,
}

/// What all of it may take.
#[derive(Debug)]
struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_BYTES)
    }
}

/// A fetch from a partition.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub at: At<'a>,
    /// When the client asked first for this offset.
    pub ns: u64,
    /// −1 if unknown.
    pub offset: i64,
}

/// What is told of a member, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub client: &'a Client,
    pub line: Line,
    pub now_ns: u64,
}

/// The member has lost its place in the group: it joins anew.
fn is_out(code: i16) -> bool {
    error::ends_membership(code)
}

impl Groups {
    /// Clients, and the members of all of them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.clients.len(), self.clients.values().map(Vec::len).sum())
    }

    /// Holds no more than this part of what it may.
    pub fn hold_at_most(&mut self, part: f64) {
        self.most = Room((MAX_BYTES as f64 * part) as usize);
    }

    /// What it takes, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many members had to make room for others since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn summed_up(&self) -> usize {
        let of = |(client, list): (&Client, &Vec<Instance>)| {
            let id = client.id.as_ref().map_or(0, |id| id.len());
            list.iter().map(Instance::bytes).fold(CLIENT_BYTES.saturating_add(id), usize::saturating_add)
        };
        self.clients.iter().map(of).fold(0, usize::saturating_add)
    }

    /// Forgets the half of the clients that was silent longest, again and again until no more than three quarters are held.
    fn make_room(&mut self) {
        self.bytes = self.summed_up();
        while self.bytes > self.most.0.saturating_mul(3) / 4 && !self.clients.is_empty() {
            let heard = |list: &Vec<Instance>| list.iter().map(|one| one.heard_ns).max().unwrap_or(0);
            let mut times: Vec<u64> = self.clients.values().map(heard).collect();
            let half = times.len() / 2;
            let (_, &mut median, _) = times.select_nth_unstable(half);
            let forgotten = &mut self.forgotten;
            self.clients.retain(|_, list| {
                let is_kept = heard(list) > median;
                if !is_kept {
                    *forgotten = forgotten.saturating_add(list.len() as u64);
                }
                is_kept
            });
            self.bytes = self.summed_up();
        }
        let Self { clients, connections, excluded, .. } = self;
        connections.retain(|_, client| clients.contains_key(client));
        excluded.retain(|connection, _| connections.contains_key(connection));
    }

    /// A member was heard. Returns whether that is news.
    pub fn member(&mut self, heard: Heard<'_>, member: &kafka::Member<'_>) -> bool {
        use kafka::MemberState::{Joining, Leaving, Pausing, Stable};
        let error = match error::name(member.error) {
            Some("NONE" | "REBALANCE_IN_PROGRESS" | "MEMBER_ID_REQUIRED") => false,
            _ if is_out(member.error) => true,
            // Nothing is known of it by that.
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

    /// An assignment follows. Returns whether that is news: the member's former one is void.
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

    /// A member is to read a partition.
    pub fn assigned(&mut self, heard: Heard<'_>, group: &str, member: &str, at: At<'_>) -> bool {
        let name = at.name.map_or(0, str::len);
        self.bytes = self.bytes.saturating_add(PARTITION_BYTES + TOPIC_BYTES).saturating_add(name);
        let Some(instance) = self.instance(heard, group, member) else { return false };
        instance.assign(at, heard.now_ns)
    }

    /// What the partitions are cannot be told: tasks of Kafka Streams.
    pub fn assigned_unseen(&mut self, heard: Heard<'_>, group: &str, member: &str) -> bool {
        let Some(instance) = self.instance(heard, group, member) else { return false };
        instance.unknown()
    }

    /// An offset is committed for a group: who does so reads the partition. `member` is empty for who takes partitions by itself.
    pub fn reads(&mut self, heard: Heard<'_>, group: &str, member: &str, at: At<'_>) -> bool {
        if member.is_empty() {
            let known = self.clients.get(heard.client).into_iter().flatten();
            if known.filter(|instance| *instance.member.group == *group).any(|instance| {
                instance.speaks_on == Some(heard.line.connection) && !instance.member.id.is_empty()
                    || instance.has(at, heard.now_ns) == Has::Yes
            }) {
                return false;
            }
        }
        let name = at.name.map_or(0, str::len);
        let Some(instance) = self.instance(heard, group, member) else { return false };
        let comes = instance.comes(heard.line.connection, false);
        let is_new = instance.is_seen_to_read(at);
        if is_new {
            self.bytes = self.bytes.saturating_add(PARTITION_BYTES + TOPIC_BYTES).saturating_add(name);
        }
        comes | is_new
    }

    /// Where a group stands in a partition, as a member asked. Others may ask too, who read it for nobody or not at all.
    pub fn position(&mut self, heard: Heard<'_>, group: &str, at: At<'_>, offset: i64) -> bool {
        let (mut is_known, mut others) = (false, 0_usize);
        for instance in self.clients.get_mut(heard.client).into_iter().flatten() {
            others = others.saturating_add(usize::from(*instance.member.group != *group));
            // It has asked for another partition before.
            let is_other = *instance.member.group != *group || instance.is_asking(at);
            is_known |= !is_other;
            if !is_other && instance.speaks_on == Some(heard.line.connection) {
                instance.position(at, offset, heard.now_ns);
            }
        }
        if is_known || others >= MAX_ASKED || offset < 0 {
            return false;
        }
        let name = at.name.map_or(0, str::len);
        self.bytes = self.bytes.saturating_add(PARTITION_BYTES + TOPIC_BYTES).saturating_add(name);
        let Some(instance) = self.instance(heard, group, "") else { return false };
        instance.comes(heard.line.connection, false);
        instance.asks(at, offset, heard.now_ns);
        true
    }

    /// For whom a connection fetches from a partition. The second tells whether that is news for others.
    pub fn reader(&mut self, client: &Client, line: Line, asked: Asked<'_>) -> (Reader, bool) {
        let Some(list) = self.clients.get_mut(client) else { return (Reader::Unknown, false) };
        let of = |instance: &Instance| Reader::Member(Arc::clone(&instance.member));
        // Who speaks or has read on this connection.
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
        // It was told that it has the partition no more, and had asked again before it took note.
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
                // From what was heard by the way, as by an agent that came later, nothing is concluded for good.
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
                // Where nobody could be it, something was not heard.
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
        let Some(list) = self.clients.get_mut(&client) else { return false };
        for instance in &mut *list {
            instance.hangs_up(connection, now_ns);
        }
        list.retain(|instance| !instance.is_over());
        if list.is_empty() {
            self.clients.remove(&client);
        }
        true
    }

    /// The member of this client, known or new.
    fn instance(&mut self, heard: Heard<'_>, group: &str, member: &str) -> Option<&mut Instance> {
        if self.bytes > self.most.0 {
            self.make_room();
        }
        self.connections.insert(heard.line.connection, heard.client.clone());
        let id = heard.client.id.as_ref().map_or(0, |id| id.len());
        let list = self.clients.entry(heard.client.clone()).or_insert_with(|| {
            self.bytes = self.bytes.saturating_add(CLIENT_BYTES).saturating_add(id);
            vec![]
        });
        let speaks = Some(heard.line.connection);
        let same = |one: &Instance| *one.member.group == *group && *one.member.id == *member;
        // The same under another name: it was given one, or has lost its place and joins again.
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
                    self.forgotten = self.forgotten.saturating_add(1);
                }
                self.bytes = self.bytes.saturating_add(MEMBER_BYTES).saturating_add(group.len());
                self.bytes = self.bytes.saturating_add(member.len());
                self.count = self.count.saturating_add(1);
                list.push(Instance::new(self.count, group, member));
                list.len().saturating_sub(1)
            }
        };
        let instance = list.get_mut(place)?;
        instance.heard_ns = heard.now_ns;
        Some(instance)
    }
}

enum Found {
    None,
    Group(Arc<str>),
    /// No other could be it, but it is not known to read this.
    Perhaps(usize),
    One(usize),
}

/// Who of these reads the partition.
fn find(list: &[Instance], of: &[usize], Asked { at, ns, offset }: Asked<'_>) -> Found {
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
        // All of them were told where to begin, and one of them begins here.
        let begins: Vec<_> = sure.iter().filter(|(_, one)| one.began_at(at) == Some(offset)).collect();
        let are_told = perhaps.is_empty() && sure.iter().all(|(_, one)| one.began_at(at).is_some());
        return match begins.as_slice() {
            [(place, _)] if are_told => Found::One(*place),
            _ => Found::None,
        };
    }
    // In a group a partition is one member's: the last that got it, and rather one that is heard than one that was.
    let rank = |(_, one): &&(usize, &Instance)| (!one.member.id.is_empty(), one.since(at));
    match (sure.iter().max_by_key(rank), perhaps.as_slice()) {
        (Some((place, _)), _) => Found::One(*place),
        (None, [(place, _)]) => Found::Perhaps(*place),
        (None, _) => Found::Group(first),
    }
}

#[cfg(test)]
mod tests;
