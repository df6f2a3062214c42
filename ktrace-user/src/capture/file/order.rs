//! The packets of a connection in an order in which they can have been sent.
//!
//! A socket's own hooks see its packets in order. A capture file need not have them so: taps and
//! mirror ports merge the two directions, and each of a card's queues is written by itself, so that
//! an ACK, or a response, may stand before the data that it acknowledges. Read like that, the data
//! would be taken for lost. So a packet that acknowledges what the file has not shown yet is held
//! until it has, or until a window has passed: then the data is missing indeed. Where a file is in
//! order nothing is held, and nothing is copied.

use std::collections::VecDeque;

use ktrace_kafka::Push;

use crate::seen::{Direction, Segment};

/// How long a packet is held, by the file's own clock. Merged captures are apart by what their
/// clocks differ and by what a buffer of a card or a tap holds: some milliseconds, seldom tens of
/// them.
pub const WINDOW_NS: u64 = 100_000_000;

/// And by packets of the file, as clocks may stand still.
pub const WINDOW_PACKETS: u64 = 4096;

/// Packets of one connection that are held at once, and their bytes: 100 ms at 40 MB/s, more than
/// that at once in the large packets of a capture with segmentation offload.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 4 << 20;

/// Runs of bytes behind a hole that are remembered. Further ones are forgotten: then what is held
/// waits for the window's end.
const MAX_AHEAD: usize = 64;

/// No TCP window is larger: what lies further away is of another life of the connection.
const MAX_WINDOW: i32 = 1 << 30;

/// How far `seq` lies behind `next`, negative for before.
fn distance(seq: u32, next: u32) -> i32 {
    seq.wrapping_sub(next).cast_signed()
}

/// How far the file has shown one direction without a hole.
#[derive(Debug, Default)]
struct Reach {
    next: Option<u32>,
    /// The file has its SYN.
    begun: bool,
    /// Beginning and end of what it has shown behind a hole.
    ahead: Vec<(u32, u32)>,
}

impl Reach {
    /// Bytes before this number are missing.
    fn misses(&self, seq: u32) -> bool {
        self.next.is_some_and(|next| (1..=MAX_WINDOW).contains(&distance(seq, next)))
    }

    fn show(&mut self, start: u32, end: u32, anew: bool) {
        let is_near = |next| distance(start, next).abs() <= MAX_WINDOW;
        let Some(next) = self.next.filter(|next| !anew && is_near(*next)) else {
            *self = Self { next: Some(end), begun: anew, ahead: Vec::new() };
            return;
        };
        if distance(start, next) <= 0 {
            self.go_to(end);
        } else if self.ahead.len() < MAX_AHEAD && !self.ahead.contains(&(start, end)) {
            self.ahead.push((start, end));
        }
    }

    fn go_to(&mut self, seq: u32) {
        let Some(next) = &mut self.next else { return };
        if distance(seq, *next) > 0 {
            *next = seq;
        }
        while let Some(place) = self.ahead.iter().position(|(start, _)| distance(*start, *next) <= 0) {
            let (_, end) = self.ahead.swap_remove(place);
            if distance(end, *next) > 0 {
                *next = end;
            }
        }
    }
}

/// A packet that is held.
#[derive(Debug)]
struct Held {
    /// Without its payload.
    segment: Segment<'static>,
    payload: Box<[u8]>,
    /// The number of the packet in the capture.
    number: u64,
}

/// The packets of one connection, of which some are held: what they acknowledge was not shown yet.
#[derive(Debug, Default)]
pub struct Order {
    client: Reach,
    broker: Reach,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Of what was given last. What is given later cannot have been before it.
    last_ns: u64,
    /// The connection is over when what is held was given.
    closes: bool,
}

