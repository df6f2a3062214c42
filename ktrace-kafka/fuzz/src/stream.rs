//! A whole connection: a conversation of a client and a broker (`talk.bin`), and a script that says
//! what becomes of its segments. They are cut, lost, swapped, sent again, sent over each other,
//! acknowledged or not, copied in part, damaged, and mixed with bytes of the fuzzer's own.

use std::cell::RefCell;
use std::collections::HashSet;

use ktrace_kafka::Speaks;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::counters::Counters;
use ktrace_kafka::{Connection, Direction, Limits, Push, Scratch};

use super::input::Input;
use super::watch::{Reported, Watch};

/// Who sends, and the bytes.
type Message = (Direction, &'static [u8]);

/// What is said where nothing is lost: a byte for who sends, an int32 length, the frame.
static TALK: &[u8] = include_bytes!("../talk.bin");

const ROOMY: Limits = Limits {
    frame_bytes: 64 << 10,
    held_bytes: 16 << 10,
    pending: 64,
    pending_bytes: 64 << 10,
    decompressed_bytes: 64 << 10,
    exchange_bytes: 128 << 10,
    kept_bytes: 64 << 10,
    search_bytes: 64 << 10,
};

const TIGHT: Limits = Limits {
    frame_bytes: 600,
    held_bytes: 3 << 10,
    pending: 3,
    pending_bytes: 400,
    decompressed_bytes: 64 << 10,
    exchange_bytes: 300,
    kept_bytes: 64 << 10,
    search_bytes: 1 << 10,
};

/// More than a request that waits takes beside its bytes.
const PENDING_BYTES: usize = 128;

/// More than the partitions that a script names take.
const SESSIONS_BYTES: usize = 1 << 20;

/// The longest segment that a script makes.
const MAX_SEGMENT: usize = 4096;

/// A talk as this target wants it.
#[must_use]
pub fn encode(said: &[(Direction, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![];
    for (direction, bytes) in said {
        out.push(u8::from(*direction == Direction::ToClient));
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
    }
    out
}

fn decode() -> Vec<Message> {
    let (mut input, mut talk) = (Input(TALK), vec![]);
    while !input.is_empty() {
        let direction = if input.u8() == 0 { Direction::ToBroker } else { Direction::ToClient };
        let len = input.u32() as usize;
        talk.push((direction, input.take(len)));
    }
    talk
}

/// Operations of one script: more make runs slow and show nothing more.
const MAX_OPERATIONS: usize = 48;

struct Segment {
    direction: Direction,
    seq: u32,
    bytes: Vec<u8>,
}

/// A connection at work.
struct Wire<'x> {
    scratch: &'x mut Scratch,
    connection: Connection,
    watch: Watch,
    limits: Limits,
    time_ns: u64,
    /// Where each direction's next byte goes.
    next: [u32; 2],
    /// Whether segments say what their sender has received.
    acks: bool,
    last: Option<Segment>,
    /// Segments that are on their way for longer.
    late: Vec<Segment>,
}

impl Wire<'_> {
    fn next(&mut self, direction: Direction) -> &mut u32 {
        &mut self.next[usize::from(direction == Direction::ToClient)]
    }

    fn ack(&self, direction: Direction) -> Option<u32> {
        self.acks.then(|| self.next[usize::from(direction == Direction::ToBroker)])
    }

    fn push(&mut self, push: Push<'_>) {
        self.time_ns += 1000;
        self.connection.push(self.scratch, Push { time_ns: self.time_ns, ..push }, &mut self.watch);
        let Limits { frame_bytes, held_bytes, pending_bytes, pending, .. } = self.limits;
        // A queue has up to twice the places that it needs; a client id has 1 KiB at most.
        let queue = (pending + 4) * (2 * PENDING_BYTES + 1024);
        let bound = 2 * (frame_bytes + 4 + held_bytes) + 2 * pending_bytes + queue + SESSIONS_BYTES;
        assert!(self.connection.held_bytes() <= bound, "{} held", self.connection.held_bytes());
        if matches!(self.connection.speaks(), Speaks::Tls | Speaks::Other) {
            assert_eq!(self.connection.held_bytes(), 0);
        }
    }

    fn plain<'a>(&self, direction: Direction, seq: u32, bytes: &'a [u8]) -> Push<'a> {
        Push {
            direction,
            seq,
            ack: self.ack(direction),
            syn: false,
            fin: false,
            bytes,
            len: bytes.len() as u32,
            time_ns: 0,
        }
    }

    fn send(&mut self, direction: Direction, bytes: &[u8]) {
        let seq = *self.next(direction);
        self.deliver(&Segment { direction, seq, bytes: bytes.to_vec() });
        *self.next(direction) = seq.wrapping_add(bytes.len() as u32);
        self.last = Some(Segment { direction, seq, bytes: bytes.to_vec() });
    }

    fn deliver(&mut self, segment: &Segment) {
        self.push(self.plain(segment.direction, segment.seq, &segment.bytes));
    }

    fn syn(&mut self, direction: Direction) {
        let seq = self.next(direction).wrapping_sub(1);
        self.push(Push { syn: true, ..self.plain(direction, seq, &[]) });
    }
}

