//! What was seen, and what was not: one counter for each way to lose or refuse bytes.

use std::collections::BTreeMap;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name under which summaries and metrics report it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Why something that passed the socket was not shown.
    Lost {
        /// Bytes missing from a stream: never captured, or captured too late. Counts gaps.
        Gap = "gap",
        /// Frames of which a gap took a part.
        FrameBroken = "frame_broken",
        /// Segments held for reordering over [`crate::Limits::held_bytes`]. Counts times.
        HeldTooMuch = "held_too_much",
        /// Requests whose response was never seen.
        Unanswered = "unanswered",
        /// Requests waiting for a response over [`crate::Limits::pending`] or
        /// [`crate::Limits::pending_bytes`].
        TooManyPending = "too_many_pending",
        /// Requests without a response that a search has found, and that nothing behind them has
        /// confirmed: most were none.
        Unconfirmed = "unconfirmed",
        /// Responses whose request is not certain: its id came again while responses were missing.
        AmbiguousResponse = "ambiguous_response",
        /// Lists of aborted transactions that are too long to be kept: of such a partition,
        /// messages of transactions are not shown to who reads committed ones.
        TooManyAborted = "too_many_aborted",
        /// Given up because all connections together held too much. Counts connections whose frames
        /// and requests were given up, and batches for which there was no memory to decompress
        /// them.
        MemoryLimit = "memory_limit",
        /// Compressed batches that were passed over as too much for the records in them, on a
        /// connection or among connections that had many such.
        InflationLimit = "inflation_limit",
        /// Responses whose request was never seen: of before the capture's start, or taken by a
        /// gap.
        ResponseWithoutRequest = "response_without_request",
        /// Requests and responses of an API version that no known release has. Counts exchanges.
        UnsupportedVersion = "unsupported_version",
        /// Requests and responses of an API that no known release has. Counts exchanges.
        UnsupportedApi = "unsupported_api",
        /// Batches of a message format (magic) that no release has.
        UnsupportedMagic = "unsupported_magic",
        /// Connections that do not speak Kafka, on a Kafka port.
        NotKafka = "not_kafka",
        /// Connections that speak TLS, on a Kafka port, and are not read as that was not asked for.
        Tls = "tls",
        /// Connections inside TLS that no key was found for.
        TlsNoKey = "tls_no_key",
        /// Connections inside TLS whose process may not be searched for keys.
        TlsDenied = "tls_denied",
        /// Connections inside TLS that were over before their key was found.
        TlsEnded = "tls_ended",
        /// Connections inside TLS of which more waited for a key than may, or for longer. Counts
        /// times.
        TlsWaitingFull = "tls_waiting_full",
        /// Records of TLS that could not be opened though a key was there: a gap took a part of
        /// them, or the key had changed.
        TlsRecord = "tls_record",
    }
}

reasons! {
    /// Why a connection was found not to speak Kafka.
    NotKafka {
        /// The other end spoke first, before anything was sent: a broker never does.
        ServerSpeaksFirst = "server_speaks_first",
        /// What the client has sent is no request, at the connection's beginning or behind requests
        /// that have no answer yet.
        NoRequest = "no_request",
        /// The first request has a client id that no client has, and its body is not that of its
        /// API.
        ClientId = "client_id",
        /// The first request is larger than any broker takes.
        Size = "size",
        /// The connection is older than the capture, or its beginning was lost, and in
        /// [`crate::Limits::search_bytes`] there was no request.
        Searched = "searched",
        /// The client speaks to a proxy first, in a way that is not read.
        Preface = "preface",
        /// The proxy has refused what the client asked for.
        ProxyRefused = "proxy_refused",
        /// TLS behind a proxy, on a port that was not given as Kafka's.
        TlsBehindProxy = "tls_behind_proxy",
        /// The connection has ended, and nothing but words for a proxy was said.
        NothingBehindProxy = "nothing_behind_proxy",
    }
}

