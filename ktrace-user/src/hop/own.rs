//! ktrace's own telemetry where it comes by as a message: a backend may write spans and metrics to
//! Kafka, on a host that is traced. A span for each such message would make another message, and so
//! on without end.
//!
//! A message is known by its value: it holds the name of an attribute or of a metric that only
//! ktrace gives, and the name stands there whole, as encodings write a string. That holds for OTLP,
//! Jaeger and Zipkin, in protobuf, Thrift and JSON, and for the lines of `-o json` and `-o otlp`
//! that a log shipper has put into a field of its own; whichever agent has made it, on whichever
//! host.
//!
//! Values of ordinary topics are left alone, but for a few: the first ones of a topic, and a small
//! share of the others. A topic where one looks like telemetry, whosever, has each of its values
//! looked into from then on.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

use memchr::memmem::Finder;

/// Names that are on spans and metrics of ktrace, and nowhere else. Each span has one of them, and
/// each metric's name is one.
///
/// None has a length of 9, 10 or 13: with that byte before it, it might be a word at the beginning
/// of a line.
pub const NAMES: [&str; 24] = [
    "ktrace.derived",
    "ktrace.context.format",
    "ktrace.acks",
    "ktrace.queue_time_ms",
    "ktrace.end_to_end_ms",
    "ktrace.commit.messages",
    "ktrace.acknowledge.type",
    "ktrace.acknowledge.messages",
    "ktrace.consumer.member.id",
    "ktrace.transaction.state",
    "ktrace.refused.count",
    "ktrace.spans",
    "ktrace.lost.events",
    "ktrace.lost.bytes",
    "ktrace.lost.reason",
    "ktrace.not_kafka",
    "ktrace.refused",
    "ktrace.throttled",
    "ktrace.throttle.time",
    "ktrace.tls.searches",
    "ktrace.tls.search.bytes",
    "ktrace.tls.search.cpu",
    "ktrace.tls.keys",
    "ktrace.tls.key.wait",
];

/// What they all begin with.
const PREFIX: &str = "ktrace.";

/// The first values of a topic that are looked at, one after another.
const FIRST: u8 = 16;

/// After these, one value in this many is looked at. A prime, so that telemetry at regular
/// intervals is met.
const ONE_IN: u32 = 1021;

/// Bytes of a value that are looked at where nothing speaks for telemetry.
const HEAD_BYTES: usize = 4096;

/// Places in a value that begin as the names do and are looked at: a sender decides how many there
/// are, and own telemetry has a name among the first.
const MAX_PLACES: usize = 1024;

/// Telemetry in JSON names its kind or its trace within this many bytes.
const JSON_HEAD_BYTES: usize = 128;

/// Whether a value holds telemetry of ktrace.
#[must_use]
pub fn is_own(value: &[u8]) -> bool {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PREFIX));
    FINDER.find_iter(value).take(MAX_PLACES).any(|at| is_name(value, at))
}

/// Whether one of the names stands here, as a string that is written by its length or in quotes.
fn is_name(value: &[u8], at: usize) -> bool {
    let Some((before, from)) = value.split_at_checked(at) else { return false };
    NAMES.iter().any(|name| {
        let Some(behind) = from.strip_prefix(name.as_bytes()) else { return false };
        match before.last() {
            Some(b'"') => is_in_json(before, behind),
            // Protobuf, and Thrift, whose four bytes end with this one; MessagePack.
            Some(byte) => [name.len(), name.len() | 0xa0].contains(&usize::from(*byte)),
            None => false,
        }
    })
}

