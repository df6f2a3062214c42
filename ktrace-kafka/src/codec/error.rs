//! Why a batch was not decompressed.

use super::watch::Fault;

/// Why a batch was not decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The codec refuses the bytes.
    #[error("the compressed records are damaged")]
    Damaged,
    /// The output is over the cap.
    #[error("the records are over the cap when decompressed")]
    TooLarge,
    /// There is no memory for the output.
    #[error("there is no memory for the decompressed records")]
    NoRoom,
    /// What comes out are no records.
    #[error("what comes out are no records")]
    NotRecords,
    /// Too much comes out for the records that are in it.
    #[error("too much comes out for the records in it")]
    Useless,
}

impl From<Fault> for CodecError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotRecords => Self::NotRecords,
            Fault::TooLarge => Self::TooLarge,
            Fault::Useless => Self::Useless,
        }
    }
}