/// All that can be reported of the talk, offsets with and without the broker's answer.
fn whole(talk: &[Message]) -> HashSet<Reported> {
    let mut scratch = Scratch::new(ROOMY, Extractor::default());
    let mut wire = wire(&mut scratch, ROOMY, 1);
    wire.syn(Direction::ToBroker);
    wire.syn(Direction::ToClient);
    for (direction, bytes) in talk {
        wire.send(*direction, bytes);
    }
    wire.watch.reported.into_iter().collect()
}

fn wire(scratch: &mut Scratch, limits: Limits, isn: u32) -> Wire<'_> {
    scratch.limits = limits;
    scratch.counters = Counters::default();
    Wire {
        scratch,
        connection: Connection::default(),
        watch: Watch::default(),
        limits,
        time_ns: 0,
        next: [isn, isn.wrapping_mul(3)],
        acks: true,
        last: None,
        late: vec![],
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    thread_local! {
        static TALK: (Vec<Message>, HashSet<Reported>) = {
            let talk = decode();
            let whole = whole(&talk);
            assert!(whole.len() > 20, "the talk has records");
            (talk, whole)
        };
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(ROOMY, Extractor::default()));
    }
    TALK.with(|(talk, whole)| SCRATCH.with_borrow_mut(|scratch| script(data, talk, whole, scratch)));
}

