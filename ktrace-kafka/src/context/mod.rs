//! Trace context in record headers: which keys, which formats, which comes first.
//!
//! A format is one line in [`TABLE`]: its name, its header keys, and the function that reads their values. Users add
//! keys of their own with [`Wanted::Key`]. Keys match in any case of letters; of a repeated key the last value counts,
//! as in Java's `lastHeader`.

mod b3;
mod hex;
pub mod id;
mod pair;
mod w3c;

pub use id::{SpanId, TraceId};

/// What a record's headers say of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The format's name in the table, or `key:NAME`.
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
    /// A format's key was there, but its value could not be read.
    pub malformed: bool,
}

/// What a format makes of the values of its keys.
enum Read<'a> {
    Context {
        trace_id: TraceId,
        span_id: Option<SpanId>,
        flags: Option<u8>,
        state: Option<&'a str>,
    },
    /// Legal, but it names no trace (b3's lone sampling flag).
    Nothing,
    Malformed,
}

/// The last value of each key of a format, in the table's order of keys.
struct Values<'s, 'a> {
    slots: &'s [&'a [u8]],
    present: u64,
}

impl<'a> Values<'_, 'a> {
    fn get(&self, index: usize) -> Option<&'a [u8]> {
        (self.present.checked_shr(u32::try_from(index).ok()?)? & 1 == 1)
            .then(|| self.slots.get(index).copied())?
    }
}

/// One format: a line of the table.
struct Format {
    name: &'static str,
    keys: &'static [&'static str],
    read: for<'a> fn(&Values<'_, 'a>) -> Read<'a>,
}

/// All formats, in the order in which they are preferred.
static TABLE: &[Format] = &[
    Format { name: "traceparent", keys: &["traceparent", "tracestate"], read: w3c::read },
    Format { name: "b3", keys: &["b3"], read: b3::read_single },
    Format {
        name: "b3multi",
        keys: &["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled", "X-B3-Flags"],
        read: b3::read_multi,
    },
    Format { name: "trace_id", keys: &["trace_id", "span_id"], read: pair::read },
    Format { name: "traceId", keys: &["traceId", "spanId"], read: pair::read },
    Format { name: "trace-id", keys: &["trace-id", "span-id"], read: pair::read },
];

/// The names of all formats, in the order in which they are preferred.
pub fn formats() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|format| format.name)
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

/// The values of the keys that a record had; used again for the next record.
pub struct Slots<'a> {
    values: [&'a [u8]; SLOTS],
    present: u64,
}

impl Slots<'_> {
    #[must_use]
    pub fn new() -> Self {
        Self { values: [&[]; SLOTS], present: 0 }
    }

    /// Forgets the record before.
    pub fn clear(&mut self) {
        self.present = 0;
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
    first: usize,
    mask: u64,
    read: for<'a> fn(&Values<'_, 'a>) -> Read<'a>,
}

/// A header key in lower case, and its slot.
struct Key {
    lower: Box<[u8]>,
    bit: u8,
}

/// Looks for trace context in record headers, in a given order of formats.
pub struct Extractor {
    entries: Vec<Entry>,
    /// Keys by their length: most headers are refused by that alone.
    by_length: Vec<Vec<Key>>,
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
                    (name, vec![key], pair::read_own as for<'a> fn(&Values<'_, 'a>) -> Read<'a>)
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

    fn assemble(
        formats: impl Iterator<Item = (&'static str, Vec<&'static str>, for<'a> fn(&Values<'_, 'a>) -> Read<'a>)>,
    ) -> Self {
        let mut entries = vec![];
        let mut by_length: Vec<Vec<Key>> = vec![];
        let mut bit = 0_u8;
        for (name, keys, read) in formats {
            let first = usize::from(bit);
            let mut mask = 0_u64;
            for key in keys {
                if by_length.len() <= key.len() {
                    by_length.resize_with(key.len().saturating_add(1), Vec::new);
                }
                let lower = key.to_ascii_lowercase().into_bytes().into_boxed_slice();
                if let Some(bucket) = by_length.get_mut(key.len()) {
                    bucket.push(Key { lower, bit });
                }
                mask |= 1_u64.checked_shl(u32::from(bit)).unwrap_or(0);
                bit = bit.saturating_add(1);
            }
            entries.push(Entry { name, first, mask, read });
        }
        Self { entries, by_length }
    }

    /// Keeps a header's value if its key is looked for.
    #[inline]
    pub fn note<'a>(&self, slots: &mut Slots<'a>, key: &[u8], value: &'a [u8]) {
        let Some(bucket) = self.by_length.get(key.len()) else { return };
        for candidate in bucket {
            if key.eq_ignore_ascii_case(&candidate.lower)
                && let Some(slot) = slots.values.get_mut(usize::from(candidate.bit))
            {
                *slot = value;
                slots.present |= 1_u64.checked_shl(u32::from(candidate.bit)).unwrap_or(0);
            }
        }
    }

    /// Reads what was noted.
    #[inline]
    #[must_use]
    pub fn find<'a>(&self, slots: &Slots<'a>) -> Found<'a> {
        if slots.present == 0 { Found::default() } else { self.read(slots) }
    }

    fn read<'a>(&self, slots: &Slots<'a>) -> Found<'a> {
        let mut found = Found::default();
        for entry in &self.entries {
            if slots.present & entry.mask == 0 {
                continue;
            }
            let values = Values {
                slots: slots.values.get(entry.first..).unwrap_or_default(),
                present: u32::try_from(entry.first)
                    .map_or(0, |first| slots.present.checked_shr(first).unwrap_or(0)),
            };
            match (entry.read)(&values) {
                Read::Context { trace_id, span_id, flags, state } => {
                    found.context =
                        Some(TraceContext { format: entry.name, trace_id, span_id, flags, state });
                    break;
                }
                Read::Nothing => {}
                Read::Malformed => found.malformed = true,
            }
        }
        found
    }
}

