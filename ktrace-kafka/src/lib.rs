//! A passive reader of the Kafka protocol: TCP bytes and their times in, exchanges and records out.
//!
//! Sans-IO: no clock, no socket, no file, no thread. [`Connection::push`] takes the bytes of both directions of one
//! connection as they passed the socket and tells a [`Sink`] what was said.
//!
//! ```text
//!  bytes ─▶ stream ─▶ frames ─▶ pairs ─▶ protocol ─▶ record ─▶ context ─▶ Sink
//!           (order,   (size      (request  (one file    (batches,  (record
//!            gaps)     prefix)    and its   an API)      codec)     headers)
//!                                 response)
//! ```
//!
//! A [`Sink`] gets every exchange, every message ([`Sink::record`]), and as [`Event`]s what the exchanges say beside:
//! topics, groups and their members, offsets, transactions.
//!
//! Bytes are hostile: every length is checked against the bytes that are there and against the frame, nothing is
//! allocated from a wire-supplied count, decompression is capped, and what cannot be read is counted, not guessed.
#![forbid(unsafe_code)]
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

pub mod codec;
pub mod connection;
pub mod context;
pub mod counters;
pub mod protocol;
pub mod record;
pub mod room;
mod sink;
pub mod stream;

pub use connection::{Connection, Direction, Limits, Push, Scratch};
pub use counters::Counters;
pub use protocol::event::{Committed, Event, GroupProtocol, Member, MemberState, Transaction};
pub use protocol::topic::Topic;
pub use sink::{Began, Head, Operation, Partition, ResponseHead, Sink};