/// Whether a string in quotes is the name of a field, or the value of one that is called `key` or
/// `name`. JSON may stand within a string of JSON, and its quotes have backslashes before them
/// then. `before` ends with the first quote, `behind` begins with the second.
fn is_in_json(before: &[u8], behind: &[u8]) -> bool {
    let escapes = behind.iter().take_while(|byte| **byte == b'\\').count();
    let Some(behind) = behind.get(escapes..).and_then(|rest| rest.strip_prefix(b"\"")) else { return false };
    if behind.trim_ascii_start().first() == Some(&b':') {
        return true;
    }
    let unquoted = |bytes: &[u8]| -> Option<usize> {
        let bytes = bytes.strip_suffix(b"\"")?;
        Some(bytes.len().saturating_sub(bytes.iter().rev().take_while(|byte| **byte == b'\\').count()))
    };
    let field = unquoted(before)
        .and_then(|end| before.get(..end)?.trim_ascii_end().strip_suffix(b":"))
        .and_then(|field| {
            let field = field.trim_ascii_end();
            field.get(..unquoted(field)?)
        });
    field.is_some_and(|field| [&b"\"key"[..], b"\"name"].iter().any(|name| field.ends_with(name)))
}

/// Whether a value looks like telemetry, whosever: the beginning of it is enough. What is taken for
/// it wrongly costs a look into each value of its topic, and nothing else.
fn is_telemetry(head: &[u8]) -> bool {
    // Protobuf may begin as JSON does behind white space: with a tag of 10, and a length that is a
    // bracket.
    is_span(head) || is_otlp(head) || is_zipkin(head) || is_json_telemetry(head.trim_ascii_start())
}

fn is_json_telemetry(head: &[u8]) -> bool {
    // OTLP, in both spellings of protobuf's JSON; Jaeger's and Zipkin's spans; lines of `-o json`.
    const FIELDS: [&[u8]; 8] = [
        b"\"resourceSpans\"",
        b"\"resourceMetrics\"",
        b"\"resourceLogs\"",
        b"\"resource_spans\"",
        b"\"resource_metrics\"",
        b"\"traceId\"",
        b"\"traceID\"",
        b"\"trace_id\"",
    ];
    let head = head.get(..JSON_HEAD_BYTES).unwrap_or(head);
    matches!(head, [b'{' | b'[', ..])
        && FIELDS.iter().any(|field| head.windows(field.len()).any(|window| window == *field))
}

/// A field of protobuf that has a length: its tag and length, and what stands behind them, the
/// field's bytes and all that follow.
fn field(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (tag, mut rest) = bytes.split_first()?;
    let (mut len, mut shift) = (0_usize, 0_u32);
    // A length of 2³⁵ and more is none.
    for _ in 0..5 {
        let (byte, behind) = rest.split_first()?;
        len |= usize::from(byte & 0x7f).checked_shl(shift)?;
        (rest, shift) = (behind, shift.saturating_add(7));
        if byte & 0x80 == 0 {
            return Some((*tag, len, rest));
        }
    }
    None
}

/// The first two fields with a length: numbers 1 and 2 of protobuf.
const FIELD_1: u8 = 0x0a;
const FIELD_2: u8 = 0x12;

/// A span of OTLP or of Jaeger, in protobuf: a trace id of 16 bytes, and a span id of 8.
fn is_span(value: &[u8]) -> bool {
    matches!(value, [FIELD_1, 16, ids @ ..] if matches!(ids.get(16..18), Some([FIELD_2, 8])))
}

/// A request of OTLP in protobuf, of spans, metrics or logs: a resource with attributes, or a scope
/// behind no resource.
fn is_otlp(value: &[u8]) -> bool {
    let Some((FIELD_1, _, of_resource)) = field(value) else { return false };
    let is_scope =
        |bytes: &[u8]| matches!(field(bytes), Some((FIELD_2, _, inner)) if is_string_or_span(inner));
    match field(of_resource) {
        Some((FIELD_1, 0, rest)) => is_scope(rest),
        Some((FIELD_1, _, attributes)) => {
            // KeyValue: its key, and behind that its value.
            let Some((FIELD_1, of_pair, pair)) = field(attributes) else { return false };
            let Some((FIELD_1, len, key)) = field(pair) else { return false };
            len < of_pair && key.get(len) == Some(&FIELD_2) && key.get(..len).is_some_and(is_word)
        }
        _ => is_scope(of_resource),
    }
}