/// A value as the text formats mean it: without blanks around it, and without the quotes that JSON header mappers add.
fn text(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
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

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const S: &str = "00f067aa0ba902b7";

    fn find<'a>(extractor: &Extractor, headers: &'a [(&'a str, &'a str)]) -> Found<'a> {
        let mut slots = Slots::new();
        for (key, value) in headers {
            extractor.note(&mut slots, key.as_bytes(), value.as_bytes());
        }
        extractor.find(&slots)
    }

    fn is(found: Found<'_>, format: &str) -> bool {
        found.context.is_some_and(|context| {
            context.format == format
                && context.trace_id.to_string() == T
                && context.span_id.is_some_and(|id| id.to_string() == S)
        })
    }

    #[test]
    fn every_format_is_read() {
        let all = Extractor::default();
        let parent = format!("00-{T}-{S}-01");
        assert!(is(find(&all, &[("traceparent", &parent)]), "traceparent"));
        assert!(is(find(&all, &[("TraceParent", &format!(" \"{parent}\" "))]), "traceparent"));
        assert!(is(find(&all, &[("b3", &format!("{T}-{S}-1"))]), "b3"));
        assert!(is(find(&all, &[("b3", &format!("{T}-{S}"))]), "b3"));
        assert!(is(find(&all, &[("x-b3-traceid", T), ("X-B3-SpanId", S), ("X-B3-Sampled", "1")]), "b3multi"));
        assert!(is(find(&all, &[("trace_id", T), ("span_id", S)]), "trace_id"));
        assert!(is(find(&all, &[("traceId", T), ("spanId", S)]), "traceId"));
        assert!(is(find(&all, &[("trace-id", T), ("span-id", S)]), "trace-id"));
        assert!(is(
            find(&all, &[("trace-id", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"), ("span-id", S)]),
            "trace-id"
        ));
    }

    #[test]
    fn flags_and_state_come_along() {
        let parent = format!("00-{T}-{S}-01");
        let all = Extractor::default();
        let headers = [("tracestate", "a=1,b=2"), ("traceparent", &parent)];
        let context = find(&all, &headers).context.unwrap();
        assert_eq!((context.flags, context.state), (Some(1), Some("a=1,b=2")));
    }

    #[test]
    fn the_preferred_format_wins_and_the_last_value_of_a_key() {
        let all = Extractor::default();
        let (old, new) = (format!("00-{}-{S}-01", "a".repeat(32)), format!("00-{T}-{S}-00"));
        assert!(is(
            find(
                &all,
                &[("b3", "0123456789abcdef-0123456789abcdef"), ("traceparent", &old), ("traceparent", &new)]
            ),
            "traceparent"
        ));
        let b3 = format!("{T}-{S}");
        let headers = [("traceparent", "nonsense"), ("b3", &b3)];
        let found = find(&all, &headers);
        assert!(found.malformed && is(found, "b3"), "a malformed one is passed over: {found:?}");
    }

    #[test]
    fn what_is_not_a_context_is_none() {
        let all = Extractor::default();
        let zero = format!("00-{}-{S}-01", "0".repeat(32));
        for (key, value) in [
            ("traceparent", &zero[..]),
            ("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
            ("traceparent", ""),
            ("b3", "x"),
            ("trace_id", "hello"),
        ] {
            let headers = [(key, value)];
            let found = find(&all, &headers);
            assert_eq!((found.context, found.malformed), (None, true), "{key}: {value}");
        }
        assert_eq!(find(&all, &[("b3", "0")]), Found::default());
        assert_eq!(find(&all, &[("content-type", "text/plain")]), Found::default());
        assert_eq!(find(&all, &[("span_id", S)]).context, None);
    }

    #[test]
    fn a_trace_without_a_span() {
        let all = Extractor::default();
        let headers = [("trace_id", T)];
        let context = find(&all, &headers).context.unwrap();
        assert_eq!((context.trace_id.to_string().as_str(), context.span_id), (T, None));
        let short = [("traceId", "a3ce929d0e0e4736"), ("spanId", S)];
        let context = find(&all, &short).context.unwrap();
        assert_eq!(context.trace_id.to_string(), "0000000000000000a3ce929d0e0e4736");
    }

    #[test]
    fn later_versions_of_traceparent_may_be_longer() {
        let all = Extractor::default();
        assert!(is(find(&all, &[("traceparent", &format!("01-{T}-{S}-01-more"))]), "traceparent"));
    }

    #[test]
    fn a_users_own_keys_in_the_users_order() {
        let own = Extractor::new(&[Wanted::Key("X-My-Trace".into()), Wanted::Format("b3".into())]).unwrap();
        let b3 = format!("{}-{S}", "b".repeat(32));
        let headers = [("b3", &b3[..]), ("x-my-trace", T)];
        let context = find(&own, &headers).context.unwrap();
        assert_eq!((context.format, context.trace_id.to_string().as_str()), ("key:X-My-Trace", T));
        assert_eq!(find(&own, &[("traceparent", T)]), Found::default(), "not looked for");
        assert!(matches!(Extractor::new(&[Wanted::Format("b4".into())]), Err(WantedError::Unknown(_))));
        assert!(matches!(Extractor::new(&[Wanted::Key(String::new())]), Err(WantedError::EmptyKey)));
    }
}
