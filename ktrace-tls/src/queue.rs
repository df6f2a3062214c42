//! Records that are held until a key opens them: of both directions, in the order in which they
//! passed.

use std::collections::VecDeque;

use crate::record::{Body, Bytes, HEADER, Header};
use crate::sample::Sample;
use crate::{Sender, Version};

/// A protected record that waits.
pub(crate) struct Held {
    pub(crate) seq: u32,
    pub(crate) header: Header,
    /// How many protected records of its direction passed before it: in TLS 1.2 its number. `None`
    /// where that is not known.
    pub(crate) number: Option<u64>,
    /// Whether a key that is searched for may open it.
    pub(crate) sample: bool,
    pub(crate) body: HeldBody,
}

/// The body, behind its header where it was gathered.
pub(crate) struct HeldBody(Bytes, usize);

impl Held {
    /// Of ciphertext, with the header.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.body.as_slice().len().saturating_add(HEADER)).unwrap_or(u64::MAX)
    }
}

impl HeldBody {
    pub(crate) fn as_slice(&self) -> &[u8] {
        let Self(bytes, start) = self;
        bytes.0.get(*start..).unwrap_or_default()
    }
}

impl From<Body<'_>> for HeldBody {
    fn from(body: Body<'_>) -> Self {
        match body {
            Body::There(body) => Self(Bytes(body.to_vec()), 0),
            // As long as what it holds: it may have grown beyond.
            Body::Gathered(mut bytes) => {
                bytes.shrink_to_fit();
                Self(Bytes(bytes), HEADER)
            }
        }
    }
}

pub(crate) enum Entry {
    Record(Held),
    /// Bytes that are missing here: of exactly `records`, or of an unknown number.
    Lost {
        bytes: u64,
        records: Option<u64>,
    },
}

struct Waiting {
    from: Sender,
    time_ns: u64,
    entry: Entry,
}

#[derive(Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Of ciphertext, with headers.
    client_bytes: usize,
    server_bytes: usize,
}

/// Bytes of a direction's samples together, where there are several.
const SAMPLE_BYTES: usize = 16 << 10;

/// Short records prove as much, and cost less.
const SHORT: usize = 2 << 10;

impl Queue {
    /// Of one direction.
    pub(crate) const MAX_SAMPLES: usize = 8;

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, from: Sender, entry: Entry, time_ns: u64) {
        let bytes = self.bytes_mut(from);
        *bytes = bytes.saturating_add(entry.bytes());
        self.waiting.push_back(Waiting { from, time_ns, entry });
    }

    pub(crate) fn pop(&mut self) -> Option<(Sender, Entry, u64)> {
        let Waiting { from, time_ns, entry } = self.waiting.pop_front()?;
        let bytes = self.bytes_mut(from);
        *bytes = bytes.saturating_sub(entry.bytes());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((from, entry, time_ns))
    }

    /// When the first of it passed.
    pub(crate) fn since(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.time_ns)
    }

    /// Of ciphertext.
    pub(crate) fn bytes(&self) -> usize {
        self.client_bytes.saturating_add(self.server_bytes)
    }

    pub(crate) fn bytes_of(&self, from: Sender) -> usize {
        match from {
            Sender::Client => self.client_bytes,
            Sender::Server => self.server_bytes,
        }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting.capacity().saturating_mul(size_of::<Waiting>()).saturating_add(self.bytes())
    }

    /// Entries of one direction.
    pub(crate) fn of(&self, from: Sender) -> impl DoubleEndedIterator<Item = &Entry> {
        self.waiting.iter().filter(move |waiting| waiting.from == from).map(|waiting| &waiting.entry)
    }

    /// Records of one direction.
    pub(crate) fn records(&self, from: Sender) -> impl DoubleEndedIterator<Item = &Held> {
        self.of(from).filter_map(|entry| match entry {
            Entry::Record(held) => Some(held),
            Entry::Lost { .. } => None,
        })
    }

    /// Records for a search: the first, as they are the ones to be opened, and the last, as a key
    /// may have changed in between.
    pub(crate) fn samples(&self, from: Sender, version: Option<Version>) -> Vec<Sample> {
        let all: Vec<&Held> = self.records(from).filter(|held| held.sample).collect();
        let half = Self::MAX_SAMPLES / 2;
        let last = all.len().saturating_sub(half).max(half);
        let mut chosen: Vec<(usize, &Held)> =
            all.into_iter().enumerate().filter(|(at, _)| *at < half || *at >= last).collect();
        chosen.sort_by_key(|(_, held)| held.body.as_slice().len() > SHORT);
        let mut bytes = 0_usize;
        chosen.retain(|(_, held)| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(held.body.as_slice().len());
            first || bytes <= SAMPLE_BYTES
        });
        chosen.sort_by_key(|(at, _)| *at);
        let sample = |(_, held): (usize, &Held)| Sample {
            seq: held.seq,
            header: held.header.0,
            body: held.body.as_slice().into(),
            version,
            number: if version == Some(Version::Tls12) { held.number } else { None },
        };
        chosen.into_iter().map(sample).collect()
    }

    fn bytes_mut(&mut self, from: Sender) -> &mut usize {
        match from {
            Sender::Client => &mut self.client_bytes,
            Sender::Server => &mut self.server_bytes,
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Record(held) => held.body.as_slice().len().saturating_add(HEADER),
            Self::Lost { .. } => 0,
        }
    }
}
