//! The kinds of reasons: which counts they belong to, where they arise, and what they count.

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
    /// Between the kernel or a capture file and the parser: packets, and the keys of TLS
    /// connections.
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
