//! What the programs count, per CPU; each way to lose bytes has its own counter.

/// An entry of the `COUNTERS` map: `[events, bytes]`.
pub type Tally = [u64; 2];

/// Index into the `COUNTERS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Pieces handed to the ring, with the payload bytes copied.
    Captured = 0,
    /// Pieces that found no room in the ring.
    RingFull = 1,
    /// Pieces whose payload could not be read; their headers were handed on.
    LoadFailed = 2,
    /// Rests of packets longer than [`FULL_PIECES`](crate::FULL_PIECES) and one more piece.
    OverLimit = 3,
    /// Packets of a captured socket whose headers were not understood.
    Unparsed = 4,
    /// [`Owner`](crate::Owner) and [`Closed`](crate::Closed) events that found no room in the ring;
    /// they have no bytes.
    OwnerLost = 5,
    /// Secrets of TLS, and processes to be probed for them, that found no room in their ring, or
    /// could not be read; they have no bytes.
    SecretLost = 6,
}

impl Counter {
    /// All counters, each at its own index.
    pub const ALL: [Self; 7] = [
        Self::Captured,
        Self::RingFull,
        Self::LoadFailed,
        Self::OverLimit,
        Self::Unparsed,
        Self::OwnerLost,
        Self::SecretLost,
    ];

    /// Name as users see it: in summaries under `lost`, in metrics as the reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::RingFull => "ring_full",
            Self::LoadFailed => "load_failed",
            Self::OverLimit => "over_limit",
            Self::Unparsed => "unparsed",
            Self::OwnerLost => "owner_lost",
            Self::SecretLost => "secret_lost",
        }
    }
}

const _: () = {
    let mut index = 0;
    while index < Counter::ALL.len() {
        assert!(Counter::ALL[index] as usize == index);
        index += 1;
    }
};
