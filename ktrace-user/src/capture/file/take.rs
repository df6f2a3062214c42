//! The way of a packet of a capture file: to its connection, once, and in order.

use std::collections::VecDeque;

use ktrace_kafka::Push;

use super::FileCounters;
use super::connections::{Connections, Known};
use super::copies::{
    APART_NS, APART_PACKETS, Kept, MAX_COPIES, MAX_HELD, MAX_HELD_BYTES, Mark, Original, State, Suspect,
    Verdict,
};
use super::order::{WINDOW_NS, WINDOW_PACKETS};
use super::packet::Packet;
use crate::seen::{Ends, Event, Segment, Side};

/// Packets that are held for those that they acknowledge, over all connections. With more, the
/// first is held no more.
const MAX_WAITING: usize = 16_384;

/// And their bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// When packets were held, the first first. They may be held no more.
#[derive(Debug, Default)]
pub struct Waiting {
    since: VecDeque<Since>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    of: Original,
    time_ns: u64,
    number: u64,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, since: Since) {
        self.bytes = self.bytes.saturating_add(since.bytes);
        self.since.push_back(since);
    }

    /// The first that has waited for long enough.
    fn due(&mut self, now_ns: u64, number: u64) -> Option<Since> {
        let is_full = self.since.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES;
        let first = self.since.pop_front_if(|first| {
            is_full
                || now_ns.saturating_sub(first.time_ns) > WINDOW_NS
                || number.saturating_sub(first.number) > WINDOW_PACKETS
        })?;
        self.bytes = self.bytes.saturating_sub(first.bytes);
        Some(first)
    }
}

/// Gives a connection's packets.
struct Giving<'x, E> {
    waiting: &'x mut Waiting,
    number: u64,
    each: &'x mut E,
}

fn emit(segment: &Segment<'_>, closes: bool, each: &mut impl FnMut(Event<'_>)) {
    let connection = segment.connection;
    each(Event::Segment(*segment));
    if closes {
        each(Event::Closed { connection });
    }
}

