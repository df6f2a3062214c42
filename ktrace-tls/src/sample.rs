//! Records that a search for keys is given, and the proof that a key opens one of them.

use zeroize::Zeroizing;

use crate::{Sender, Version};

/// A protected record as it passed the socket.
#[derive(Clone, Debug)]
pub struct Sample {
    /// TCP sequence number of its header's first byte: names the record within its direction.
    pub seq: u32,
    pub header: [u8; 5],
    pub body: Box<[u8]>,
    /// `None` where the handshake was not seen: both are tried.
    pub version: Option<Version>,
    /// TLS 1.2: the record's number, where its direction was seen from the beginning.
    pub number: Option<u64>,
}

/// Some records of each direction, the first ones first.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub client: Vec<Sample>,
    pub server: Vec<Sample>,
}

/// An AES key as a search has found it.
pub enum AesKey {
    Aes128(Zeroizing<[u8; 16]>),
    Aes256(Zeroizing<[u8; 32]>),
}

/// A key that opens a record of a direction.
pub struct FoundKey {
    pub sender: Sender,
    /// Of the record that it opens: [`Sample::seq`].
    pub seq: u32,
    pub version: Version,
    pub key: AesKey,
    pub nonce: [u8; 12],
    /// TLS 1.2: the record's number.
    pub number: Option<u64>,
}

/// What a key has to do with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub version: Version,
    pub nonce: [u8; 12],
    /// TLS 1.2: the record's number.
    pub number: Option<u64>,
}

impl AesKey {
    /// Whether this key opens the record. TLS 1.3 and TLS 1.2 with a known number cost one GHASH and one block; TLS 1.2 of which the number is
    /// not known tries numbers up to `tries`.
    #[must_use]
    pub fn opens(&self, _sample: &Sample, _tries: u64) -> Option<Proof> {
        None
    }
}
