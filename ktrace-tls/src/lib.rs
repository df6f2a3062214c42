//! TLS as it passed a socket: ciphertext of both directions in, plaintext out, with keys that others have found.
//!
//! ```text
//!  ciphertext ─▶ record ─▶ waiting for a key ─▶ open ─▶ plaintext, in pieces with positions
//!                                ▲
//!               secrets of a key log, or an AES key from memory with the proof that a record gives
//! ```
//!
//! Pure: bytes and times in, bytes out. Nothing here reads memory, files or sockets, and nothing panics whatever the bytes are.

#![forbid(unsafe_code)]

pub mod cipher;
pub mod hello;
pub mod keylog;
pub mod nonce;
pub mod record;
pub mod sample;
pub mod secret;
pub mod session;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Who has opened the connection: requests.
    Client,
    /// Responses.
    Server,
}

/// The versions that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}
