//! An AES key, overwritten when it is dropped.

use zeroize::Zeroizing;

/// An AES key as a search has found it.
pub enum AesKey {
    Aes128(Zeroizing<[u8; 16]>),
    Aes256(Zeroizing<[u8; 32]>),
}
