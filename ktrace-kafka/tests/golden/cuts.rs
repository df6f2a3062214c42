//! Every cut: wherever the bytes of a conversation are cut, and in whatever pieces they then come,
//! the same is reported.
//!
//! The conversation is cut at one byte, and what stands around the cut (the run of bytes of one
//! direction that it falls into, and the run that answers it) is read in each of the patterns; the
//! rest comes in whole runs. That keeps a case cheap. A stride through the bytes is tried always,
//! every byte with `KTRACE_FULL=1`.

use ktrace_kafka::{Direction, Push};

use crate::capture::Segment;
use crate::goldens;
use crate::reported::{Text, report};

/// A prime, so that it falls into step with no structure.
const STRIDE: usize = 23;

/// A memory page: what a read with a small buffer gives.
const PAGE: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Whole,
    /// Close to the cut: the rest of the run is the same wherever the cut is.
    Bytes,
    /// The size prefix, then what it announces.
    FourThenRest,
    Halves,
    Pages,
    Random,
}

const PATTERNS: [Pattern; 6] =
    [Pattern::Whole, Pattern::Bytes, Pattern::FourThenRest, Pattern::Halves, Pattern::Pages, Pattern::Random];

impl Pattern {
    /// The length of the next piece of a run that has `left` bytes, of which `taken` were given;
    /// `to_cut` is how far the cut is from here, on either side.
    fn next(self, taken: usize, left: usize, to_cut: usize, random: &mut u64) -> usize {
        const NEAR: usize = 16;
        let len = match self {
            Self::Whole => left,
            Self::Bytes if to_cut > NEAR && taken == 0 => to_cut - NEAR,
            Self::Bytes => 1,
            Self::FourThenRest if taken == 0 => 4,
            Self::FourThenRest => left,
            Self::Halves if taken == 0 => left / 2,
            Self::Halves => left,
            Self::Pages => PAGE,
            Self::Random => {
                // xorshift
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                (*random % 64) as usize
            }
        };
        len.clamp(1, left)
    }
}

/// Bytes of one direction without any of the other between them.
struct Run<'a> {
    first: &'a Segment,
    bytes: Vec<u8>,
    ends: bool,
}

/// The conversation. Loopback loses nothing, but now and then a kernel sends the same again; that
/// is left out.
fn runs(segments: &[Segment]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut next: [Option<u32>; 2] = [None; 2];
    for segment in segments {
        let next = &mut next[usize::from(segment.direction == Direction::ToClient)];
        let begin = segment.seq.wrapping_add(segment.syn.into());
        let bytes: &[u8] = match next {
            Some(next) if *next != begin => {
                let repeated = next.wrapping_sub(begin) as usize;
                segment.bytes.get(repeated..).unwrap_or_default()
            }
            _ => &segment.bytes,
        };
        *next = Some(next.unwrap_or(begin).wrapping_add(bytes.len() as u32));
        if bytes.is_empty() && !segment.syn && !segment.fin {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.first.direction == segment.direction && !run.first.syn => {
                run.bytes.extend(bytes);
                run.ends |= segment.fin;
            }
            _ => {
                assert_eq!(bytes.len(), segment.bytes.len(), "a run begins with bytes sent again");
                runs.push(Run { first: segment, bytes: bytes.to_vec(), ends: segment.fin });
            }
        }
    }
    runs
}

impl Run<'_> {
    /// Its bytes as pushes of the lengths that `next` gives, from how many are taken and how many
    /// are left.
    fn pieces<'a>(&'a self, pushes: &mut Vec<Push<'a>>, mut next: impl FnMut(usize, usize) -> usize) {
        let mut taken = 0;
        loop {
            let left = self.bytes.len() - taken;
            let end = taken + if left == 0 { 0 } else { next(taken, left) };
            let bytes = &self.bytes[taken..end];
            pushes.push(Push {
                seq: self.first.seq.wrapping_add(taken as u32),
                bytes,
                len: bytes.len() as u32,
                fin: self.ends && end == self.bytes.len(),
                ..self.first.push(0)
            });
            taken = end;
            if taken == self.bytes.len() {
                return;
            }
        }
    }
}

/// The conversation with run `cut_run` cut at its byte `cut`, and that run and the next in the
/// pattern's pieces.
fn cut<'a>(
    runs: &'a [Run<'a>],
    cut_run: usize,
    cut: usize,
    pattern: Pattern,
    seed: u64,
    pushes: &mut Vec<Push<'a>>,
) {
    pushes.clear();
    let mut random = seed | 1;
    for (place, run) in runs.iter().enumerate() {
        if place == cut_run {
            run.pieces(pushes, |taken, _| {
                // each side of the cut is read on its own
                let (start, end) = if taken < cut { (0, cut) } else { (cut, run.bytes.len()) };
                pattern.next(taken - start, end - taken, taken.abs_diff(cut), &mut random)
            });
        } else if place == cut_run + 1 {
            run.pieces(pushes, |taken, left| pattern.next(taken, left, taken, &mut random));
        } else {
            run.pieces(pushes, |_, left| left);
        }
    }
}

/// Holds one connection's cuts against its packets as captured; returns how many cases there were.
fn check(name: &str, segments: &[Segment], stride: usize) -> usize {
    let reported = |pushes: &[Push<'_>]| {
        let mut text = Text::default();
        report([pushes.iter().copied()], &mut text);
        text.0
    };
    let whole: Vec<Push<'_>> = segments.iter().map(|segment| segment.push(0)).collect();
    let expected = reported(&whole);
    let runs = runs(segments);
    let mut pushes = Vec::new();
    for run in &runs {
        run.pieces(&mut pushes, |_, _| 1);
    }
    assert_eq!(reported(&pushes), expected, "{name}: byte by byte");

    let places =
        runs.iter().enumerate().flat_map(|(place, run)| (1..run.bytes.len()).map(move |at| (place, at)));
    let mut cases = 0;
    for (number, (place, at)) in places.enumerate().step_by(stride) {
        for pattern in PATTERNS {
            cut(&runs, place, at, pattern, number as u64, &mut pushes);
            assert_eq!(reported(&pushes), expected, "{name}: run {place} cut at {at}, {pattern:?}");
            cases += 1;
        }
    }
    cases
}

fn check_all(version: &str) {
    let stride = if std::env::var_os("KTRACE_FULL").is_some() { 1 } else { STRIDE };
    let mut cases = 0;
    for golden in goldens(version) {
        for segments in &golden.connections {
            cases += check(&golden.name, segments, stride);
        }
    }
    println!("{version}: {cases} cases");
    assert!(cases > 0);
}

#[test]
fn cuts_4_3_0() {
    check_all("4.3.0");
}

#[test]
fn cuts_3_9_1() {
    check_all("3.9.1");
}
