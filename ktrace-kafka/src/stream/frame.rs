//! Frames: a size prefix (int32, big endian) and that many bytes.
//!
//! ```text
//!  Searching ──plausible head──▶ Between ◀──────────────┐
//!      ▲                           │ 4 bytes of size    │ frame ends
//!      │ size makes no sense,      ▼                    │
//!      └── gap over the end ──── Inside ────────────────┘
//! ```
//!
//! A gap inside a frame breaks that frame alone: its end is known from its size. Only a gap over a
//! frame's end makes the framer search for the next head, which whoever reads the frames has to
//! find plausible.

use super::Piece;

/// Bytes of a broken frame that are kept: enough for its header.
const BROKEN_HEAD_BYTES: usize = 2048;

/// Budget of a search: bytes that may be parsed for each byte that is scanned. Where false heads
/// abound, each with a body to parse, the rest of the piece is skipped.
const MAX_COST_PER_BYTE: usize = 16;

/// The budget of a short piece.
const MIN_COST: usize = 4 << 10;

/// A growing frame that takes more than this asks for the memory first.
const LARGE_BYTES: usize = 256 << 10;

/// A frame, or what is left of one. Bytes are without the size prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    /// A gap took a part: `bytes` are only its beginning.
    pub broken: bool,
    /// Sequence number of the first byte (of the size prefix).
    pub seq: u32,
    pub start_ns: u64,
    pub end_ns: u64,
}

/// What a reader of frames decides about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the frame that follows.
    Next,
    /// The same, and keep nothing of this one: it held a secret.
    Forget,
    /// This cannot have been a frame: search.
    Lost,
    /// Nothing here is worth reading any more.
    Stop,
}

/// Reads frames, and judges whether bytes may begin one.
pub trait Reader {
    /// Whether bytes, with their size prefix, may be the beginning of a frame. Fewer bytes than a
    /// head: no.
    ///
    /// `first` says that a segment begins with them, as most frames begin one. What this costs is
    /// added to `cost`, in bytes read.
    fn plausible(&mut self, bytes: &[u8], first: bool, cost: &mut usize) -> bool;
    /// Whether what searches have found so far is unconfirmed, so that the next search continues the
    /// count of the last.
    fn in_vain(&self) -> bool;
    /// Notes bytes that were passed over, as no frame was found in them.
    fn skipped(&mut self, bytes: u64);
    /// A frame.
    fn frame(&mut self, frame: Frame<'_>) -> Verdict;
    /// A size that no frame has, or that is over the bound: what follows is searched for the next
    /// head.
    fn bad_size(&mut self) -> Verdict;
    /// A buffer that an earlier frame of any connection has left: used memory is faster than new
    /// memory.
    fn spare(&mut self) -> &mut Vec<u8>;
    /// The largest buffer that is kept for frames to come.
    fn spare_bytes(&self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For a plausible head.
    Searching,
    /// At a frame's beginning, or in its size.
    Between,
    /// `left` bytes of the frame are still to come; they are kept unless it is broken.
    Inside { left: usize, broken: bool },
    /// For good.
    Stopped,
}

/// What is left of a piece.
#[derive(Clone, Copy)]
struct Left<'a> {
    /// Sequence number of its first byte.
    seq: u32,
    bytes: &'a [u8],
    time_ns: u64,
    /// Nothing of the piece was taken yet.
    first: bool,
}

/// Cuts a stream into frames.
pub struct Framer {
    state: State,
    /// The current frame, with its size prefix, as far as it has come.
    buffer: Vec<u8>,
    seq: u32,
    start_ns: u64,
    /// Bytes passed over since the search began.
    searched: u64,
    /// What a search may still cost in this piece.
    allowance: usize,
    /// The current frame was found by a search: it may be none.
    tentative: bool,
}

impl Framer {
    /// At a frame's beginning if the stream's beginning was seen, else searching for one.
    #[must_use]
    pub fn new(at_beginning: bool) -> Self {
        let state = if at_beginning { State::Between } else { State::Searching };
        Self { state, buffer: Vec::new(), seq: 0, start_ns: 0, searched: 0, allowance: 0, tentative: false }
    }

    /// Whether the framer has lost, or not yet found, the frames' beginnings.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.state == State::Searching
    }

