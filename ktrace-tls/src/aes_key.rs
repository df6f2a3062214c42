//! An AES key, overwritten when it is dropped.

use zeroize::Zeroizing;

/// An AES key as a search has found it.
pub enum AesKey {
    /// Of 128 bits.
    Aes128(Zeroizing<[u8; 16]>),
    /// Of 256 bits.
    Aes256(Zeroizing<[u8; 32]>),
}
