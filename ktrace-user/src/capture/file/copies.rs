//! Packets that a capture holds more than once.
//!
//! A capture on all interfaces has a packet once for each that it passes: on a veth, on the bridge,
//! tagged on the card. And where addresses are translated between two of them (NAT), it has the
//! same conversation twice, under different ends. Sequence numbers pass all of these unchanged, as
//! live capture uses them to find both ends of a connection (`worker/twins.rs`). Here there are the
//! bytes too: a connection that begins as another one did a moment before, with the same numbers
//! and the same first bytes in both directions, is the same conversation, and its packets are taken
//! for that one's. Until that is known its packets are held; should its bytes turn out to be others
//! later, it is one of its own.

use std::collections::{HashMap, VecDeque};

use ktrace_kafka::Push;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::seen::{ConnectionId, Direction, Ends, Segment};

/// Packets with data of a connection that are remembered: copies of a packet stand a few behind it.
const MARKS: usize = 8;

/// Bytes at the beginning and at the end of a packet by which it is known.
const KNOWN_BY: usize = 256;

/// Bytes by which packets of one place and of different lengths differ: a request begins with its
/// size, API and id.
const HEAD: usize = 16;

/// How far apart copies are at most. The kernel takes microseconds from one interface to the next;
/// merged captures of two hosts differ by their clocks.
pub const APART_NS: u64 = 1_000_000_000;

/// And by packets of the file.
pub const APART_PACKETS: u64 = 16_384;

/// What is held of a connection until it is known whether it is a copy: a handshake, a request and
/// its response are five packets; large ones are cut into more.
pub const MAX_HELD: usize = 64;

/// Bytes that are held of all such connections. With more, the first is decided by what is known.
pub const MAX_HELD_BYTES: usize = 64 << 20;

/// Copies of one connection: a packet passes a few interfaces, and seldom more than one
/// translation. Further ones are taken for connections of their own.
pub const MAX_COPIES: usize = 8;

/// Beginnings of connections that are remembered.
const MAX_BEGINNINGS: usize = 16_384;

/// Packets with data by which the beginning of a connection older than the capture is known.
const BEGINNING: usize = 4;

/// By what a packet with data is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    direction: Direction,
    seq: u32,
    len: u32,
    print: u64,
    /// The first bytes, zeros behind them: interfaces may cut a segment differently.
    head: [u8; HEAD],
    /// What a copy has too, and what is sent again need not.
    ack: u32,
    flags: u8,
}

/// What names a packet of a connection whose ends are not known.
type Name = (bool, u32, u32, u64);

impl Mark {
    /// `None` for packets without data.
    pub fn of(segment: &Segment<'_>) -> Option<Self> {
        let Segment { rst, push: Push { direction, seq, len, bytes: payload, ack, syn, fin, .. }, .. } =
            *segment;
        let tail = payload.get(payload.len().saturating_sub(KNOWN_BY)..)?;
        let print = match payload.get(..KNOWN_BY) {
            Some(head) => xxh3_64_with_seed(tail, xxh3_64(head)),
            None => xxh3_64(payload),
        };
        let mut head = [0; HEAD];
        head.iter_mut().zip(payload).for_each(|(head, byte)| *head = *byte);
        let flags = [ack.is_some(), syn, fin, rst].into_iter().fold(0, |all, flag| all << 1 | u8::from(flag));
        let ack = ack.unwrap_or_default();
        (len > 0).then_some(Self { direction, seq, len, print, head, ack, flags })
    }

    fn name(&self) -> Name {
        (self.direction == Direction::ToBroker, self.seq, self.len, self.print)
    }

    /// Whether both have the same bytes, `None` if they are of other places, or of different
    /// lengths.
    fn same_bytes(&self, other: &Self) -> Option<bool> {
        if (self.direction, self.seq) != (other.direction, other.seq) {
            return None;
        }
        if self.len == other.len {
            return Some(self.print == other.print);
        }
        let both = usize::try_from(self.len.min(other.len)).map_or(HEAD, |both| both.min(HEAD));
        (self.head.get(..both) != other.head.get(..both)).then_some(false)
    }
}

/// The last packets with data of a connection.
#[derive(Debug, Default)]
pub struct Marks {
    last: VecDeque<Mark>,
    seen: usize,
}

impl Marks {
    /// Adds one. Returns whether it was there.
    pub fn add(&mut self, mark: Mark) -> bool {
        if self.last.contains(&mark) {
            return true;
        }
        if self.last.len() >= MARKS {
            self.last.pop_front();
        }
        self.last.push_back(mark);
        self.seen = self.seen.saturating_add(1);
        false
    }

