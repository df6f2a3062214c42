//! Trace context in record headers: which keys, which formats, which comes first.
//!
//! A format is one line in `table.rs`: its name, its header keys, and the function that reads their values. A family
//! of formats has a file. Users add keys of their own with [`Wanted::Key`]. Keys match in any case of letters, but Kafka's
//! are case-sensitive: a key as its tracer writes it wins over one in another case. Of a repeated key the last value counts,
//! as in Java's `lastHeader`; a value that cannot be read counts as none, as W3C has it, so that one before it is used. The
//! loser is kept where it names another trace: some clients go on with the first value.

mod b3;
mod base64;
mod binary;
mod cloud;
mod datadog;
mod decimal;
mod hex;
pub mod id;
mod instana;
mod jaeger;
mod newrelic;
mod ottrace;
mod pair;
mod pinpoint;
mod sentry;
mod skywalking;
mod table;
mod w3c;
mod xray;

#[cfg(test)]
mod tests;

pub use id::{SpanId, TraceId};
use table::TABLE;
use xxhash_rust::xxh3::xxh3_128;

/// What a record's headers say of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The format's name in the table, or `key:NAME`; with `-hash` at its end where the format's trace id is not of
    /// 16 bytes and `trace_id` is the XXH3-128 of its text.
    pub format: &'static str,
    pub trace_id: TraceId,
    /// The span that sent the message; `None` where only the trace is named.
    pub span_id: Option<SpanId>,
    /// W3C trace flags (bit 0: sampled), where the format has them.
    pub flags: Option<u8>,
    /// W3C `tracestate`.
    pub state: Option<&'a str>,
}

/// The outcome of a look into a record's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// The first format, in the order of preference, that was there and could be read.
    pub context: Option<TraceContext<'a>>,
    /// What less preferred formats, and values under the same keys, say where they name another trace, in the order of
    /// preference. Hashed ids are not compared and not here: they always differ.
    pub others: &'a [TraceContext<'a>],
    /// The formats whose keys were there, but whose values could not be read.
    pub malformed: Formats,
}

/// A set of an extractor's formats; [`Extractor::names`] tells which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats(u64);

impl Formats {
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// What a format makes of the values of its keys.
enum Read<'a> {
    Context {
        trace_id: TraceId,
        span_id: Option<SpanId>,
        flags: Option<u8>,
        state: Option<&'a str>,
    },
    /// A trace id that is a hash, and the name that tells so.
    Hashed {
        format: &'static str,
        trace_id: TraceId,
        span_id: Option<SpanId>,
        flags: Option<u8>,
    },
    /// Legal, but it names no trace (b3's lone sampling flag).
    Nothing,
    Malformed,
}

impl Read<'_> {
    /// A format that has both ids or none.
    fn ids(trace: Option<TraceId>, span: Option<SpanId>, flags: Option<u8>) -> Self {
        match (trace, span) {
            (Some(trace_id), Some(span_id)) => {
                Self::Context { trace_id, span_id: Some(span_id), flags, state: None }
            }
            _ => Self::Malformed,
        }
    }
}

/// Reads the values of a format's keys.
type ReadFn = for<'a> fn(&Values<'_, 'a>) -> Read<'a>;

/// The longest value that is read, in bytes: SkyWalking's limit, the highest that a format sets.
const MAX_VALUE_BYTES: usize = 2048;

/// The last value of each key of a format, in the table's order of keys.
struct Values<'s, 'a> {
    slots: &'s [&'a [u8]; SLOTS],
    present: u64,
    first: u32,
}

impl<'a> Values<'_, 'a> {
    /// The value of the format's key `index`. One that is too long is given as an empty one, which no format knows: it
    /// is malformed where it is needed, and missing where it is not.
    #[inline]
    fn get(&self, index: u32) -> Option<&'a [u8]> {
        let slot = self.first.wrapping_add(index);
        if self.present.wrapping_shr(slot) & 1 == 0 {
            return None;
        }
        let value = *self.slots.get(usize::try_from(slot).ok()?)?;
        Some(if value.len() > MAX_VALUE_BYTES { &[] } else { value })
    }
}

/// The names of all formats, in the order in which they are preferred.
pub fn formats() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|format| format.name)
}

/// The header keys of all formats, as their tracers write them.
pub fn keys() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|format| format.keys.iter().copied())
}

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
pub enum WantedError {
    #[error("no trace context format is called `{0}`")]
    Unknown(String),
    #[error("more than 64 header keys are looked for")]
    TooMany,
    #[error("`key:` needs the name of a header")]
    EmptyKey,
}

/// Header keys looked for at once: a bit each.
const SLOTS: usize = 64;

/// What a record's headers hold of the keys that are looked for; used again for the next record.
pub struct Slots<'a> {
    values: [&'a [u8]; SLOTS],
    present: u64,
    /// Those whose key came more than once, or not as its tracer writes it.
    odd: u64,
    /// Of those: the key of the value is not as its tracer writes it.
    inexact: u64,
    /// Of those: another value had to make room for it, or could not take its place.
    repeated: u64,
    /// That value; `None` until there is one, as each batch has slots of its own.
    displaced: Option<[&'a [u8]; SLOTS]>,
    others: Vec<TraceContext<'a>>,
}

impl Slots<'_> {
    #[must_use]
    pub fn new() -> Self {
        Self {
            values: [&[]; SLOTS],
            present: 0,
            odd: 0,
            inexact: 0,
            repeated: 0,
            displaced: None,
            others: Vec::new(),
        }
    }

    /// Forgets the record before.
    #[inline]
    pub fn clear(&mut self) {
        (self.present, self.odd) = (0, 0);
    }
}

