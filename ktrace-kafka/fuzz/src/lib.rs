//! What is fuzzed, as plain functions of bytes: `./dev fuzz` calls them from libFuzzer, and
//! `tests/fuzz_smoke.rs` on every test run with the corpus and mutations of it.
//!
//! Each makes something plausible of the bytes, so that it gets deep, and panics where a promise is
//! broken.

pub mod api;
pub mod codec;
pub mod context;
mod input;
pub mod keylog;
pub mod records;
pub mod session;
pub mod stream;
pub mod tls;
mod watch;

/// A fuzz function.
pub type Run = fn(&[u8]);

/// All of them, by the name of their target and of their corpus.
pub const TARGETS: [(&str, Run); 8] = [
    ("stream", stream::run),
    ("api", api::run),
    ("records", records::run),
    ("codec", codec::run),
    ("context", context::run),
    ("keylog", keylog::run),
    ("session", session::run),
    ("tls", tls::run),
];
