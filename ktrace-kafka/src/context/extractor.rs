//! Looks for trace context in record headers: which formats, in which order.

use super::found::{Formats, Found, TraceContext};
use super::pair;
use super::read::{Read, ReadFn, SLOTS, Values};
use super::slots::Slots;
use super::table::TABLE;

/// A format that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A format of the table, by its name.
    Format(String),
    /// A user's own header key; its value is a `traceparent`, a trace id in hex, or a UUID.
    Key(String),
}

/// Why a list of formats was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WantedError {
    #[error("no trace context format is called `{0}`")]
    /// No format has this name.
    Unknown(String),
    #[error("more than 64 header keys are looked for")]
    /// All formats together have too many keys.
    TooMany,
    #[error("`key:` needs the name of a header")]
    /// A user's key is empty.
    EmptyKey,
}

/// A format that this extractor looks for, and where its keys' values lie in the slots.
struct Entry {
    name: &'static str,
    first: u32,
    mask: u64,
    read: ReadFn,
}

/// A header key as its tracer writes it, and its slot.
struct Key {
    written: Box<[u8]>,
    slot: u8,
}

/// Where a key's bucket is: from its length and its first and last byte, the same for both cases of
/// letters. Most headers that are not looked for end in an empty one.
#[inline]
fn bucket(key: &[u8]) -> u8 {
    let (Some(first), Some(last)) = (key.first(), key.last()) else { return 0 };
    let [len, ..] = key.len().to_le_bytes();
    len.wrapping_mul(29) ^ (first | 0x20) ^ (last | 0x20).wrapping_mul(8)
}

/// Whether a key is this one: `Some(true)` if letter by letter, `Some(false)` if in another case.
#[inline]
fn is_key(key: &[u8], written: &[u8]) -> Option<bool> {
    if key.len() != written.len() {
        return None;
    }
    // Most keys are of 8 to 16 bytes: two words, which may overlap.
    if let (Some(start), Some(end)) = (key.first_chunk::<8>(), key.last_chunk::<8>())
        && key.len() <= 16
        && written.first_chunk() == Some(start)
        && written.last_chunk() == Some(end)
    {
        return Some(true);
    }
    key.eq_ignore_ascii_case(written).then(|| key == written)
}

/// Looks for trace context in record headers, in a given order of formats.
pub struct Extractor {
    /// In the order of preference, at most as many as there are slots.
    entries: Vec<Entry>,
    /// The entry of each slot.
    entry_of: [u8; SLOTS],
    /// For each [`bucket`] the place of its keys, counted from 1; 0 for none.
    buckets: Box<[u8; 256]>,
    keys: Vec<Vec<Key>>,
}

impl Default for Extractor {
    fn default() -> Self {
        Self::assemble(TABLE.iter().map(|format| (format.name, format.keys.to_vec(), format.read)))
    }
}

impl Extractor {
    /// Looks for these formats, the first preferred. A user's keys live as long as the program:
    /// they come from its configuration.
    pub fn new(wanted: &[Wanted]) -> Result<Self, WantedError> {
        let mut formats = vec![];
        let mut keys = 0_usize;
        for wanted in wanted {
            let format = match wanted {
                Wanted::Format(name) => {
                    let format = TABLE
                        .iter()
                        .find(|format| format.name.eq_ignore_ascii_case(name))
                        .ok_or_else(|| WantedError::Unknown(name.clone()))?;
                    (format.name, format.keys.to_vec(), format.read)
                }
                Wanted::Key(key) if key.is_empty() => return Err(WantedError::EmptyKey),
                Wanted::Key(key) => {
                    let name: &'static str = Box::leak(format!("key:{key}").into_boxed_str());
                    let key = name.strip_prefix("key:").unwrap_or(name);
                    (name, vec![key], pair::read as ReadFn)
                }
            };
            keys = keys.saturating_add(format.1.len());
            formats.push(format);
        }
        if keys > SLOTS {
            return Err(WantedError::TooMany);
        }
        Ok(Self::assemble(formats.into_iter()))
    }

    fn assemble(formats: impl Iterator<Item = (&'static str, Vec<&'static str>, ReadFn)>) -> Self {
        let mut extractor =
            Self { entries: vec![], entry_of: [0; SLOTS], buckets: Box::new([0; 256]), keys: vec![] };
        let mut slot = 0_u8;
        for (name, keys, read) in formats {
            let first = u32::from(slot);
            let mut mask = 0_u64;
            for key in keys {
                extractor.add(Key { written: key.as_bytes().into(), slot });
                if let Some(entry) = extractor.entry_of.get_mut(usize::from(slot)) {
                    *entry = u8::try_from(extractor.entries.len()).unwrap_or(u8::MAX);
                }
                mask |= 1_u64.checked_shl(u32::from(slot)).unwrap_or(0);
                slot = slot.saturating_add(1);
            }
            extractor.entries.push(Entry { name, first, mask, read });
        }
        extractor
    }