reasons! {
    /// What was refused because it is not as Kafka would have written it.
    Malformed {
        /// A frame's size or header makes no sense; the stream is searched for the next frame.
        Frame = "frame",
        /// A request or response body.
        Body = "body",
        /// A record batch.
        Batch = "batch",
        /// A record in a batch.
        Record = "record",
        /// A compressed batch that its codec refuses.
        Compression = "compression",
        /// A compressed batch over [`crate::Limits::decompressed_bytes`].
        DecompressionBomb = "decompression_bomb",
        /// A response out of the order of its requests.
        ResponseOrder = "response_order",
        /// Trace context under a known key that its format refuses.
        Context = "context",
    }
}

/// Counts of one connection or, merged, of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole frames of either direction.
    pub frames: u64,
    /// Requests with their response (or that have none: acks=0).
    pub exchanges: u64,
    /// Frames of raw SASL tokens, of either direction.
    pub sasl_tokens: u64,
    /// Record batches that were read.
    pub batches: u64,
    /// Records that were read.
    pub records: u64,
    /// Records of TLS that were opened.
    pub tls_records: u64,
    /// Bytes that gaps took.
    pub gap_bytes: u64,
    /// Bytes passed over by searches for the next frame: behind a gap, or at the beginning of a
    /// capture.
    pub skipped_bytes: u64,
    /// Bytes that never got to who reads at their end, because it had closed: with a hole before
    /// them that it has not acknowledged. No loss: no program has read them.
    pub unread_bytes: u64,
    /// Bytes at the ends of requests and responses that their schemas do not have. No loss: clients
    /// and brokers pass over them too.
    pub surplus_bytes: u64,
    /// Of [`Malformed::Context`], those of each format.
    pub malformed_contexts: BTreeMap<&'static str, u64>,
    lost: [u64; Lost::ALL.len()],
    malformed: [u64; Malformed::ALL.len()],
}

impl Counters {
    /// One more loss for this reason.
    pub fn lose(&mut self, reason: Lost) {
        if let Some(count) = self.lost.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// `more` losses for this reason.
    pub fn lose_many(&mut self, reason: Lost, more: u64) {
        if let Some(count) = self.lost.get_mut(reason as usize) {
            *count = count.saturating_add(more);
        }
    }

    /// One more refusal for this reason.
    pub fn refuse(&mut self, reason: Malformed) {
        if let Some(count) = self.malformed.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Trace contexts of these formats were refused.
    #[cold]
    pub(crate) fn refuse_contexts(&mut self, formats: impl Iterator<Item = &'static str>) {
        for format in formats {
            self.refuse(Malformed::Context);
            let count = self.malformed_contexts.entry(format).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Every reason to lose, with its count.
    pub fn lost(&self) -> impl Iterator<Item = (Lost, u64)> + '_ {
        Lost::ALL.iter().copied().zip(self.lost.iter().copied())
    }

    /// What was lost for this reason.
    #[must_use]
    pub fn lost_by(&self, reason: Lost) -> u64 {
        self.lost.get(reason as usize).copied().unwrap_or_default()
    }

    /// What was refused for this reason.
    #[must_use]
    pub fn refused_by(&self, reason: Malformed) -> u64 {
        self.malformed.get(reason as usize).copied().unwrap_or_default()
    }

    /// Every reason to refuse, with its count.
    pub fn malformed(&self) -> impl Iterator<Item = (Malformed, u64)> + '_ {
        Malformed::ALL.iter().copied().zip(self.malformed.iter().copied())
    }

    /// Adds the counts of another connection.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.frames, other.frames),
            (&mut self.exchanges, other.exchanges),
            (&mut self.sasl_tokens, other.sasl_tokens),
            (&mut self.batches, other.batches),
            (&mut self.records, other.records),
            (&mut self.tls_records, other.tls_records),
            (&mut self.gap_bytes, other.gap_bytes),
            (&mut self.skipped_bytes, other.skipped_bytes),
            (&mut self.unread_bytes, other.unread_bytes),
            (&mut self.surplus_bytes, other.surplus_bytes),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (format, theirs) in &other.malformed_contexts {
            let mine = self.malformed_contexts.entry(format).or_default();
            *mine = mine.saturating_add(*theirs);
        }
        for (mine, theirs) in self.lost.iter_mut().zip(other.lost) {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.malformed.iter_mut().zip(other.malformed) {
            *mine = mine.saturating_add(theirs);
        }
    }
}