impl<E: FnMut(Event<'_>)> Giving<'_, E> {
    /// Gives a packet of a connection when it is in order.
    fn give(&mut self, known: &mut Known, segment: &Segment<'_>, closes: bool) {
        let Segment { connection, ends, side, push: Push { time_ns, bytes, .. }, .. } = *segment;
        if !known.opened {
            known.opened = true;
            (self.each)(Event::Opened { connection, ends, side, owner: None });
        }
        let each = &mut *self.each;
        let number = self.number;
        if known.live().order.take(segment, closes, number, |segment, closes| emit(segment, closes, each)) {
            let of = Original { ends, id: connection };
            self.waiting.push(Since { of, time_ns, number, bytes: bytes.len() });
        }
    }
}

impl Connections {
    /// Takes the next packet of a file; `each` gets what is in order now.
    pub(super) fn take(
        &mut self,
        packet: &Packet<'_>,
        time_ns: u64,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        self.turn(time_ns, counters, each);
        let Some(placed) = self.place(packet) else { return };
        self.bury(counters, each);
        if let Some(connection) = placed.replaces {
            each(Event::Closed { connection });
        }
        let Packet { seq, ack, syn, fin, rst, payload, len, .. } = *packet;
        if payload.len() < len as usize {
            counters.snaplen += 1;
        }
        let segment = Segment {
            connection: placed.connection,
            ends: placed.ends,
            side: Side::Client,
            rst,
            push: Push { direction: placed.direction, seq, ack, syn, fin, bytes: payload, len, time_ns },
        };
        if placed.closes {
            let closed = Original { ends: segment.ends, id: segment.connection };
            self.copies.closed.push_back((closed, time_ns, self.packets));
        }
        self.suspect(&segment);
        let Some(known) = self.by_ends.get_mut(&segment.ends) else { return };
        match &mut known.live().twin.state {
            State::Own => self.own(&segment, placed.closes, counters, each),
            State::Suspect(suspect) => {
                let of = suspect.of;
                self.copies.held_bytes = self.copies.held_bytes.saturating_add(payload.len());
                suspect.held.push(Kept {
                    segment: segment.with_bytes(&[]),
                    payload: payload.into(),
                    closes: placed.closes,
                    mark: Mark::of(&segment),
                });
                let is_full = suspect.held.len() >= MAX_HELD;
                let verdict = match (Mark::of(&segment), self.original_mut(of)) {
                    (Some(mark), Some(original)) => {
                        let same = original.live().marks.same_bytes(&mark);
                        self.compared(&segment.ends, |suspect| suspect.compared(&mark, same))
                    }
                    (None, Some(_)) => Verdict::Unknown,
                    (_, None) => Verdict::Other,
                };
                match verdict {
                    Verdict::Unknown if !is_full => {}
                    Verdict::Unknown => {
                        let own = Original { ends: segment.ends, id: segment.connection };
                        self.decide_at_last(own, counters, each);
                    }
                    verdict => self.decide(&segment.ends, verdict, counters, each),
                }
            }
            State::CopyOf(of) => {
                let of = *of;
                self.copied(of, &segment, placed.closes, counters, each);
            }
        }
    }

    /// It is as late as this: what has been held for long enough is held no more.
    pub(super) fn turn(
        &mut self,
        now_ns: u64,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        while let Some(since) = self.waiting.due(now_ns, self.packets) {
            self.give_up(since, each);
        }
        // Its copies may come a little later.
        while let Some((closed, ..)) = self.copies.closed.pop_front_if(|(_, since_ns, number)| {
            now_ns.saturating_sub(*since_ns) > APART_NS
                || self.packets.saturating_sub(*number) > APART_PACKETS
        }) {
            if let Some(known) = self.original_mut(closed) {
                known.rest();
            }
        }
        while let Some((suspect, ..)) = self.copies.suspects.pop_front_if(|(_, since_ns, number)| {
            now_ns.saturating_sub(*since_ns) > APART_NS
                || self.packets.saturating_sub(*number) > APART_PACKETS
                || self.copies.held_bytes > MAX_HELD_BYTES
        }) {
            self.decide_at_last(suspect, counters, each);
        }
    }

    /// There are no more packets: what is held is given as it is.
    pub fn finish(&mut self, counters: &mut FileCounters, mut each: impl FnMut(Event<'_>)) {
        while let Some((suspect, ..)) = self.copies.suspects.pop_front() {
            self.decide_at_last(suspect, counters, &mut each);
        }
        while let Some(since) = self.waiting.since.pop_front() {
            self.give_up(since, &mut each);
        }
        self.waiting.bytes = 0;
    }

    fn give_up(&mut self, since: Since, each: &mut impl FnMut(Event<'_>)) {
        if let Some(known) = self.original_mut(since.of) {
            known.live().order.give_up(since.number, |segment, closes| emit(segment, closes, each));
        }
    }

    fn original(&self, of: Original) -> Option<&Known> {
        self.by_ends.get(&of.ends).filter(|known| known.id == of.id)
    }

    fn original_mut(&mut self, of: Original) -> Option<&mut Known> {
        self.by_ends.get_mut(&of.ends).filter(|known| known.id == of.id)
    }

    /// Does something with what is known of a suspect.
    fn compared(&mut self, ends: &Ends, with: impl FnOnce(&mut Suspect) -> Verdict) -> Verdict {
        match self.by_ends.get_mut(ends).map(|known| &mut known.live().twin.state) {
            Some(State::Suspect(suspect)) => with(suspect),
            _ => Verdict::Unknown,
        }
    }

    /// A connection that opens, or goes on, as another one did a moment before may be a copy of it.
    fn suspect(&mut self, segment: &Segment<'_>) {
        let Some(known) = self.by_ends.get_mut(&segment.ends) else { return };
        let Known { client_isn, opened, .. } = *known;
        let live = known.live();
        if !matches!(live.twin.state, State::Own) || !live.marks.are_few() {
            return;
        }
        let own = Original { ends: segment.ends, id: segment.connection };
        let mark = Mark::of(segment);
        let of = match (client_isn, mark) {
            (Some(isn), _) if !opened => {
                live.twin.like = self.copies.opened(isn, own, segment.push.time_ns);
                live.twin.like
            }
            // It was silent at first.
            (Some(_), Some(_)) if live.marks.is_empty() => live.twin.like,
            (None, Some(mark)) => {
                let like = self.copies.began(&mark, own, segment.push.time_ns);
                like.filter(|_| live.marks.is_empty())
            }
            _ => None,
        };
        let Some(of) = of else { return };
        // A copy of a copy is one of its original.
        let of = match self.original_mut(of).map(|original| &original.live().twin.state) {
            Some(State::CopyOf(original)) => *original,
            Some(State::Suspect(suspect)) => suspect.of,
            Some(State::Own) => of,
            None => return,
        };
        if of == own {
            return;
        }
        let Some(original) = self.original_mut(of) else { return };
        let suspects = &mut original.live().twin.suspects;
        if !suspects.contains(&own.ends) {
            if suspects.len() >= MAX_COPIES {
                return;
            }
            suspects.push(own.ends);
        }
        let number = self.packets;
        if let Some(known) = self.by_ends.get_mut(&own.ends) {
            known.live().twin.state = State::Suspect(Suspect::new(of));
            self.copies.suspects.push_back((own, segment.push.time_ns, number));
        }
    }

    /// A packet of a connection that is none's copy.
    fn own(
        &mut self,
        segment: &Segment<'_>,
        closes: bool,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let Some(known) = self.by_ends.get_mut(&segment.ends) else { return };
        let mark = Mark::of(segment);
        // The stream drops what it has.
        if mark.is_some_and(|mark| known.live().marks.add(mark)) {
            counters.duplicates += 1;
        }
        let suspects = known.live().twin.suspects.clone();
        Giving { waiting: &mut self.waiting, number: self.packets, each: &mut *each }
            .give(known, segment, closes);
        let Some(mark) = mark else { return };
        for ends in suspects {
            let verdict = self.compared(&ends, |suspect| suspect.original_at(&mark));
            if verdict != Verdict::Unknown {
                self.decide(&ends, verdict, counters, each);
            }
        }
    }

    /// A packet of a copy is one of its original, unless it says something else.
    fn copied(
        &mut self,
        of: Original,
        segment: &Segment<'_>,
        closes: bool,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let mark = Mark::of(segment);
        let same = match (self.original_mut(of), mark) {
            (None, _) => Some(false),
            // What has no data is there too.
            (Some(_), None) => Some(true),
            (Some(original), Some(mark)) => original.live().marks.same_bytes(&mark),
        };
        match same {
            Some(true) => counters.duplicates += 1,
            Some(false) => {
                if let Some(known) = self.by_ends.get_mut(&segment.ends) {
                    known.live().twin.state = State::Own;
                }
                self.own(segment, closes, counters, each);
            }
            None => {
                let segment = Segment { connection: of.id, ends: of.ends, ..*segment };
                self.own(&segment, false, counters, each);
            }
        }
    }

    fn decide_at_last(
        &mut self,
        suspect: Original,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let Some(known) = self.original(suspect) else { return };
        let begins = known.client_isn.is_some();
        let verdict = self.compared(&suspect.ends, |suspect| suspect.at_last(begins));
        self.decide(&suspect.ends, verdict, counters, each);
    }

    /// What is held of a suspect goes where it belongs.
    fn decide(
        &mut self,
        ends: &Ends,
        verdict: Verdict,
        counters: &mut FileCounters,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let Some(known) = self.by_ends.get_mut(ends) else { return };
        // It may have been decided before.
        let twin = &mut known.live().twin;
        if !matches!(twin.state, State::Suspect(_)) {
            return;
        }
        let State::Suspect(suspect) = std::mem::take(&mut twin.state) else { return };
        let Suspect { of, held, .. } = suspect;
        let bytes = held.iter().map(|kept| kept.payload.len()).sum();
        self.copies.held_bytes = self.copies.held_bytes.saturating_sub(bytes);
        if verdict == Verdict::Copy {
            twin.state = State::CopyOf(of);
        }
        // One that was silent is looked at again when it speaks.
        if held.iter().any(|kept| kept.mark.is_some()) {
            twin.like = None;
        }
        if let Some(original) = self.original_mut(of) {
            original.live().twin.suspects.retain(|other| other != ends);
        }
        for Kept { segment, payload, closes, .. } in held {
            let segment = segment.with_bytes(&payload);
            match verdict {
                Verdict::Copy => self.copied(of, &segment, closes, counters, each),
                Verdict::Other | Verdict::Unknown => self.own(&segment, closes, counters, each),
            }
        }
    }

    /// What is held of connections that are no more is given.
    fn bury(&mut self, counters: &mut FileCounters, each: &mut impl FnMut(Event<'_>)) {
        for mut known in std::mem::take(&mut self.gone) {
            if let State::Suspect(suspect) = std::mem::take(&mut known.live().twin.state) {
                let is_copy = suspect.at_last(known.client_isn.is_some()) == Verdict::Copy;
                let mut giving =
                    Giving { waiting: &mut self.waiting, number: self.packets, each: &mut *each };
                for Kept { segment, payload, closes, .. } in suspect.held {
                    self.copies.held_bytes = self.copies.held_bytes.saturating_sub(payload.len());
                    if is_copy {
                        counters.duplicates += 1;
                    } else {
                        giving.give(&mut known, &segment.with_bytes(&payload), closes);
                    }
                }
            }
            known.live().order.give_up(u64::MAX, |segment, closes| emit(segment, closes, each));
        }
    }
}
