#![doc = include_str!("../README.md")]
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

mod codec;
mod connection;
pub mod context;
pub mod counters;
pub mod protocol;
pub mod record;
pub mod room;
mod sink;
mod stream;

pub use connection::{Connection, Direction, Limits, Push, Scratch, Speaks, Unread};
pub use protocol::event::{
    Committed, CoordinatorKind, Event, GroupProtocol, Member, MemberState, Transaction,
};
pub use protocol::topic::Topic;
pub use sink::{Began, Head, Operation, Partition, ResponseHead, Sink};

/// TLS: what [`Connection::tls`] gives and [`Connection::open_tls`] takes.
pub use ktrace_tls as tls;

/// For ktrace's own tests, benches and fuzz targets. No part of the API: it changes without notice.
#[doc(hidden)]
pub mod internal {
    pub use crate::codec::{CodecError, Decompressor};
    pub use crate::protocol::reader::Reader;
    pub use crate::record::inner::Inner;
    pub use crate::record::message::Message;
    pub use crate::record::set::{Batches, Next};
    pub use crate::record::walk::walk;
    pub use crate::stream::{Piece, Run, Stream};
}
