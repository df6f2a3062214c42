//! The agent: where Segments come from, who speaks, what they say, and where the spans go.
#![deny(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod export;
pub mod hop;
pub mod keys;
pub mod losses;
mod patterns;
pub mod privilege;
pub mod process;
pub mod purge;
mod sched;
pub mod seen;
pub mod span;
pub mod summary;
pub mod worker;
