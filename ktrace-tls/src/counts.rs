//! What a session counts, and why it gives a direction up.

/// Why a connection is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A search has found no key that opens it, or there can be none (its cipher).
    NoKey,
    /// The memory of its process could not be read.
    Denied,
    /// Its process was over before it could be searched.
    Ended,
    /// It held more than it may, or for longer.
    Full,
}

/// What the session counts; taken by [`Session::take_counts`](crate::session::Session::take_counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were opened.
    pub opened: u64,
    /// Records that failed their tag though a key was there, or that a gap has taken.
    pub failed: u64,
    /// Bytes of ciphertext of these, and of what was held and given up.
    pub lost_bytes: u64,
    /// Of these, what was held, or came, without a key and of which no gap is given, as nothing was
    /// read before.
    pub not_given_bytes: u64,
    /// No key came for one direction, while the other one is read.
    pub given_up: Option<Closed>,
}
