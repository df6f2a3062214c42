//! Records: the batches of a record set, and the records of a batch; the messages of a message set.
//!
//! Source: `docs/implementation/message-format.md` of Apache Kafka; KIP-98 (batch v2), KIP-82
//! (record headers); KIP-31 and KIP-32 (relative offsets and timestamps, magic 1).

mod batch;
pub(crate) mod inner;
pub(crate) mod message;
pub(crate) mod set;
pub(crate) mod walk;

pub use crate::codec::Codec;
pub use batch::Batch;
pub use walk::{Headers, Record};
