//! What is known of a reason beside its count, and which reason stands for each of the kernel's and the
//! parser's.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use ktrace_common::Counter;
use ktrace_kafka::counters::{Lost, Malformed, NotKafka};
use serde::{Serialize, Serializer};

use super::table::{Reason, TABLE};

/// The metric of what counts bytes.
pub const BYTES: &str = "ktrace.lost.bytes";
/// The metric of what counts anything else.
pub const EVENTS: &str = "ktrace.lost.events";

/// Which counts of the summary a reason belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `lost`: something passed and was not shown, or was shown with less.
    Lost,
    /// `malformed`: bytes were refused because Kafka does not write them so.
    Malformed,
    /// `not_kafka`: a connection was given up because it is something else.
    NotKafka,
    /// A field of its own: nothing was lost, the count says what was left out.
    LeftOut,
}

/// Where a reason arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The eBPF programs.
    Kernel,
    /// Between the kernel or a capture file and the parser: packets, and the keys of TLS connections.
    Capture,
    /// The parser of the wire: streams, TLS records, frames, exchanges, batches.
    Parser,
    /// The stages between an exchange and its spans: correlation, filters, limits of the agent.
    Stage,
    /// The queues and sinks of spans.
    Sink,
}

impl Where {
    /// As the docs and `ktrace explain` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Capture => "capture",
            Self::Parser => "parser",
            Self::Stage => "stage",
            Self::Sink => "sink",
        }
    }
}

/// What a count is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    AbortedLists,
    Batches,
    BrokersAndClients,
    Bytes,
    Connections,
    ConnectionsAndBatches,
    Contexts,
    Exchanges,
    Frames,
    Gaps,
    KeyLogLines,
    Members,
    Messages,
    MessagesAndAcknowledgements,
    MessagesAndCommits,
    MessagesAndPartitions,
    Packets,
    Partitions,
    Pieces,
    Ports,
    Records,
    Requests,
    RequestsAndResponses,
    Responses,
    Secrets,
    SecretsAndProcesses,
    Sockets,
    Spans,
    Times,
    TlsRecords,
    Topics,
    Traces,
    Transactions,
}

impl Unit {
    /// In the plural, as the docs and `ktrace explain` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AbortedLists => "lists of aborted transactions",
            Self::Batches => "record batches",
            Self::BrokersAndClients => "brokers, clients",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::ConnectionsAndBatches => "connections, record batches",
            Self::Contexts => "trace contexts",
            Self::Exchanges => "exchanges",
            Self::Frames => "frames",
            Self::Gaps => "gaps",
            Self::KeyLogLines => "lines",
            Self::Members => "members of groups",
            Self::Messages => "messages",
            Self::MessagesAndAcknowledgements => "messages, commits, acknowledgements",
            Self::MessagesAndCommits => "messages, commits",
            Self::MessagesAndPartitions => "messages, partitions",
            Self::Packets => "packets",
            Self::Partitions => "partitions of groups",
            Self::Pieces => "pieces of packets",
            Self::Ports => "addresses of brokers",
            Self::Records => "records",
            Self::Requests => "requests",
            Self::RequestsAndResponses => "requests, responses",
            Self::Responses => "responses",
            Self::Secrets => "secrets",
            Self::SecretsAndProcesses => "secrets, processes",
            Self::Sockets => "sockets",
            Self::Spans => "spans",
            Self::Times => "occurrences",
            Self::TlsRecords => "TLS records",
            Self::Topics => "topics",
            Self::Traces => "traces",
            Self::Transactions => "transactions",
        }
    }
}

/// A row of the table of reasons.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub reason: Reason,
    /// The name in summaries, metrics and lines. Users rely on it: it never changes.
    pub name: &'static str,
    pub group: Group,
    pub unit: Unit,
    pub at: Where,
    /// Reported on standard error as soon as it begins ([`LossLines`](super::LossLines)); the others are
    /// reported at the end, or by lines of their own.
    pub live: bool,
    /// One line: what has happened.
    pub meaning: &'static str,
    /// One line: what to do about it.
    pub remedy: &'static str,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = TABLE.len();

    /// What is known of it.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name in summaries, metrics and lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The reason of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|reason| reason.name() == name)
    }

    /// All of them, in the table's order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.reason)
    }

    /// The kernel's counter; `None` for the one that counts what was not lost.
    #[must_use]
    pub fn of_kernel(counter: Counter) -> Option<Self> {
        OF_KERNEL.get(counter as usize).copied().flatten()
    }

    /// The metric that counts it, if one does.
    #[must_use]
    pub const fn metric(self) -> Option<&'static str> {
        match (self.row().group, self.row().unit) {
            (Group::Lost, Unit::Bytes) => Some(BYTES),
            (Group::Lost, _) => Some(EVENTS),
            (Group::NotKafka, _) => Some("ktrace.not_kafka"),
            (Group::Malformed | Group::LeftOut, _) => None,
        }
    }
}

impl From<Lost> for Reason {
    fn from(lost: Lost) -> Self {
        OF_LOST[lost as usize]
    }
}

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        OF_MALFORMED[malformed as usize]
    }
}

impl From<NotKafka> for Reason {
    fn from(not_kafka: NotKafka) -> Self {
        OF_NOT_KAFKA[not_kafka as usize]
    }
}

