//! A cell of the matrix: what one producer writes.

use crate::clients::Library;
use crate::tools::{KAFKA_OLD_VERSION, KAFKA_VERSION};

pub const BROKERS: [&str; 2] = [KAFKA_OLD_VERSION, KAFKA_VERSION];

/// Of each topic.
pub(super) const PARTITIONS: u32 = 2;

/// By their number in a batch's attributes.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// How a producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// acks=1, and not idempotent.
    Plain,
    Idempotent,
    /// In transactions, of which every second one is aborted.
    Transactional,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Idempotent, Self::Transactional];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Idempotent => "idempotent",
            Self::Transactional => "transactional",
        }
    }
}

/// What one producer writes into one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub library: Library,
    pub codec: &'static str,
    pub mode: Mode,
}

impl Cell {
    #[must_use]
    pub fn topic(self) -> String {
        format!("{}-{}-{}", self.library.name(), self.codec, self.mode.name())
    }
}