    /// Whether there is no current frame.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.state == State::Between && self.buffer.is_empty()
    }

    /// Whether a part of the current frame is not kept.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.state, State::Inside { broken: true, .. })
    }

    /// Bytes looked at in vain by the present search, and by those before it that have found
    /// nothing that was confirmed.
    #[must_use]
    pub fn searched(&self) -> u64 {
        self.searched
    }

    /// What is held of the current frame, with its size prefix.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.buffer
    }

    /// A copy of what is held of the current frame, and the sequence number of its first byte.
    #[must_use]
    pub fn kept(&self) -> (u32, Vec<u8>) {
        (self.seq, self.buffer.clone())
    }

    /// Bytes held for the current frame.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes that taking `more` will allocate beside what is held, where that is much; `copied`
    /// says that a whole frame is.
    #[must_use]
    pub fn wants(&self, more: usize, copied: bool) -> usize {
        let State::Inside { left, broken: false } = self.state else { return 0 };
        let more = more.min(left);
        let (len, capacity) = (self.buffer.len(), self.buffer.capacity());
        let grown =
            if capacity.saturating_sub(len) < more { len.saturating_add(len.min(left).max(more)) } else { 0 };
        let copy = if copied && more == left { len.saturating_add(left) } else { 0 };
        let wants = grown.saturating_add(copy);
        if wants > LARGE_BYTES { wants } else { 0 }
    }

    /// Holds no more than the head of the current frame, which counts as broken.
    pub fn shed(&mut self) {
        if let State::Inside { left, .. } = self.state {
            self.state = State::Inside { left, broken: true };
            self.buffer.truncate(BROKEN_HEAD_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    /// Reads no further and holds nothing.
    pub fn stop(&mut self) {
        self.state = State::Stopped;
        self.wipe();
    }

    /// Takes what the stream gives. A frame of more than `max_bytes` is taken for a wrong size.
    pub fn push(&mut self, piece: Piece<'_>, max_bytes: usize, reader: &mut impl Reader) {
        match piece {
            Piece::Gap { bytes } => self.gap(bytes, reader),
            Piece::Data { seq, bytes, time_ns } => {
                let mut left = Left { seq, bytes, time_ns, first: true };
                self.allowance = bytes.len().saturating_mul(MAX_COST_PER_BYTE).max(MIN_COST);
                while !left.bytes.is_empty() && self.state != State::Stopped {
                    let rest = self.data(left, max_bytes, reader);
                    let used = left.bytes.len().saturating_sub(rest.len());
                    left.seq = left.seq.wrapping_add(u32::try_from(used).unwrap_or(u32::MAX));
                    (left.bytes, left.first) = (rest, false);
                }
            }
        }
    }

    fn search(&mut self, reader: &impl Reader) {
        if self.state != State::Searching && !reader.in_vain() {
            self.searched = 0;
        }
        self.state = State::Searching;
        self.tentative = false;
        self.wipe();
    }

    fn pass_over(&mut self, bytes: usize, reader: &mut impl Reader) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.searched = self.searched.saturating_add(bytes);
        reader.skipped(bytes);
    }

    /// Gives the buffer back. Most connections are idle, so only one spare buffer is kept for all.
    fn clear(&mut self, reader: &mut impl Reader) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let most = reader.spare_bytes();
        let spare = reader.spare();
        if buffer.capacity() > spare.capacity() && buffer.capacity() <= most {
            buffer.clear();
            *spare = buffer;
        }
    }

    /// A frame of `left` more bytes begins: it takes the spare buffer, unless that is far too large
    /// for it.
    fn begin(&mut self, left: usize, reader: &mut impl Reader) {
        let spare = reader.spare();
        if spare.capacity() > self.buffer.capacity() && spare.capacity() <= left.saturating_mul(2) {
            let head = std::mem::replace(&mut self.buffer, std::mem::take(spare));
            self.buffer.extend_from_slice(&head);
        }
        self.state = State::Inside { left, broken: false };
    }

    /// Makes room for `more` bytes of a frame that still has `left`: twice what is there, so that a
    /// frame in many pieces is copied seldom, but never more than the frame is going to need, nor
    /// much for a size that is only claimed.
    fn reserve(&mut self, more: usize, left: usize) {
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < more {
            self.buffer.reserve_exact(self.buffer.len().min(left).max(more));
        }
    }

    /// Applies the reader's verdict on a frame of which `bytes` were there.
    fn obey(&mut self, verdict: Verdict, bytes: usize, reader: &mut impl Reader) {
        let tentative = std::mem::take(&mut self.tentative);
        match verdict {
            Verdict::Next => {
                self.state = State::Between;
                self.clear(reader);
            }
            Verdict::Forget => {
                self.state = State::Between;
                self.wipe();
            }
            Verdict::Lost => {
                let was_none = tentative || reader.in_vain();
                self.search(reader);
                if was_none {
                    self.pass_over(bytes, reader);
                }
            }
            Verdict::Stop => self.stop(),
        }
    }

    /// Overwrites what the buffer holds and gives it back. What was read where it lay never came
    /// into it; what an earlier, smaller buffer held when this one grew out of it is the
    /// allocator's.
    fn wipe(&mut self) {
        self.buffer.fill(0);
        // The last use of the bytes, or the compiler might leave the zeros out.
        std::hint::black_box(&mut self.buffer);
        self.buffer = Vec::new();
    }

    fn gap(&mut self, bytes: u64, reader: &mut impl Reader) {
        match self.state {
            State::Inside { left, .. }
                if bytes > 0 && u64::try_from(left).is_ok_and(|left| bytes <= left) =>
            {
                let left = left.saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
                self.buffer.truncate(BROKEN_HEAD_BYTES);
                self.state = State::Inside { left, broken: true };
                if left == 0 {
                    self.end(self.start_ns, reader);
                }
            }
            State::Inside { .. } => {
                // The current frame is broken too, and reported before the search.
                self.buffer.truncate(BROKEN_HEAD_BYTES);
                self.state = State::Inside { left: 0, broken: true };
                self.end(self.start_ns, reader);
                if self.state != State::Stopped {
                    self.search(reader);
                }
            }
            State::Between | State::Searching => self.search(reader),
            State::Stopped => {}
        }
    }

    /// Takes some of the bytes; gives the rest.
    fn data<'a>(&mut self, left: Left<'a>, max_bytes: usize, reader: &mut impl Reader) -> &'a [u8] {
        // A frame that a search has found is given up for a better one: a segment that begins with
        // a head.
        if self.tentative
            && left.first
            && matches!(self.state, State::Inside { .. })
            && reader.plausible(left.bytes, false, &mut 0)
        {
            self.pass_over(self.buffer.len(), reader);
            // What it was is not known: a secret too.
            self.wipe();
            self.state = State::Between;
        }
        match self.state {
            State::Stopped => &[],
            State::Searching => self.look_for_head(left, reader),
            State::Between => self.between(left, max_bytes, reader),
            State::Inside { left: missing, broken } => {
                let (part, rest) = left.bytes.split_at_checked(missing).unwrap_or((left.bytes, &[]));
                // What lies behind a hole is not where the frame's beginning would have it.
                let kept = if broken { &[] } else { part };
                self.reserve(kept.len(), missing);
                self.buffer.extend_from_slice(kept);
                let missing = missing.saturating_sub(part.len());
                self.state = State::Inside { left: missing, broken };
                if missing == 0 {
                    self.end(left.time_ns, reader);
                }
                rest
            }
        }
    }

    /// Passes over what cannot be a frame's head; gives the rest, which begins with one.
    fn look_for_head<'a>(&mut self, left: Left<'a>, reader: &mut impl Reader) -> &'a [u8] {
        let bytes = left.bytes;
        let (mut cost, mut skipped) = (0, bytes.len());
        for at in 0..bytes.len() {
            if cost > self.allowance {
                break;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            if reader.plausible(rest, left.first && at == 0, &mut cost) {
                skipped = at;
                break;
            }
        }
        self.allowance = self.allowance.saturating_sub(cost);
        self.pass_over(skipped, reader);
        if skipped < bytes.len() {
            self.state = State::Between;
            self.tentative = true;
        }
        bytes.get(skipped..).unwrap_or_default()
    }

    /// Takes a size prefix, or what is there of it, and the frame where all of it is there.
    #[inline]
    fn between<'a>(&mut self, left: Left<'a>, max_bytes: usize, reader: &mut impl Reader) -> &'a [u8] {
        let Left { seq, bytes, time_ns, .. } = left;
        if self.buffer.is_empty() {
            (self.seq, self.start_ns) = (seq, time_ns);
            // The whole frame in one piece is read where it lies.
            if let Some((size, rest)) = bytes.split_first_chunk()
                && let Ok(size) = usize::try_from(i32::from_be_bytes(*size))
                && size <= max_bytes
                && let Some((frame, rest)) = rest.split_at_checked(size)
            {
                let frame = Frame { bytes: frame, broken: false, seq, start_ns: time_ns, end_ns: time_ns };
                let verdict = reader.frame(frame);
                self.obey(verdict, size.saturating_add(4), reader);
                return rest;
            }
        }
        let wanted = 4_usize.saturating_sub(self.buffer.len()).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(head);
        if let Some(size) = self.buffer.first_chunk() {
            match usize::try_from(i32::from_be_bytes(*size)) {
                Ok(size) if size <= max_bytes => {
                    self.begin(size, reader);
                    if size == 0 {
                        self.end(time_ns, reader);
                    }
                }
                Ok(_) | Err(_) => {
                    let verdict = reader.bad_size();
                    let verdict = if verdict == Verdict::Next { Verdict::Lost } else { verdict };
                    self.obey(verdict, 4, reader);
                }
            }
        }
        rest
    }

    fn end(&mut self, time_ns: u64, reader: &mut impl Reader) {
        let broken = matches!(self.state, State::Inside { broken: true, .. });
        let frame = Frame {
            bytes: self.buffer.get(4..).unwrap_or_default(),
            broken,
            seq: self.seq,
            start_ns: self.start_ns,
            end_ns: time_ns,
        };
        let verdict = reader.frame(frame);
        self.obey(verdict, self.buffer.len(), reader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(String, bool, u64, u64)>, Vec<u8>, Counts);

    /// What a search has cost, and passed over; and whether it is to be taken for one in vain.
    #[derive(Default)]
    struct Counts {
        cost: usize,
        skipped: u64,
        in_vain: bool,
    }

    impl Reader for Seen {
        /// Every `?` may be a head, and whether it is one shows only by all that is there.
        fn plausible(&mut self, bytes: &[u8], _first: bool, cost: &mut usize) -> bool {
            if bytes[0] == b'?' {
                *cost += bytes.len();
                self.2.cost += bytes.len();
            }
            bytes.len() >= 5 && bytes[..3] == [0, 0, 0] && bytes[4] == b'<'
        }

        fn in_vain(&self) -> bool {
            self.2.in_vain
        }

        fn skipped(&mut self, bytes: u64) {
            self.2.skipped += bytes;
        }

        fn frame(&mut self, frame: Frame<'_>) -> Verdict {
            let text = String::from_utf8_lossy(frame.bytes).into_owned();
            let verdict = if text.starts_with("<none") { Verdict::Lost } else { Verdict::Next };
            self.0.push((text, frame.broken, frame.start_ns, frame.end_ns));
            verdict
        }

        fn bad_size(&mut self) -> Verdict {
            Verdict::Lost
        }

        fn spare(&mut self) -> &mut Vec<u8> {
            &mut self.1
        }

        fn spare_bytes(&self) -> usize {
            4 << 20
        }
    }

    fn wire(frames: &[&str]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f.as_bytes()].concat()).collect()
    }

    fn feed(framer: &mut Framer, seen: &mut Seen, bytes: &[u8], time_ns: u64) {
        framer.push(Piece::Data { seq: 0, bytes, time_ns }, 100, seen);
    }

    #[test]
    fn frames_in_any_pieces() {
        let bytes = wire(&["<one>", "", "<three>"]);
        for size in 1..bytes.len() {
            let (mut framer, mut seen) = (Framer::new(true), Seen::default());
            for (time, part) in bytes.chunks(size).enumerate() {
                feed(&mut framer, &mut seen, part, time as u64);
            }
            let texts: Vec<_> = seen.0.iter().map(|(text, broken, ..)| (text.as_str(), *broken)).collect();
            assert_eq!(texts, [("<one>", false), ("", false), ("<three>", false)], "in pieces of {size}");
            assert!(seen.0.iter().all(|(.., start, end)| start <= end));
        }
    }

    #[test]
    fn a_gap_inside_a_frame_breaks_that_frame_alone() {
        let (mut framer, mut seen) = (Framer::new(true), Seen::default());
        let bytes = wire(&["<one>", "<two>"]);
        feed(&mut framer, &mut seen, &bytes[..6], 0);
        framer.push(Piece::Gap { bytes: 3 }, 100, &mut seen);
        feed(&mut framer, &mut seen, &bytes[9..], 0);
        assert_eq!(seen.0, [("<o".into(), true, 0, 0), ("<two>".into(), false, 0, 0)]);
    }

    #[test]
    fn a_gap_over_a_frames_end_makes_it_search() {
        let (mut framer, mut seen) = (Framer::new(true), Seen::default());
        let bytes = wire(&["<one>", "<two>", "<three>"]);
        feed(&mut framer, &mut seen, &bytes[..6], 0);
        framer.push(Piece::Gap { bytes: 6 }, 100, &mut seen);
        feed(&mut framer, &mut seen, &bytes[12..], 0);
        let texts: Vec<_> = seen.0.iter().map(|(text, broken, ..)| (text.as_str(), *broken)).collect();
        assert_eq!(texts, [("<o", true), ("<three>", false)]);
    }

    #[test]
    fn in_the_middle_of_a_stream_the_next_plausible_head_is_found() {
        let (mut framer, mut seen) = (Framer::new(false), Seen::default());
        feed(&mut framer, &mut seen, &[b"rest of a frame".as_slice(), &wire(&["<two>"])].concat(), 0);
        assert_eq!((seen.0.len(), framer.searched()), (1, 15));
    }

    #[test]
    fn a_size_that_makes_no_sense_and_one_that_is_too_large() {
        let (mut framer, mut seen) = (Framer::new(true), Seen::default());
        feed(&mut framer, &mut seen, &[0xff, 0xff, 0xff, 0xfe, 1, 2], 0);
        assert!(framer.is_searching());
        feed(&mut framer, &mut seen, &wire(&["<two>"]), 0);
        let large = "<".repeat(101);
        feed(&mut framer, &mut seen, &wire(&[&large, "<four>"]), 0);
        let texts: Vec<_> = seen.0.iter().map(|(text, broken, ..)| (text.len(), *broken)).collect();
        assert_eq!(texts, [(5, false), (6, false)], "the large one is passed over, the next head found");
    }

    #[test]
    fn bytes_behind_a_hole_are_not_a_frames_beginning() {
        let (mut framer, mut seen) = (Framer::new(true), Seen::default());
        let bytes = wire(&["<one that is longer>", "<two>"]);
        feed(&mut framer, &mut seen, &bytes[..6], 0);
        framer.push(Piece::Gap { bytes: 3 }, 100, &mut seen);
        feed(&mut framer, &mut seen, &bytes[9..], 0);
        let texts: Vec<_> = seen.0.iter().map(|(text, broken, ..)| (text.as_str(), *broken)).collect();
        assert_eq!(texts, [("<o", true), ("<two>", false)]);
    }

    /// Each of the heads that are none would be read to the end of the piece.
    #[test]
    fn a_search_costs_no_more_than_some_times_its_bytes() {
        const SIZE: usize = 64 << 10;
        let (mut framer, mut seen) = (Framer::new(false), Seen::default());
        let piece = b"????????????".repeat(SIZE / 12);
        feed(&mut framer, &mut seen, &piece, 0);
        let most = (MAX_COST_PER_BYTE + 1) * SIZE;
        assert!(seen.2.cost <= most, "{} bytes read in {SIZE}", seen.2.cost);
        assert_eq!((framer.searched(), seen.2.skipped), (piece.len() as u64, piece.len() as u64));
        // Also where frames that turn out to be none lie between.
        seen.2 = Counts::default();
        let piece = [b"?".repeat(50), wire(&["<none>"])].concat().repeat(SIZE / 60);
        feed(&mut framer, &mut seen, &piece, 0);
        assert!(seen.2.cost <= most, "{} bytes read in {SIZE}", seen.2.cost);
        // The next piece is looked at again.
        feed(&mut framer, &mut seen, &wire(&["<two>"]), 0);
        assert_eq!(seen.0.last().unwrap().0, "<two>");
    }

    #[test]
    fn what_is_found_in_vain_does_not_begin_the_search_anew() {
        for (in_vain, searched) in [(true, 20), (false, 10)] {
            let (mut framer, mut seen) = (Framer::new(false), Seen::default());
            seen.2.in_vain = in_vain;
            for _ in 0..2 {
                feed(&mut framer, &mut seen, &wire(&["<none>"]), 0);
            }
            assert_eq!((framer.searched(), seen.2.skipped), (searched, 20));
        }
    }

    /// It may be one that holds a secret.
    #[test]
    fn a_frame_given_up_for_a_better_one_stays_in_no_buffer() {
        let (mut framer, mut seen) = (Framer::new(false), Seen::default());
        feed(&mut framer, &mut seen, &wire(&["<a password that goes on>"])[..20], 0);
        assert!(framer.held_bytes() > 0);
        feed(&mut framer, &mut seen, &wire(&["<two>"]), 0);
        assert_eq!((seen.0.len(), seen.1.capacity(), seen.2.skipped), (1, 0, 20));
    }
}
