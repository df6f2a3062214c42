//! TLS as it passed a socket: ciphertext of both directions in, plaintext out, with keys that
//! others have found.
//!
//! ```text
//!  ciphertext ─▶ record ─▶ waiting for a key ─▶ open ─▶ plaintext, in pieces with positions
//!                                ▲
//!               secrets of a key log, or an AES key from memory with the proof that a record gives
//! ```
//!
//! Pure: bytes and times in, bytes out. Nothing here reads memory, files or sockets, and nothing
//! panics whatever the bytes are.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod aes_key;
mod cbc;
pub mod cipher;
mod counts;
mod hello;
pub mod keylog;
mod keys;
pub mod nonce;
mod number;
mod open;
mod queue;
mod record;
pub mod sample;
pub mod secret;
pub mod session;
mod side;
mod state;

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
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}
