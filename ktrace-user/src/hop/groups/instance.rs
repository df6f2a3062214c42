//! One member of a group, and what it may read.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Line, Member, TopicPartition};
use crate::seen::ConnectionId;

/// Partitions of one member that are kept. With more, its assignment counts as unknown.
const MAX_PARTITIONS: usize = 64 << 10;

/// What a partition takes, in bytes, under its topic's id and name; and what a topic takes beside
/// its name.
pub(super) const PARTITION_BYTES: usize = 96;
pub(super) const TOPIC_BYTES: usize = 256;

/// Connections of one member that are kept.
const MAX_LINES: usize = 256;

/// What a member takes, in bytes, beside its names and its assignment.
pub(super) const MEMBER_BYTES: usize = size_of::<Instance>() + size_of::<Member>() + 128;

/// Since when a partition is read, and from where.
#[derive(Clone, Copy, Debug, Default)]
struct Begin {
    since_ns: u64,
    /// The committed offset that the member asked for when it began, −1 if there was none; `None`
    /// before it has asked.
    position: Option<i64>,
}

/// Partitions, by the names of their topics and by their ids.
#[derive(Debug, Default)]
struct Assignment {
    by_name: HashMap<Box<str>, BTreeMap<i32, Begin>>,
    by_id: HashMap<u128, BTreeMap<i32, Begin>>,
    len: usize,
}

impl Assignment {
    /// What it takes, in bytes, about.
    fn bytes(&self) -> usize {
        let names: usize = self.by_name.keys().map(|name| name.len()).sum();
        let topics = self.by_name.len().saturating_add(self.by_id.len());
        let partitions = self.len.saturating_mul(PARTITION_BYTES);
        names.saturating_add(topics.saturating_mul(TOPIC_BYTES)).saturating_add(partitions)
    }

    fn begin(&self, at: TopicPartition<'_>) -> Option<Begin> {
        let by_id = at.id.and_then(|id| self.by_id.get(&id));
        let by_id = by_id.and_then(|partitions| partitions.get(&at.partition));
        let by_name = || self.by_name.get(at.name?)?.get(&at.partition);
        by_id.or_else(by_name).copied()
    }

    fn insert(&mut self, at: TopicPartition<'_>, begin: Begin) {
        self.len = self.len.saturating_add(1);
        if let Some(id) = at.id {
            self.by_id.entry(id).or_default().insert(at.partition, begin);
        }
        if let Some(name) = at.name {
            self.by_name.entry(name.into()).or_default().insert(at.partition, begin);
        }
    }

    /// The member gets its committed offset: it reads nothing before that.
    fn position(&mut self, at: TopicPartition<'_>, offset: i64, now_ns: u64) {
        let by_id = at.id.and_then(|id| self.by_id.get_mut(&id));
        let by_name = at.name.and_then(|name| self.by_name.get_mut(name));
        for partitions in [by_id, by_name].into_iter().flatten() {
            if let Some(begin @ Begin { position: None, .. }) = partitions.get_mut(&at.partition) {
                *begin = Begin { since_ns: now_ns, position: Some(offset) };
            }
        }
    }
}

/// Whether a member reads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    No,
    /// Its assignment is not known, or not all of it.
    Unknown,
    Yes,
}

/// A connection on which a member fetches.
#[derive(Debug)]
pub(super) struct Read {
    pub line: Line,
    /// The first partition that it fetched, as a hash.
    first: u64,
    /// It has fetched other partitions, too.
    is_of_several: bool,
}

/// One member, or a consumer that assigns its partitions itself and is known by its commits.
#[derive(Debug)]
pub(super) struct Instance {
    /// Unique among the members of all clients.
    pub number: u64,
    pub member: Arc<Member>,
    /// The connection of its last group request.
    pub speaks_on: Option<ConnectionId>,
    /// The connections that it fetches on.
    pub reads_on: Vec<Read>,
    assignment: Assignment,
    /// The previous assignment, and when it ended.
    former: (Assignment, u64),
    /// Its assignment is known as a whole.
    is_whole: bool,
    /// It has only asked for committed offsets so far: it may read those partitions, from those
    /// offsets on.
    has_only_asked: bool,
    /// It has left the group or was removed from it.
    is_lost: bool,
    /// When its last connection ended, in nanoseconds since 1970.
    silent_since: Option<u64>,
    /// When it sent its last group request, in nanoseconds since 1970.
    pub heard_ns: u64,
}

