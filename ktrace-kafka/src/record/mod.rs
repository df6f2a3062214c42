//! Records: the batches of a record set, and the records of a batch.
//!
//! Source: `docs/implementation/message-format.md` of Apache Kafka; KIP-98 (batch v2), KIP-82 (record headers).

mod batch;
mod walk;

pub use batch::{Batch, Batches, Next};
pub use walk::{Headers, Record, walk};