impl Order {
    /// Takes a packet, the `number`th of the capture; `give` gets what is in order now, and whether
    /// it ends the connection. Returns whether this one is held.
    pub fn take(
        &mut self,
        segment: &Segment<'_>,
        closes: bool,
        number: u64,
        mut give: impl FnMut(&Segment<'_>, bool),
    ) -> bool {
        self.closes |= closes;
        let is_held = !self.is_due(segment);
        if is_held {
            self.held_bytes += segment.push.bytes.len();
            self.held.push_back(Held {
                segment: segment.with_bytes(&[]),
                payload: segment.push.bytes.into(),
                number,
            });
            while self.held.len() > MAX_HELD || self.held_bytes > MAX_HELD_BYTES {
                self.give_up_first(&mut give);
            }
            return is_held;
        }
        self.show(segment);
        give(segment, self.is_over());
        if !self.held.is_empty() {
            self.drain(&mut give);
        }
        is_held
    }

    /// What was held since this packet of the capture, or longer, is held no more.
    pub fn give_up(&mut self, number: u64, mut give: impl FnMut(&Segment<'_>, bool)) {
        while self.held.front().is_some_and(|first| first.number <= number) {
            self.give_up_first(&mut give);
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the connection is over, once.
    fn is_over(&mut self) -> bool {
        self.held.is_empty() && std::mem::take(&mut self.closes)
    }

    fn reaches(&mut self, direction: Direction) -> (&mut Reach, &mut Reach) {
        match direction {
            Direction::ToBroker => (&mut self.client, &mut self.broker),
            Direction::ToClient => (&mut self.broker, &mut self.client),
        }
    }

    /// What it acknowledges was shown, and, if it ends its direction, all before it.
    fn is_due(&mut self, segment: &Segment<'_>) -> bool {
        let Push { direction, seq, ack, fin, .. } = segment.push;
        let (own, other) = self.reaches(direction);
        let ends = fin || segment.rst;
        !(ack.is_some_and(|ack| other.misses(ack)) || (ends && own.misses(seq)))
    }

    fn show(&mut self, segment: &Segment<'_>) {
        let Push { direction, seq, ack, syn, fin, len, time_ns, .. } = segment.push;
        self.last_ns = self.last_ns.max(time_ns);
        // A reset's number need not be one of the connection's.
        if segment.rst {
            return;
        }
        let end = seq.wrapping_add(len).wrapping_add(u32::from(syn)).wrapping_add(u32::from(fin));
        let (own, other) = self.reaches(direction);
        own.show(seq, end, syn);
        // From its beginning on, it shows how the other direction begins.
        if own.begun && other.next.is_none() {
            other.next = ack;
        }
    }

    fn drain(&mut self, give: &mut impl FnMut(&Segment<'_>, bool)) {
        let mut place = 0;
        while let Some(held) = self.held.get(place) {
            let segment = held.segment;
            if !self.is_due(&segment) {
                place += 1;
                continue;
            }
            self.give_at(place, give);
            // What it brought may be what one before it waits for.
            place = 0;
        }
    }

    fn give_up_first(&mut self, give: &mut impl FnMut(&Segment<'_>, bool)) {
        let Some(first) = self.held.front() else { return };
        let Push { direction, ack, seq, .. } = first.segment.push;
        let (own, other) = self.reaches(direction);
        if let Some(ack) = ack {
            other.go_to(ack);
        }
        own.go_to(seq);
        self.give_at(0, give);
        self.drain(give);
    }

    fn give_at(&mut self, place: usize, give: &mut impl FnMut(&Segment<'_>, bool)) {
        let Some(Held { segment, payload, .. }) = self.held.remove(place) else { return };
        self.held_bytes = self.held_bytes.saturating_sub(payload.len());
        self.show(&segment);
        let mut segment = segment.with_bytes(&payload);
        segment.push.time_ns = segment.push.time_ns.max(self.last_ns);
        give(&segment, self.is_over());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::{ConnectionId, Ends, Side};

    fn segment(direction: Direction, seq: u32, ack: u32, payload: &[u8]) -> Segment<'_> {
        Segment {
            connection: ConnectionId(1),
            ends: Ends { client: ([10, 0, 0, 1], 40000).into(), broker: ([10, 0, 0, 2], 9092).into() },
            side: Side::Client,
            rst: false,
            push: Push {
                direction,
                seq,
                ack: Some(ack),
                syn: false,
                fin: false,
                bytes: payload,
                len: u32::try_from(payload.len()).unwrap(),
                time_ns: 0,
            },
        }
    }

    /// The same, changed.
    fn with<'a>(segment: Segment<'a>, change: impl FnOnce(&mut Segment<'a>)) -> Segment<'a> {
        let mut segment = segment;
        change(&mut segment);
        segment
    }

    fn asks<'a>(seq: u32, ack: u32, payload: &'a str) -> Segment<'a> {
        segment(Direction::ToBroker, seq, ack, payload.as_bytes())
    }

    fn answers<'a>(seq: u32, ack: u32, payload: &'a str) -> Segment<'a> {
        segment(Direction::ToClient, seq, ack, payload.as_bytes())
    }

    /// What is given of segments, each as the text of its payload or the number that it
    /// acknowledges; and how many of them were held.
    fn given(segments: &[Segment<'_>]) -> (Vec<String>, usize) {
        let (mut order, mut seen, mut held) = (Order::default(), vec![], 0);
        let text = |segment: &Segment<'_>| match segment.push.bytes {
            [] => segment.push.ack.map_or("syn".to_owned(), |ack| format!("a{ack}")),
            payload => String::from_utf8(payload.to_vec()).unwrap(),
        };
        for (number, segment) in (0..).zip(segments) {
            held += usize::from(order.take(segment, false, number, |segment, _| seen.push(text(segment))));
        }
        order.give_up(u64::MAX, |segment, _| seen.push(text(segment)));
        (seen, held)
    }

    #[test]
    fn what_is_in_order_is_not_held() {
        let segments = [
            with(asks(999, 0, ""), |first| (first.push.syn, first.push.ack) = (true, None)),
            with(answers(4999, 1000, ""), |first| first.push.syn = true),
            asks(1000, 5000, "one"),
            answers(5000, 1003, ""),
            answers(5000, 1003, "two"),
            // Two segments of one direction change places: the stream mends that.
            asks(1006, 5003, "four"),
            asks(1003, 5003, "tri"),
            answers(5003, 1010, "five"),
        ];
        assert_eq!(given(&segments[2..]).1, 0, "seen from its middle on");
        let (seen, held) = given(&segments);
        assert_eq!((seen.len(), held), (8, 0));
    }

    #[test]
    fn an_ack_is_held_until_what_it_acknowledges_is_there() {
        for segments in [
            // An ACK, and a response, before the request; and both.
            vec![asks(1, 1, "a"), answers(1, 2, ""), answers(1, 5, ""), asks(2, 1, "req")],
            vec![asks(1, 1, "a"), answers(1, 2, ""), answers(1, 5, "resp"), asks(2, 1, "req")],
            vec![
                asks(1, 1, "a"),
                answers(1, 2, ""),
                answers(1, 5, "resp"),
                asks(5, 5, "b"),
                asks(2, 1, "req"),
            ],
            // Of two segments the later one has come.
            vec![
                asks(1, 1, "a"),
                answers(1, 2, ""),
                asks(3, 1, "eq"),
                answers(1, 5, "resp"),
                asks(2, 1, "r"),
            ],
        ] {
            let (seen, held) = given(&segments);
            assert!(held > 0);
            let place = |text: &str| seen.iter().position(|seen| seen == text);
            let last_asked = ["req", "r"].into_iter().find_map(place).unwrap();
            assert_eq!(seen.len(), segments.len(), "{seen:?}");
            for answer in ["a5", "resp", "b"].into_iter().filter_map(place) {
                assert!(answer > last_asked, "{seen:?}");
            }
        }
    }

    #[test]
    fn what_never_comes_is_given_up_and_the_rest_is_in_order() {
        let segments = [
            asks(1, 1, "a"),
            answers(1, 2, ""),
            // "req" is missing.
            answers(1, 5, "resp"),
            asks(5, 5, "next"),
            answers(5, 9, "more"),
        ];
        assert_eq!(given(&segments), (["a", "a2", "resp", "next", "more"].map(String::from).to_vec(), 3));
    }

    /// A side whose clock is ahead: its packets stand before all that they answer.
    #[test]
    fn a_beginning_is_known_by_either_side() {
        let syn = with(asks(0, 0, ""), |first| (first.push.syn, first.push.ack) = (true, None));
        let back = with(answers(0, 1, ""), |first| first.push.syn = true);
        let segments = [back, answers(1, 4, ""), answers(1, 4, "resp"), syn, asks(1, 1, "req")];
        assert_eq!(given(&segments), (["a1", "syn", "req", "a4", "resp"].map(String::from).to_vec(), 2));
        let segments = [syn, asks(1, 1, "req"), asks(4, 5, ""), back, answers(1, 4, "resp")];
        assert_eq!(given(&segments), (["syn", "req", "a1", "resp", "a5"].map(String::from).to_vec(), 1));
    }

    #[test]
    fn an_end_waits_for_the_bytes_before_it() {
        let reset = with(answers(5, 2, ""), |last| last.rst = true);
        let end = with(answers(5, 2, ""), |last| last.push.fin = true);
        for end in [reset, end] {
            let (mut order, mut ends) = (Order::default(), vec![]);
            let segments = [asks(1, 1, "a"), answers(1, 2, ""), end, answers(1, 2, "resp")];
            for (number, segment) in (0..).zip(segments) {
                let closes = segment.push.fin || segment.rst;
                order.take(&segment, closes, number, |_, closes| ends.push(closes));
            }
            assert_eq!(ends, [false, false, false, true]);
            // What ends the connection may be in order, and what is held not be.
            let (mut order, mut ends) = (Order::default(), vec![]);
            let end = with(end, |last| last.push.ack = None);
            let segments = [asks(1, 1, "a"), answers(1, 5, "resp"), end];
            for (number, segment) in (0..).zip(segments) {
                let closes = segment.push.fin || segment.rst;
                order.take(&segment, closes, number, |_, closes| ends.push(closes));
            }
            order.give_up(u64::MAX, |_, closes| ends.push(closes));
            assert_eq!(ends, [false, false, true]);
        }
    }

    /// Hostile, or a mirror port that has lost one direction.
    #[test]
    fn what_is_held_is_bounded() {
        let payload = "x".repeat(60_000);
        let (mut order, mut given) = (Order::default(), 0);
        order.take(&asks(1, 1, "a"), false, 0, |_, _| given += 1);
        for number in 1..2000_u32 {
            let segment = answers(1 + number * 60_000, 100 + number, &payload);
            order.take(&segment, false, number.into(), |_, _| given += 1);
            assert!(order.held.len() <= MAX_HELD && order.held_bytes <= MAX_HELD_BYTES);
        }
        order.give_up(u64::MAX, |_, _| given += 1);
        assert_eq!((given, order.held_bytes, order.held.len()), (2000, 0, 0));
    }

    #[test]
    fn times_do_not_go_back_within_a_connection() {
        let (mut order, mut times) = (Order::default(), vec![]);
        let early = with(answers(1, 5, "resp"), |early| early.push.time_ns = 7);
        let late = with(asks(2, 1, "req"), |late| late.push.time_ns = 9);
        for (number, segment) in (0..).zip([asks(1, 1, "a"), early, late]) {
            order.take(&segment, false, number, |segment, _| times.push(segment.push.time_ns));
        }
        assert_eq!(times, [0, 9, 9]);
    }
}