/// What a scope of OTLP begins with: an InstrumentationScope with its name, or the first of its
/// spans.
fn is_string_or_span(bytes: &[u8]) -> bool {
    match field(bytes) {
        Some((FIELD_1, 0, _)) => true,
        Some((FIELD_1, _, scope)) => {
            matches!(field(scope), Some((FIELD_1, len, name)) if name.get(..len).is_some_and(is_word))
        }
        Some((FIELD_2, _, span)) => is_span(span),
        _ => false,
    }
}

fn is_word(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

/// Spans of Zipkin: in protobuf a trace id of 8 or 16 bytes, behind it an id of 8 (the parent's or
/// its own); in Thrift a list of structs whose first field is a number of 64 bits.
fn is_zipkin(value: &[u8]) -> bool {
    if let [0x0c, _, _, _, _, 0x0a, 0, 1, ..] = value {
        return true;
    }
    let Some((FIELD_1, _, span)) = field(value) else { return false };
    let Some((FIELD_1, len @ (8 | 16), ids)) = field(span) else { return false };
    matches!(ids.get(len..).and_then(field), Some((FIELD_2 | 0x1a, 8, _)))
}

/// Which of the current records, all of one topic, are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Records that pass before the next is looked at.
    skip: u32,
    care: Care,
}

/// How closely a topic is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// The first values; this many were looked at.
    First(u8),
    /// One in some.
    Some,
    /// Each: it carries telemetry.
    All,
}

impl Watch {
    /// None is looked at.
    pub const OFF: Self = Self { skip: u32::MAX, care: Care::Some };

    /// The watch over a topic, on a connection where `skip` more records may pass.
    #[must_use]
    pub fn of(topic: &Watched, skip: u32) -> Self {
        match topic.care() {
            Care::Some => Self { skip, care: Care::Some },
            care => Self { skip: 0, care },
        }
    }

    /// Whether a record passes without a look.
    #[inline]
    pub fn passes(&mut self) -> bool {
        match self.skip.checked_sub(1) {
            Some(left) => {
                self.skip = left;
                true
            }
            None => false,
        }
    }

    /// Looks at the value of a record that does not pass. Returns whether it is ktrace's own
    /// telemetry.
    pub fn look(&mut self, value: &[u8]) -> bool {
        if self.care != Care::All {
            let head = value.get(..HEAD_BYTES).unwrap_or(value);
            if !is_telemetry(head) && !is_own(head) {
                (self.care, self.skip) = match self.care {
                    Care::First(before) if before < FIRST => (Care::First(before.saturating_add(1)), 0),
                    _ => (Care::Some, ONE_IN.saturating_sub(1)),
                };
                return false;
            }
            self.care = Care::All;
        }
        is_own(value)
    }

    /// No more records come for now: what is known of their topic is kept with it. Returns how many
    /// may pass on the connection.
    pub fn settle(self, topic: &Watched, skip: u32) -> u32 {
        topic.set(self.care);
        if self.care == Care::Some { self.skip } else { skip }
    }

    /// Whether values of the topic were looked at before and were no telemetry.
    #[must_use]
    pub fn has_seen_others(self) -> bool {
        matches!(self.care, Care::Some | Care::First(1..))
    }

    /// Whether each record is looked at.
    #[must_use]
    pub fn is_close(self) -> bool {
        self.care == Care::All
    }
}

/// What is known of a topic: see [`Watch`]. It is written to a few times and then only read, as
/// others read what lies beside it.
#[derive(Debug, Default)]
pub struct Watched(AtomicU8);

/// Stand for [`Care::Some`] and [`Care::All`]; below are the first ones.
const SOME: u8 = u8::MAX - 1;
const ALL: u8 = u8::MAX;

impl Watched {
    fn care(&self) -> Care {
        match self.0.load(Ordering::Relaxed) {
            ALL => Care::All,
            SOME => Care::Some,
            looked => Care::First(looked),
        }
    }

    fn set(&self, care: Care) {
        let known = self.0.load(Ordering::Relaxed);
        let care = match care {
            Care::All => ALL,
            Care::Some => SOME,
            Care::First(looked) => looked,
        };
        // Another worker may know more by now.
        if care > known {
            self.0.fetch_max(care, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