impl Instance {
    pub fn new(number: u64, group: &str, id: &str) -> Self {
        let member = Member { group: group.into(), id: id.into(), generation: None };
        Self {
            number,
            member: Arc::new(member),
            speaks_on: None,
            reads_on: vec![],
            assignment: Assignment::default(),
            former: (Assignment::default(), 0),
            is_whole: false,
            has_only_asked: false,
            is_lost: false,
            silent_since: None,
            heard_ns: 0,
        }
    }

    /// What it takes, in bytes, about.
    pub fn bytes(&self) -> usize {
        let names = self.member.group.len().saturating_add(self.member.id.len());
        let lines = self.reads_on.capacity().saturating_mul(size_of::<Read>());
        let assigned = self.assignment.bytes().saturating_add(self.former.0.bytes());
        MEMBER_BYTES.saturating_add(names).saturating_add(lines).saturating_add(assigned)
    }

    /// Whether this is its first request, and one that begins a membership.
    pub fn is_new(&self, begins: bool) -> bool {
        begins && self.speaks_on.is_none() && self.assignment.len == 0
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether nothing of it is needed: it has no connection, and would join again.
    pub fn is_over(&self) -> bool {
        self.speaks_on.is_none() && self.reads_on.is_empty() && (self.is_lost || self.member.id.is_empty())
    }

    pub fn silent_since(&self) -> Option<u64> {
        self.silent_since
    }

    /// It sends a group request. One that joins reads nothing before it is assigned.
    pub fn comes(&mut self, on: ConnectionId, joins: bool) -> bool {
        let news = self.speaks_on != Some(on) || self.is_lost || (joins && !self.is_whole);
        self.speaks_on = Some(on);
        self.silent_since = None;
        self.is_lost = false;
        self.is_whole |= joins;
        news
    }

    /// It leaves, or is removed: it reads nothing from now on.
    pub fn out(&mut self, now_ns: u64, is_lost: bool) -> bool {
        self.begin(now_ns);
        self.is_lost = true;
        if !is_lost {
            self.speaks_on = None;
        }
        true
    }

    pub fn rename(&mut self, id: &str) {
        self.has_only_asked = false;
        self.member = Arc::new(Member { id: id.into(), generation: None, ..(*self.member).clone() });
    }

    pub fn generation(&mut self, generation: i32) -> bool {
        if self.member.generation == Some(generation) {
            return false;
        }
        self.member = Arc::new(Member { generation: Some(generation), ..(*self.member).clone() });
        true
    }

    /// A new assignment begins.
    pub fn begin(&mut self, now_ns: u64) {
        self.former = (std::mem::take(&mut self.assignment), now_ns);
        self.is_whole = true;
    }

    pub fn assign(&mut self, at: TopicPartition<'_>, now_ns: u64) -> bool {
        if self.assignment.len >= MAX_PARTITIONS {
            self.is_whole = false;
            return false;
        }
        // A partition that it keeps counts from when it was first assigned.
        let begin = self.former.0.begin(at).unwrap_or(Begin { since_ns: now_ns, position: None });
        self.assignment.insert(at, begin);
        true
    }

    /// Its partitions are not on the wire.
    pub fn unknown(&mut self) -> bool {
        std::mem::replace(&mut self.is_whole, false)
    }

    /// It asks for the committed offset of a partition without being a member.
    pub fn asks(&mut self, at: TopicPartition<'_>, offset: i64, now_ns: u64) {
        if self.assignment.len < MAX_PARTITIONS {
            self.has_only_asked = true;
            self.assignment.insert(at, Begin { since_ns: now_ns, position: Some(offset) });
        }
    }

    /// Whether it has only asked for offsets so far, and not for this partition's.
    pub fn is_asking(&self, at: TopicPartition<'_>) -> bool {
        self.has_only_asked && self.assignment.begin(at).is_none()
    }

    /// Whether it may begin to read here: if it has only asked for offsets, at exactly that offset.
    pub fn may_begin(&self, at: TopicPartition<'_>, offset: i64) -> bool {
        !self.has_only_asked || self.began_at(at) == Some(offset)
    }

    /// Whether all that it may read is known.
    pub fn is_known(&self) -> bool {
        self.is_whole || self.has_only_asked
    }

    /// It commits a partition of an assignment that was made before the capture began.
    pub fn is_seen_to_read(&mut self, at: TopicPartition<'_>) -> bool {
        self.has_only_asked = false;
        if self.is_whole || self.assignment.begin(at).is_some() || self.assignment.len >= MAX_PARTITIONS {
            return false;
        }
        self.assignment.insert(at, Begin::default());
        true
    }

    /// Since when it has the partition, in nanoseconds since 1970; 0 if it has not, or since before
    /// the capture began.
    pub fn since(&self, at: TopicPartition<'_>) -> u64 {
        self.assignment.begin(at).map_or(0, |begin| begin.since_ns)
    }

    /// It gets the committed offset of a partition.
    pub fn position(&mut self, at: TopicPartition<'_>, offset: i64, now_ns: u64) {
        self.assignment.position(at, offset, now_ns);
    }

    /// The committed offset at which it began to read the partition, if there was one.
    pub fn began_at(&self, at: TopicPartition<'_>) -> Option<i64> {
        self.assignment.begin(at)?.position.filter(|position| *position >= 0)
    }

    /// Whether it had the partition before its last assignment.
    pub fn had(&self, at: TopicPartition<'_>) -> bool {
        self.former.0.begin(at).is_some()
    }

    /// Whether a fetch at this time may be its own.
    pub fn has(&self, at: TopicPartition<'_>, asked_ns: u64) -> Has {
        let (former, until_ns) = &self.former;
        let had =
            |assignment: &Assignment| assignment.begin(at).is_some_and(|begin| begin.since_ns <= asked_ns);
        if had(&self.assignment) || (asked_ns <= *until_ns && had(former)) {
            Has::Yes
        } else if self.is_known() {
            Has::No
        } else {
            Has::Unknown
        }
    }

    pub fn reads(&mut self, line: Line, at: TopicPartition<'_>) {
        if self.reads_on.len() < MAX_LINES {
            self.reads_on.push(Read { line, first: at.place(), is_of_several: false });
        }
    }

    /// It fetches on a connection known to be its own. Returns whether that connection is now first
    /// seen with a second partition.
    pub fn reads_also(&mut self, line: Line, at: TopicPartition<'_>) -> bool {
        let read = self.reads_on.iter_mut().find(|read| read.line == line);
        let is_another = |read: &&mut Read| !read.is_of_several && read.first != at.place();
        let Some(read) = read.filter(is_another) else { return false };
        read.is_of_several = true;
        true
    }

    /// Whether a further connection to this broker, with this partition, may be its own: some
    /// clients open one for each partition.
    pub fn may_read_beside(&self, broker: SocketAddr, at: TopicPartition<'_>) -> bool {
        let mut there = self.reads_on.iter().filter(|read| read.line.broker == broker);
        there.all(|read| !read.is_of_several && read.first != at.place())
    }

    /// One of its connections has ended.
    pub fn hangs_up(&mut self, connection: ConnectionId, now_ns: u64) {
        self.reads_on.retain(|read| read.line.connection != connection);
        if self.speaks_on == Some(connection) {
            self.speaks_on = None;
        }
        if self.speaks_on.is_none() && self.reads_on.is_empty() {
            self.silent_since.get_or_insert(now_ns);
        }
    }
}