impl<'a> Slots<'a> {
    #[inline]
    fn note(&mut self, slot: u8, value: &'a [u8], is_exact: bool) {
        let bit = 1_u64.wrapping_shl(u32::from(slot));
        if self.present & bit != 0 || !is_exact {
            return self.note_odd(slot, value, is_exact);
        }
        if let Some(place) = self.values.get_mut(usize::from(slot)) {
            *place = value;
            self.present |= bit;
        }
    }

    /// A key that comes again, or in another case of letters.
    #[cold]
    fn note_odd(&mut self, slot: u8, value: &'a [u8], is_exact: bool) {
        let bit = 1_u64.wrapping_shl(u32::from(slot));
        let place = usize::from(slot);
        let displaced = self.displaced.get_or_insert([&[]; SLOTS]);
        let (Some(known), Some(displaced)) = (self.values.get_mut(place), displaced.get_mut(place)) else {
            return;
        };
        if self.odd & bit == 0 {
            self.odd |= bit;
            (self.repeated, self.inexact) = (self.repeated & !bit, self.inexact & !bit);
        }
        if self.present & bit == 0 {
            *known = value;
            self.present |= bit;
            self.inexact |= bit;
            return;
        }
        if *known != value {
            self.repeated |= bit;
            *displaced = value;
            if is_exact || self.inexact & bit != 0 {
                std::mem::swap(known, displaced);
            }
        }
        if is_exact {
            self.inexact &= !bit;
        }
    }
}

impl Default for Slots<'_> {
    fn default() -> Self {
        Self::new()
    }
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

/// Where a key's bucket is: from its length and its first and last byte, the same for both cases of letters. Most headers
/// that are not looked for end in an empty one.
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
    /// Looks for these formats, the first preferred. A user's keys live as long as the program: they come from its
    /// configuration.
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
                keep_displaced(entry, &found, (displaced, repeated), &mut context, others);
            }
        }
        Found { context, others, malformed }
    }
}

/// Puts what a format says where it belongs: first of all, or beside another trace. Whether it could be read.
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

/// The same with what a format makes of the values that others of their keys have displaced, with those of its keys that come once.
#[cold]
#[inline(never)]
fn keep_displaced<'a>(
    entry: &Entry,
    found: &Values<'_, 'a>,
    (displaced, repeated): (&[&'a [u8]; SLOTS], u64),
    context: &mut Option<TraceContext<'a>>,
    others: &mut Vec<TraceContext<'a>>,
) {
    let mut slots = *found.slots;
    for (place, (slot, value)) in (0_u32..).zip(slots.iter_mut().zip(displaced)) {
        if (repeated & entry.mask).wrapping_shr(place) & 1 == 1 {
            *slot = value;
        }
    }
    keep(entry.name, (entry.read)(&Values { slots: &slots, ..*found }), context, others);
}

/// A value as the text formats mean it: without blanks around it, and without the quotes that JSON header mappers add, or
/// what AMQP puts before it.
#[inline]
fn text(value: &[u8]) -> &[u8] {
    // Nearly all values are: a letter or a digit at either end.
    if let (Some(first), Some(last)) = (value.first(), value.last())
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
    {
        return value;
    }
    unquoted(of_amqp(value).unwrap_or(value).trim_ascii())
}

/// A string, symbol or binary in AMQP 1.0's encoding: a type, and a length of one byte or of four. Azure Event Hubs hands what
/// AMQP clients have sent as application properties over to Kafka's clients like that.
fn of_amqp(value: &[u8]) -> Option<&[u8]> {
    let (len, text) = match value {
        [0xa0 | 0xa1 | 0xa3, len, text @ ..] => (usize::from(*len), text),
        [0xb0 | 0xb1 | 0xb3, l0, l1, l2, l3, text @ ..] => {
            (usize::try_from(u32::from_be_bytes([*l0, *l1, *l2, *l3])).ok()?, text)
        }
        _ => return None,
    };
    (text.len() == len).then_some(text)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// A trace id of 32 hex digits, or of 16 and then padded on the left.
fn trace_id(text: &[u8]) -> Option<TraceId> {
    if text.len() == 16 {
        let low: [u8; 8] = hex::decode(text)?;
        return TraceId::new(u128::from(u64::from_be_bytes(low)).to_be_bytes());
    }
    TraceId::new(hex::decode(text)?)
}

/// A span id of 16 hex digits.
fn span_id(text: &[u8]) -> Option<SpanId> {
    SpanId::new(hex::decode(text)?)
}

/// A trace id of 1 to 32 hex digits.
fn padded_trace_id(text: &[u8]) -> Option<TraceId> {
    TraceId::new(hex::number(text)?.to_be_bytes())
}

/// A span id of 1 to 16 hex digits, or of more zeros before them.
fn padded_span_id(text: &[u8]) -> Option<SpanId> {
    SpanId::new(u64::try_from(hex::number(text)?).ok()?.to_be_bytes())
}

/// A sampling decision as W3C's flags.
fn sampled(text: &[u8]) -> Option<u8> {
    match text {
        b"1" | b"true" => Some(1),
        b"0" | b"false" => Some(0),
        _ => None,
    }
}

/// A trace whose id is not of 16 bytes: XXH3-128 with seed 0 of the id's text, big endian, so that all agents name it
/// alike.
fn hashed<'a>(
    format: &'static str,
    text: &[u8],
    span_id: Option<SpanId>,
    flags: Option<u8>,
) -> Option<Read<'a>> {
    let trace_id = TraceId::new(xxh3_128(text).to_be_bytes())?;
    Some(Read::Hashed { format, trace_id, span_id, flags })
}