    fn add(&mut self, key: Key) {
        let Some(place) = self.buckets.get_mut(usize::from(bucket(&key.written))) else { return };
        if *place == 0 {
            self.keys.push(vec![]);
            *place = u8::try_from(self.keys.len()).unwrap_or(0);
        }
        if let Some(keys) = usize::from(*place).checked_sub(1).and_then(|place| self.keys.get_mut(place)) {
            keys.push(key);
        }
    }

    /// Keeps a header's value if its key is looked for.
    #[inline]
    pub fn note<'a>(&self, slots: &mut Slots<'a>, key: &[u8], value: &'a [u8]) {
        let place = self.buckets.get(usize::from(bucket(key))).copied().unwrap_or(0);
        if place != 0 {
            self.compare(place, slots, key, value);
        }
    }

    fn compare<'a>(&self, place: u8, slots: &mut Slots<'a>, key: &[u8], value: &'a [u8]) {
        let keys = usize::from(place).checked_sub(1).and_then(|place| self.keys.get(place));
        for candidate in keys.into_iter().flatten() {
            if let Some(is_exact) = is_key(key, &candidate.written) {
                slots.note(candidate.slot, value, is_exact);
            }
        }
    }

    /// Reads what was noted.
    #[inline]
    #[must_use]
    pub fn find<'s>(&self, slots: &'s mut Slots<'_>) -> Found<'s> {
        if slots.present == 0 { Found::default() } else { self.read(slots) }
    }

    /// The names of formats that were found malformed.
    pub fn names(&self, formats: Formats) -> impl Iterator<Item = &'static str> {
        let is_in = move |place: usize| {
            u32::try_from(place)
                .ok()
                .and_then(|place| formats.0.checked_shr(place))
                .is_some_and(|bits| bits & 1 == 1)
        };
        self.entries.iter().enumerate().filter(move |(place, _)| is_in(*place)).map(|(_, entry)| entry.name)
    }

    fn read<'s>(&self, slots: &'s mut Slots<'_>) -> Found<'s> {
        let Slots { values, present, odd, displaced, repeated, others, .. } = slots;
        others.clear();
        let repeated = *repeated & *odd;
        let mut context: Option<TraceContext<'_>> = None;
        let mut malformed = Formats::default();
        let mut left = *present;
        while left != 0 {
            // Slots are in the order of the formats, so the lowest is of the most preferred.
            let place =
                self.entry_of.get(usize::try_from(left.trailing_zeros()).unwrap_or(0)).copied().unwrap_or(0);
            let Some(entry) = self.entries.get(usize::from(place)) else { break };
            let found = Values { slots: values, present: left & entry.mask, first: entry.first };
            left &= !entry.mask;
            let read = (entry.read)(&found);
            // One after the other, as most keys come once, and what was read is large.
            if !keep(entry.name, read, &mut context, others) {
                malformed.0 |= 1_u64.wrapping_shl(u32::from(place));
            }
            if repeated & entry.mask != 0
                && let Some(displaced) = displaced
            {
                let displaced = Displaced { values: displaced, keys: repeated & entry.mask };
                keep_displaced(entry, &found, displaced, &mut context, others);
            }
        }
        Found { context, others, malformed }
    }
}

/// Puts what a format says where it belongs: first of all, or beside another trace. Whether it
/// could be read.
#[inline(always)]
fn keep<'a>(
    name: &'static str,
    read: Read<'a>,
    context: &mut Option<TraceContext<'a>>,
    others: &mut Vec<TraceContext<'a>>,
) -> bool {
    let read = match read {
        Read::Context { trace_id, span_id, flags, state } => {
            TraceContext { format: name, trace_id, span_id, flags, state }
        }
        Read::Hashed { format, trace_id, span_id, flags } if context.is_none() => {
            TraceContext { format, trace_id, span_id, flags, state: None }
        }
        Read::Hashed { .. } | Read::Nothing => return true,
        Read::Malformed => return false,
    };
    match context {
        None => *context = Some(read),
        Some(first) => {
            let is_same = |known: &TraceContext<'_>| known.trace_id.may_be(read.trace_id);
            if !is_same(first) && !others.iter().any(is_same) {
                others.push(read);
            }
        }
    }
    true
}

/// Values that another one under the same key has displaced.
struct Displaced<'s, 'a> {
    values: &'s [&'a [u8]; SLOTS],
    /// The slots of the keys that have one, a bit each.
    keys: u64,
}

/// The same with what a format makes of the values that others of their keys have displaced, with
/// those of its keys that come once.
#[cold]
#[inline(never)]
fn keep_displaced<'a>(
    entry: &Entry,
    found: &Values<'_, 'a>,
    displaced: Displaced<'_, 'a>,
    context: &mut Option<TraceContext<'a>>,
    others: &mut Vec<TraceContext<'a>>,
) {
    let mut slots = *found.slots;
    for (place, (slot, value)) in (0_u32..).zip(slots.iter_mut().zip(displaced.values)) {
        if displaced.keys.wrapping_shr(place) & 1 == 1 {
            *slot = value;
        }
    }
    keep(entry.name, (entry.read)(&Values { slots: &slots, ..*found }), context, others);
}
