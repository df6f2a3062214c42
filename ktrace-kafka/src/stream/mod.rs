//! One direction of one TCP connection, put back in order by sequence number; it knows its gaps.
//!
//! ```text
//!            next                    held
//!  ──given────┤   hole   ├──────────────┤  hole  ├───────┤
//! ```
//!
//! Invariants: everything before `next` has been given, as data or as a gap; `held` is sorted,
//! without overlap at its front, and begins after `next`. A hole is filled by a retransmission, or
//! becomes a gap: when the other side acknowledges what lies behind it (it has the bytes, we never
//! will), or when too much is held.

pub mod frame;

use std::collections::VecDeque;

/// What a stream gives, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes, in order.
    Data {
        /// Sequence number of the first byte.
        seq: u32,
        /// At least one.
        bytes: &'a [u8],
        /// When they passed the socket.
        time_ns: u64,
    },
    /// A gap: these bytes are lost for good.
    Gap {
        /// How many; 0 where that is not known.
        bytes: u64,
    },
}

/// A run of bytes with its place. `len` may be more than the bytes that could be copied.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// The bytes, as far as they could be copied.
    pub bytes: &'a [u8],
    /// How many bytes there were.
    pub len: u32,
    /// It begins with a SYN.
    pub syn: bool,
    /// It ends with a FIN.
    pub fin: bool,
    /// When it passed the socket.
    pub time_ns: u64,
}

struct Held {
    seq: u32,
    bytes: Box<[u8]>,
    len: u32,
    fin: bool,
    time_ns: u64,
}

/// The least that a held run counts as, so that at most a few thousand are held: an early run is
/// inserted among them.
const MIN_COST: usize = 1 << 10;

impl Held {
    /// Bytes that it counts as.
    fn cost(&self) -> usize {
        self.bytes.len().saturating_add(size_of::<Self>()).max(MIN_COST)
    }
}

/// No TCP window is larger (RFC 7323, 2.3): what lies further back is not a retransmission but another life of the
/// connection.
const MAX_WINDOW: i32 = 1 << 30;

/// Puts the bytes of one direction in order. Holds what came early, within the bound that
/// [`Stream::push`] is given.
#[derive(Default)]
pub struct Stream {
    /// Sequence number of the next byte to be given; `None` before the first.
    next: Option<u32>,
    held: VecDeque<Held>,
    held_bytes: usize,
}

/// How far `seq` lies behind `next`, negative for before.
fn distance(seq: u32, next: u32) -> i32 {
    seq.wrapping_sub(next).cast_signed()
}