fn script(data: &[u8], talk: &[Message], whole: &HashSet<Reported>, scratch: &mut Scratch) {
    let mut input = Input(data);
    let start = input.u8();
    let limits = if start & 1 == 0 { ROOMY } else { TIGHT };
    let mut wire = wire(scratch, limits, input.u32());
    wire.acks = start & 2 == 0;
    if start & 4 == 0 {
        wire.syn(Direction::ToBroker);
    }
    if start & 8 == 0 {
        wire.syn(Direction::ToClient);
    }
    // Whether all bytes so far are the talk's, at places where they could have been.
    let mut honest = true;
    let mut place = usize::from(input.u8());
    let mut rest: &[u8] = &[];
    let mut direction = Direction::ToBroker;
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        if rest.is_empty() {
            (direction, rest) = talk[place % talk.len()];
            place += 1;
        }
        let operation = input.u8();
        match operation % 20 {
            // A message's rest, or a part of it.
            0 => {
                wire.send(direction, rest);
                rest = &[];
            }
            1 => {
                let (head, tail) = rest.split_at(usize::from(input.u8()).min(rest.len()));
                wire.send(direction, head);
                rest = tail;
            }
            // Lost.
            2 => {
                let (head, tail) = rest.split_at(usize::from(input.u16()).min(rest.len()));
                *wire.next(direction) = wire.next(direction).wrapping_add(head.len() as u32);
                rest = tail;
            }
            // Late.
            3 => {
                let (head, tail) = rest.split_at(usize::from(input.u8()).min(rest.len()));
                let seq = *wire.next(direction);
                wire.late.push(Segment { direction, seq, bytes: head.to_vec() });
                *wire.next(direction) = seq.wrapping_add(head.len() as u32);
                rest = tail;
            }
            4 => {
                let which = usize::from(input.u8());
                if !wire.late.is_empty() {
                    let segment = wire.late.swap_remove(which % wire.late.len());
                    wire.deliver(&segment);
                }
            }
            // Again, or a part of it.
            5 => {
                let from = usize::from(input.u8());
                if let Some(last) = &wire.last {
                    let from = from.min(last.bytes.len());
                    let segment = Segment {
                        direction: last.direction,
                        seq: last.seq.wrapping_add(from as u32),
                        bytes: last.bytes[from..].to_vec(),
                    };
                    wire.deliver(&segment);
                }
            }
            // Copied in part.
            6 => {
                let copied = usize::from(input.u8()).min(rest.len());
                let seq = *wire.next(direction);
                wire.push(Push { len: rest.len() as u32, ..wire.plain(direction, seq, &rest[..copied]) });
                *wire.next(direction) = seq.wrapping_add(rest.len() as u32);
                rest = &[];
            }
            7 => wire.acks = !wire.acks,
            8 => place = usize::from(input.u8()),
            9 => wire.connection.give_up_holes(wire.scratch, &mut wire.watch),
            10 => wire.connection.shed(wire.scratch),
            // Messages in one segment.
            11 => {
                let mut bytes = rest.to_vec();
                while talk[place % talk.len()].0 == direction && bytes.len() < MAX_SEGMENT {
                    bytes.extend(talk[place % talk.len()].1);
                    place += 1;
                }
                wire.send(direction, &bytes);
                rest = &[];
            }
            // From here on nothing need be as it was said.
            12 => {
                honest = false;
                let mut bytes = rest.to_vec();
                let at = usize::from(input.u16()) % bytes.len();
                bytes[at] = input.u8();
                wire.send(direction, &bytes);
                rest = &[];
            }
            13 => {
                honest = false;
                let bytes = input.take(usize::from(operation / 20 * 8));
                wire.send(direction, bytes);
            }
            14 => {
                honest = false;
                *wire.next(direction) = wire.next(direction).wrapping_add(input.u32());
            }
            15 => {
                honest = false;
                wire.syn(direction);
            }
            16 => {
                honest = false;
                let seq = *wire.next(direction);
                wire.push(Push { fin: true, ..wire.plain(direction, seq, rest) });
                *wire.next(direction) = seq.wrapping_add(rest.len() as u32 + 1);
                rest = &[];
            }
            17 => {
                honest = false;
                let (seq, ack) = (*wire.next(direction), input.u32());
                wire.push(Push { ack: Some(ack), ..wire.plain(direction, seq, &[]) });
            }
            18 => {
                honest = false;
                let bytes = input.take(usize::from(operation / 20 * 8));
                let seq = wire.next(direction).wrapping_add(u32::from(input.u16())).wrapping_sub(1 << 15);
                wire.push(Push {
                    len: input.u32().max(bytes.len() as u32),
                    ..wire.plain(direction, seq, bytes)
                });
            }
            _ => {
                direction = match direction {
                    Direction::ToBroker => Direction::ToClient,
                    Direction::ToClient => Direction::ToBroker,
                };
                honest = false;
            }
        }
        let _ = wire.connection.has_hole_since(wire.time_ns);
    }
    wire.connection.finish(wire.scratch, &mut wire.watch);
    assert_eq!(wire.connection.held_bytes(), 0);
    if honest {
        for reported in &wire.watch.reported {
            // Where the answer is missing, or the talk went another way, the offset may be.
            let without = (-1, reported.1, reported.2, reported.3);
            assert!(
                whole.contains(reported) || *reported == without,
                "reported and never said: {reported:?}"
            );
        }
    }
}
