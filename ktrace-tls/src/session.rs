//! One connection's TLS: records of both directions wait for keys, and are opened in the order in which they passed.

use crate::Sender;
use crate::hello::Hello;
use crate::sample::{FoundKey, Samples};
use crate::secret::Secrets;

/// Plaintext of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    Data {
        /// Position: the TCP sequence number of the record's header, and how far within the record's plaintext the bytes begin. Both ends of a
        /// connection agree on it, and no two bytes share one, as a record is longer than its plaintext.
        seq: u32,
        bytes: &'a [u8],
        /// When the last byte of the record passed the socket.
        time_ns: u64,
    },
    /// Plaintext that nobody will have. `exact` says that it is just so many bytes; else nobody knows, and it is `bytes` at most.
    Gap { bytes: u64, exact: bool },
}

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

/// What the session counts; taken by [`Session::take_counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were opened.
    pub opened: u64,
    /// Records that failed their tag though a key was there, or that a gap has taken.
    pub failed: u64,
    /// Bytes of ciphertext of these, and of what was held and given up.
    pub lost_bytes: u64,
}

/// See the module.
pub struct Session {
    hello: Hello,
}

impl Session {
    /// `from_beginning`: both directions are seen from their first byte on.
    #[must_use]
    pub fn new(_from_beginning: bool) -> Self {
        Self { hello: Hello::default() }
    }

    /// Ciphertext, in order. What it completes is given: also of the other direction, where that has waited for this one.
    pub fn data(
        &mut self,
        _from: Sender,
        _seq: u32,
        _bytes: &[u8],
        _time_ns: u64,
        _give: &mut impl FnMut(Sender, Plain<'_>),
    ) {
    }

    /// Ciphertext that was lost.
    pub fn gap(&mut self, _from: Sender, _bytes: u64, _give: &mut impl FnMut(Sender, Plain<'_>)) {}

    /// What the handshake has said.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Directions that hold protected records which no key opens: what a search is asked for. Empty where nothing is wanted.
    #[must_use]
    pub fn lacks(&self) -> &[Sender] {
        &[]
    }

    /// Records of the directions that lack a key: at most 8 of each, 32 KiB together.
    #[must_use]
    pub fn samples(&self) -> Samples {
        Samples::default()
    }

    /// A number that changes when [`Session::samples`] would give more, or others.
    #[must_use]
    pub fn samples_number(&self) -> u32 {
        0
    }

    /// Secrets of this connection. What was held for want of them is opened. Returns whether they opened anything, or may.
    pub fn take_secrets(&mut self, _secrets: &Secrets, _give: &mut impl FnMut(Sender, Plain<'_>)) -> bool {
        false
    }

    /// A key that opens one of its records.
    pub fn take_key(&mut self, _key: FoundKey, _give: &mut impl FnMut(Sender, Plain<'_>)) -> bool {
        false
    }

    /// No key will come for the directions that lack one: what they hold is lost. A direction that has a key goes on.
    pub fn give_up(&mut self, _why: Closed, _give: &mut impl FnMut(Sender, Plain<'_>)) {}

    /// Why nothing of it is read, once that is so for both directions.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        None
    }

    /// Whether a record was opened, in either direction.
    #[must_use]
    pub fn is_open(&self) -> bool {
        false
    }

    /// Bytes of ciphertext that wait for a key, and when the first of them passed.
    #[must_use]
    pub fn held(&self) -> Option<(usize, u64)> {
        None
    }

    /// All bytes that the session holds beyond its own size.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        0
    }

    /// What was counted since the last time.
    pub fn take_counts(&mut self) -> Counts {
        Counts::default()
    }
}