impl Stream {
    /// Whether a byte or the SYN has been seen.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Bytes that wait for a hole to be filled.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes a run; `give` gets what is in order now. Returns whether a hole was given up because
    /// more than `max_held` bytes were held.
    pub fn push(&mut self, run: Run<'_>, max_held: usize, mut give: impl FnMut(Piece<'_>)) -> bool {
        let Run { mut seq, bytes, len, fin, time_ns, .. } = run;
        if run.syn {
            // The SYN takes a sequence number of its own.
            seq = seq.wrapping_add(1);
            // Sent again it begins the same stream, else another one.
            if self.next.is_none_or(|next| distance(next, seq) < 0 || distance(next, seq) > MAX_WINDOW) {
                self.forget();
                self.next = Some(seq);
            }
        }
        let next = *self.next.get_or_insert(seq);
        let ahead = distance(seq, next);
        if ahead > 0 {
            if len == 0 && !fin {
                return false;
            }
            self.hold(Held { seq, bytes: bytes.into(), len, fin, time_ns });
            let too_much = self.held_bytes > max_held;
            // Behind the first hole there may be another.
            while self.held_bytes > max_held
                && let Some(first) = self.held.front()
            {
                let until = first.seq;
                self.skip_to(until, &mut give);
                self.drain(&mut give);
            }
            return too_much;
        }
        if ahead < -MAX_WINDOW {
            give(Piece::Gap { bytes: 0 });
            self.forget();
            self.next = Some(seq);
        }
        self.give(Run { seq, ..run }, &mut give);
        self.drain(&mut give);
        false
    }

    /// The other side has everything before `ack`: holes before it will never be filled. Where the
    /// stream may have ended, a single number with nothing behind it is taken for that of a FIN
    /// which was not seen, until something comes behind it.
    pub fn acknowledged(&mut self, ack: u32, may_have_ended: bool, mut give: impl FnMut(Piece<'_>)) {
        if may_have_ended && self.held.is_empty() && self.next.is_some_and(|next| distance(ack, next) == 1) {
            return;
        }
        while let Some(next) = self.next {
            let ahead = distance(ack, next);
            if ahead <= 0 || ahead > MAX_WINDOW {
                return;
            }
            let until = match self.held.front() {
                Some(first) if distance(first.seq, ack) < 0 => first.seq,
                _ => ack,
            };
            self.skip_to(until, &mut give);
            self.drain(&mut give);
        }
    }

    /// When the oldest of what is held passed the socket, if anything is held.
    #[must_use]
    pub fn held_since(&self) -> Option<u64> {
        self.held.iter().map(|held| held.time_ns).min()
    }

    /// Gives all that is held, holes as gaps: nothing more will come.
    pub fn finish(&mut self, mut give: impl FnMut(Piece<'_>)) {
        while let Some(first) = self.held.front() {
            let until = first.seq;
            self.skip_to(until, &mut give);
            self.drain(&mut give);
        }
    }

    /// The receiver reads neither what is held nor what is missing before it. Returns how many
    /// bytes that is.
    pub fn abandon(&mut self) -> u64 {
        let end = |held: &Held| self.next.map_or(0, |next| distance(held.seq.wrapping_add(held.len), next));
        let bytes = self.held.iter().map(end).max().unwrap_or(0);
        self.forget();
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Drops what is held: the hole before it becomes longer.
    pub fn forget(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
    }

    fn hold(&mut self, held: Held) {
        let Some(next) = self.next else { return };
        let place = distance(held.seq, next);
        let at = self.held.partition_point(|other| distance(other.seq, next) <= place);
        // The same bytes again: keep the longer.
        if let Some(before) = at.checked_sub(1).and_then(|index| self.held.get_mut(index))
            && before.seq == held.seq
        {
            if before.len >= held.len {
                before.fin |= held.fin;
                return;
            }
            self.held_bytes = self.held_bytes.saturating_sub(before.cost()).saturating_add(held.cost());
            *before = held;
            return;
        }
        self.held_bytes = self.held_bytes.saturating_add(held.cost());
        self.held.insert(at, held);
    }

    fn skip_to(&mut self, seq: u32, give: &mut impl FnMut(Piece<'_>)) {
        if let Some(next) = self.next
            && let Ok(bytes) = u64::try_from(distance(seq, next))
            && bytes > 0
        {
            give(Piece::Gap { bytes });
            self.next = Some(seq);
        }
    }

    fn drain(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        while let (Some(next), Some(first)) = (self.next, self.held.front()) {
            if distance(first.seq, next) > 0 {
                return;
            }
            let Some(held) = self.held.pop_front() else { return };
            self.held_bytes = self.held_bytes.saturating_sub(held.cost());
            let Held { seq, bytes, len, fin, time_ns } = held;
            self.give(Run { seq, bytes: &bytes, len, syn: false, fin, time_ns }, give);
        }
        if self.held.is_empty() && self.held.capacity() > 0 {
            self.forget();
        }
    }

    /// Gives what of a run is new. `seq` is that of its first byte, also where it has a SYN, and at
    /// or before `next`.
    fn give(&mut self, run: Run<'_>, give: &mut impl FnMut(Piece<'_>)) {
        let Some(next) = self.next else { return };
        let Run { seq, bytes, len, fin, time_ns, .. } = run;
        let old = next.wrapping_sub(seq);
        let end = seq.wrapping_add(len);
        if let Some(fresh) = len.checked_sub(old).filter(|&fresh| fresh > 0) {
            let here = usize::try_from(old).ok().and_then(|old| bytes.get(old..)).unwrap_or_default();
            if !here.is_empty() {
                give(Piece::Data { seq: next, bytes: here, time_ns });
            }
            let missing = u64::from(fresh).saturating_sub(u64::try_from(here.len()).unwrap_or(u64::MAX));
            if missing > 0 {
                give(Piece::Gap { bytes: missing });
            }
            self.next = Some(end);
        }
        // The FIN takes a sequence number of its own.
        if fin && self.next == Some(end) {
            self.next = Some(end.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(seq: u32, bytes: &[u8]) -> Run<'_> {
        Run { seq, bytes, len: bytes.len() as u32, syn: false, fin: false, time_ns: 0 }
    }

    #[derive(Default)]
    struct Got(Vec<u8>, Vec<u64>);

    impl Got {
        fn take(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Data { bytes, .. } => self.0.extend(bytes),
                Piece::Gap { bytes } => {
                    self.0.push(b'_');
                    self.1.push(bytes);
                }
            }
        }
    }

    fn text(got: &Got) -> &str {
        std::str::from_utf8(&got.0).unwrap()
    }

    #[test]
    fn order_duplicates_overlaps_and_wrap() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        let start = u32::MAX - 3;
        for (offset, bytes) in [(0, "abc"), (6, "ghi"), (0, "abc"), (9, "jk"), (2, "cdefg"), (5, "fghijkl")] {
            stream.push(run(start.wrapping_add(offset), bytes.as_bytes()), 1 << 20, |piece| got.take(piece));
        }
        assert_eq!((text(&got), stream.held_bytes()), ("abcdefghijkl", 0));
    }

    #[test]
    fn a_hole_becomes_a_gap_when_bytes_behind_it_are_acknowledged() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(10, b"abc"), 1 << 20, |piece| got.take(piece));
        stream.push(run(16, b"ghi"), 1 << 20, |piece| got.take(piece));
        stream.acknowledged(13, true, |piece| got.take(piece));
        assert_eq!(text(&got), "abc");
        stream.acknowledged(19, true, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("abc_ghi", &[3][..]));
        stream.acknowledged(25, true, |piece| got.take(piece));
        stream.push(run(25, b"p"), 1 << 20, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("abc_ghi_p", &[3, 6][..]));
    }

    #[test]
    fn syn_and_fin_take_a_number_each_and_are_no_gap() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(Run { syn: true, ..run(99, b"") }, 1 << 20, |piece| got.take(piece));
        stream.acknowledged(100, true, |piece| got.take(piece));
        stream.push(Run { fin: true, ..run(100, b"ab") }, 1 << 20, |piece| got.take(piece));
        stream.acknowledged(103, true, |piece| got.take(piece));
        assert_eq!(text(&got), "ab");
    }

    /// As it passes at a server's end in the place of the handshake's last ACK, where there is no
    /// socket yet.
    #[test]
    fn a_fin_that_was_not_seen_is_no_gap() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(1000, b"0123"), 1 << 20, |piece| got.take(piece));
        stream.acknowledged(1005, true, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("0123", &[][..]));
        // It was none: there is more.
        stream.push(run(1005, b"56"), 1 << 20, |piece| got.take(piece));
        stream.acknowledged(1007, true, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("0123_56", &[1][..]));
    }

    #[test]
    fn what_could_not_be_copied_is_a_gap() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(Run { len: 5, ..run(0, b"ab") }, 1 << 20, |piece| got.take(piece));
        stream.push(run(5, b"f"), 1 << 20, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("ab_f", &[3][..]));
    }

    #[test]
    fn holding_too_much_gives_up_the_hole() {
        const HELD: usize = MIN_COST + 4;
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(0, b"a"), HELD, |piece| got.take(piece));
        assert!(!stream.push(run(2, b"cd"), HELD, |piece| got.take(piece)));
        assert!(stream.push(run(4, b"efg"), HELD, |piece| got.take(piece)));
        assert_eq!(text(&got), "a_cdefg");
    }

    #[test]
    fn holding_too_much_gives_up_as_many_holes_as_it_takes() {
        const HELD: usize = MIN_COST;
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(0, b"a"), 5 * HELD, |piece| got.take(piece));
        for seq in [2, 4, 6, 8] {
            stream.push(run(seq, b"x"), 5 * HELD, |piece| got.take(piece));
        }
        assert!(stream.push(run(10, &[b'y'; 3 * HELD]), 5 * HELD, |piece| got.take(piece)));
        assert!(stream.held_bytes() <= 5 * HELD, "{} of {}", stream.held_bytes(), 5 * HELD);
    }

    #[test]
    fn another_syn_begins_another_stream() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(Run { syn: true, ..run(999, b"") }, 1 << 20, |piece| got.take(piece));
        stream.push(run(1000, b"abc"), 1 << 20, |piece| got.take(piece));
        stream.push(Run { syn: true, ..run(999, b"") }, 1 << 20, |piece| got.take(piece));
        stream.push(run(1003, b"d"), 1 << 20, |piece| got.take(piece));
        assert_eq!(text(&got), "abcd", "the same SYN again changes nothing");
        stream.push(Run { syn: true, ..run(4999, b"") }, 1 << 20, |piece| got.take(piece));
        stream.push(run(5000, b"e"), 1 << 20, |piece| got.take(piece));
        assert_eq!(text(&got), "abcde");
    }

    #[test]
    fn what_is_held_costs_though_it_is_empty() {
        let mut stream = Stream::default();
        stream.push(run(0, b"a"), usize::MAX, |_| ());
        for seq in 10..20 {
            stream.push(Run { fin: true, ..run(seq, b"") }, usize::MAX, |_| ());
        }
        assert!(stream.held_bytes() >= 10 * MIN_COST);
    }

    /// Each finds its place among those that are held.
    #[test]
    fn short_runs_are_held_no_more_than_some_thousands() {
        const MAX_HELD: usize = 8 << 20;
        let mut stream = Stream::default();
        stream.push(run(0, b"a"), MAX_HELD, |_| ());
        let mut most = 0;
        for index in 0..40_000_u32 {
            // From both ends of a window to its middle, a byte each.
            let place = if index % 2 == 0 { index } else { 80_000 - index };
            stream.push(run(10 + 2 * place, b"x"), MAX_HELD, |_| ());
            most = most.max(stream.held.len());
        }
        assert!(most <= MAX_HELD / MIN_COST + 1, "{most}");
    }

    #[test]
    fn what_is_forgotten_makes_the_hole_longer() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(0, b"ab"), usize::MAX, |piece| got.take(piece));
        stream.push(run(4, b"ef"), usize::MAX, |piece| got.take(piece));
        stream.forget();
        assert_eq!(stream.held_bytes(), 0);
        stream.push(run(6, b"gh"), usize::MAX, |piece| got.take(piece));
        stream.push(run(2, b"cd"), usize::MAX, |piece| got.take(piece));
        stream.acknowledged(8, true, |piece| got.take(piece));
        assert_eq!((text(&got), &got.1[..]), ("abcd_gh", &[2][..]));
    }

    #[test]
    fn a_jump_back_by_more_than_any_window_begins_anew() {
        let (mut stream, mut got) = (Stream::default(), Got::default());
        stream.push(run(0x9000_0000, b"a"), 4, |piece| got.take(piece));
        stream.push(run(0x4000_0000, b"b"), 4, |piece| got.take(piece));
        assert_eq!(text(&got), "a_b");
    }

    proptest! {
        /// Cut anyhow, sent again, in any order within a window: the same bytes come out, each
        /// once.
        #[test]
        fn any_order_gives_the_bytes_once(
            start in any::<u32>(),
            cuts in proptest::collection::vec((0_usize..400, 1_usize..60), 1..60),
            seed in any::<u64>(),
        ) {
            let bytes: Vec<u8> = (0..460_u32).map(|i| (i % 251) as u8).collect();
            let mut runs: Vec<(usize, usize)> = cuts;
            // Whatever was cut, all of it passes once more in pieces of 37.
            runs.extend((0..460).step_by(37).map(|at| (at, 37)));
            let mut order: Vec<usize> = (0..runs.len()).collect();
            let mut state = seed | 1;
            for i in (1..order.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                order.swap(i, (state >> 33) as usize % (i + 1));
            }
            let (mut stream, mut got) = (Stream::default(), Got::default());
            stream.push(Run { syn: true, ..run(start.wrapping_sub(1), b"") }, 1 << 20, |piece| got.take(piece));
            for index in order {
                let (at, len) = runs[index];
                let end = (at + len).min(bytes.len());
                stream.push(run(start.wrapping_add(at as u32), &bytes[at..end]), 1 << 20, |piece| got.take(piece));
            }
            prop_assert_eq!(&got.0, &bytes);
            prop_assert_eq!(stream.held_bytes(), 0);
        }
    }
}