    /// Whether it has the same bytes as the packet of this place, if that is remembered.
    pub fn same_bytes(&self, mark: &Mark) -> Option<bool> {
        self.last.iter().find_map(|known| known.same_bytes(mark))
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Whether the connection is in its beginning.
    pub fn are_few(&self) -> bool {
        self.seen <= BEGINNING
    }
}

/// A packet that is held, without its payload, and that.
#[derive(Debug)]
pub struct Kept {
    pub segment: Segment<'static>,
    pub payload: Box<[u8]>,
    pub closes: bool,
    pub mark: Option<Mark>,
}

/// What a connection is to others.
#[derive(Debug, Default)]
pub struct Twin {
    pub state: State,
    /// It began with the same numbers as this one.
    pub like: Option<Original>,
    /// Connections of which it is to be found out whether they are copies of this one.
    pub suspects: Vec<Ends>,
}

impl Twin {
    /// It has nothing to do with any other.
    pub fn is_nothing(&self) -> bool {
        matches!(self.state, State::Own) && self.like.is_none() && self.suspects.is_empty()
    }
}

/// A connection by its ends, and by its number, as others may have the same ends later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    pub ends: Ends,
    pub id: ConnectionId,
}

#[derive(Debug, Default)]
pub enum State {
    /// None of them is a copy of the other, as far as is known.
    #[default]
    Own,
    Suspect(Suspect),
    CopyOf(Original),
}

/// A connection that may be a copy of another one.
#[derive(Debug)]
pub struct Suspect {
    pub of: Original,
    pub held: Vec<Kept>,
    /// Packets with the same bytes were seen in both: the client's, the broker's.
    same: [bool; 2],
}

/// What a suspect is, by its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Unknown,
    Copy,
    /// It says something else.
    Other,
}

impl Suspect {
    pub fn new(of: Original) -> Self {
        Self { of, held: Vec::new(), same: [false; 2] }
    }

    /// A packet of one of them was compared with that of the other.
    pub fn compared(&mut self, mark: &Mark, same: Option<bool>) -> Verdict {
        match same {
            Some(true) => self.same[usize::from(mark.direction == Direction::ToClient)] = true,
            Some(false) => return Verdict::Other,
            None => {}
        }
        if self.same == [true; 2] { Verdict::Copy } else { Verdict::Unknown }
    }

    /// A packet of the original has come.
    pub fn original_at(&mut self, mark: &Mark) -> Verdict {
        let same = self.held.iter().flat_map(|kept| kept.mark).find_map(|own| own.same_bytes(mark));
        self.compared(mark, same)
    }

    /// What it is taken for when it has been held for long enough: numbers of 32 bits and bytes
    /// that are the same by chance are not to be expected. `begins`: its SYN was seen.
    pub fn at_last(&self, begins: bool) -> Verdict {
        let [asked, answered] = self.same;
        // What is asked differs sooner than what is answered.
        if asked || (answered && !begins) { Verdict::Copy } else { Verdict::Other }
    }
}

/// How the connections of the last moment have begun.
#[derive(Debug, Default)]
pub struct Copies {
    openings: Recent<u32>,
    beginnings: Recent<Name>,
    /// Connections that are held, with when that began: time, and number of the packet. They may be
    /// decided by now.
    pub suspects: VecDeque<(Original, u64, u64)>,
    /// Connections that are over, with when that was.
    pub closed: VecDeque<(Original, u64, u64)>,
    /// Bytes of the suspects' packets.
    pub held_bytes: usize,
}

/// The last of them, and when they were.
#[derive(Debug)]
struct Recent<K> {
    by_key: HashMap<K, (Original, u64)>,
    order: VecDeque<K>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Recent<K> {
    /// Whose this is, if another's and of a moment ago. Else it is this one's from now on.
    fn of(&mut self, key: K, own: Original, now_ns: u64) -> Option<Original> {
        if let Some((known, since_ns)) = self.by_key.get(&key)
            && known.ends != own.ends
            && since_ns.abs_diff(now_ns) <= APART_NS
        {
            return Some(*known);
        }
        if self.by_key.insert(key, (own, now_ns)).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_BEGINNINGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        None
    }
}

impl Copies {
    /// The connection that opened with the same number a moment before.
    pub fn opened(&mut self, isn: u32, own: Original, now_ns: u64) -> Option<Original> {
        self.openings.of(isn, own, now_ns)
    }

    /// The connection in whose beginning the same packet stood a moment before.
    pub fn began(&mut self, mark: &Mark, own: Original, now_ns: u64) -> Option<Original> {
        self.beginnings.of(mark.name(), own, now_ns)
    }
}