// By name, when this is compiled: a name that the table lacks does not build, and order plays no part.
const OF_LOST: [Reason; Lost::ALL.len()] = {
    let mut reasons = [Reason::Gap; Lost::ALL.len()];
    let mut at = 0;
    while at < reasons.len() {
        reasons[Lost::ALL[at] as usize] = of_name(Lost::ALL[at].name());
        at += 1;
    }
    reasons
};

const OF_MALFORMED: [Reason; Malformed::ALL.len()] = {
    let mut reasons = [Reason::Frame; Malformed::ALL.len()];
    let mut at = 0;
    while at < reasons.len() {
        reasons[Malformed::ALL[at] as usize] = of_name(Malformed::ALL[at].name());
        at += 1;
    }
    reasons
};

const OF_NOT_KAFKA: [Reason; NotKafka::ALL.len()] = {
    let mut reasons = [Reason::NoRequest; NotKafka::ALL.len()];
    let mut at = 0;
    while at < reasons.len() {
        reasons[NotKafka::ALL[at] as usize] = of_name(NotKafka::ALL[at].name());
        at += 1;
    }
    reasons
};

const OF_KERNEL: [Option<Reason>; Counter::ALL.len()] = {
    let mut reasons = [None; Counter::ALL.len()];
    let mut at = 0;
    while at < reasons.len() {
        let counter = Counter::ALL[at];
        if !matches!(counter, Counter::Captured) {
            reasons[counter as usize] = Some(of_name(counter.name()));
        }
        at += 1;
    }
    reasons
};

const fn of_name(name: &str) -> Reason {
    let mut at = 0;
    while at < TABLE.len() {
        if is_same(TABLE[at].name, name) {
            return TABLE[at].reason;
        }
        at += 1;
    }
    panic!("a reason of the kernel's or the parser's is not in the table");
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// By name, as summaries and lines list them.
impl Ord for Reason {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Reason {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Names are unique, so a map by reason may be asked by name.
impl Borrow<str> for Reason {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn kernel_and_parser_names_are_kept() {
        for lost in Lost::ALL {
            assert_eq!(
                (Reason::from(*lost).name(), Reason::from(*lost).row().at),
                (lost.name(), Where::Parser)
            );
            assert_eq!(Reason::from(*lost).row().group, Group::Lost, "{}", lost.name());
        }
        for malformed in Malformed::ALL {
            let row = Reason::from(*malformed).row();
            assert_eq!((row.name, row.group), (malformed.name(), Group::Malformed));
        }
        for not_kafka in NotKafka::ALL {
            let row = Reason::from(*not_kafka).row();
            assert_eq!((row.name, row.group), (not_kafka.name(), Group::NotKafka));
        }
        assert_eq!(Reason::of_kernel(Counter::Captured), None);
        let kernel: Vec<_> = Counter::ALL.into_iter().filter_map(Reason::of_kernel).collect();
        assert_eq!(kernel.len(), Counter::ALL.len() - 1);
        for reason in kernel {
            assert_eq!((reason.row().at, reason.row().live), (Where::Kernel, true), "{reason}");
        }
    }

    #[test]
    fn every_group_of_the_parser_is_complete() {
        for (group, parsers) in
            [(Group::Malformed, Malformed::ALL.len()), (Group::NotKafka, NotKafka::ALL.len())]
        {
            assert_eq!(TABLE.iter().filter(|row| row.group == group).count(), parsers, "{group:?}");
        }
    }

    #[test]
    fn names_are_unique_and_say_whether_bytes_are_counted() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.name);
            assert_eq!(Reason::named(row.name), Some(row.reason));
            assert_eq!(row.name.ends_with("_bytes"), row.unit == Unit::Bytes, "{}", row.name);
        }
        assert_eq!(Reason::named("ring_fuller"), None);
    }

    /// Who reads a reason at night gets a sentence, and something to do.
    #[test]
    fn every_reason_says_what_it_means_and_what_to_do() {
        /// A line of a terminal, with what stands before it.
        const LONGEST: usize = 140;
        for Row { name, meaning, remedy, .. } in TABLE {
            for text in [meaning, remedy] {
                assert!(text.ends_with(['.', ')']), "{name}: {text}");
                assert!(
                    text.starts_with(|first: char| first.is_ascii_uppercase() || first == '-'),
                    "{name}: {text}"
                );
                assert!((10..=LONGEST).contains(&text.chars().count()), "{name}: {text}");
                assert!(!text.contains(['|', '\n']), "{name}: {text}");
                for riddle in ["told", "nobody", "somebody", "past it", "at hand", "so many"] {
                    assert!(!text.to_lowercase().contains(riddle), "{name}: {text}");
                }
            }
            assert_ne!(meaning, remedy);
        }
    }

    #[test]
    fn a_map_by_reason_lists_names_in_order_and_is_asked_by_name() {
        let counts = BTreeMap::from([(Reason::RingFull, 1), (Reason::GapBytes, 2), (Reason::Gap, 3)]);
        assert_eq!(
            counts.keys().map(|reason| reason.name()).collect::<Vec<_>>(),
            ["gap", "gap_bytes", "ring_full"]
        );
        assert_eq!((counts["gap_bytes"], counts.get("tls")), (2, None));
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"gap":3,"gap_bytes":2,"ring_full":1}"#);
    }
}
