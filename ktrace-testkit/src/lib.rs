//! Kafka's bytes for tests and benches: frames, their fields, and record batches.
//!
//! [`Fields`] and [`Batch`] are for bytes that a test lays itself: old versions, hostile ones, and
//! those of benches. What `ktrace-kafka` reads is held against another implementation: `encoder`,
//! which is `kafka-protocol`'s.

mod batch;
#[cfg(feature = "encoder")]
pub mod encoder;
mod fields;
mod frame;
mod varint;

pub use batch::{Batch, Record};
pub use fields::{Fields, text};
pub use frame::{framed, framed_parts};
pub use varint::varint;
