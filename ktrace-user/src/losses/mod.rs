//! Losses: the one table of reasons, the counts by reason, and the lines about them.
//!
//! Whatever is lost, refused or left out is counted under a [`Reason`]. A worker counts in a [`Ledger`] of its
//! own and publishes what is new to the [`SharedLedger`] of the run, which metrics, `--top`, the lines on
//! standard error and the summary all read. No clock, socket or file is used here.

#[cfg(test)]
mod docs;
mod ledger;
mod lines;
mod lossy;
mod reason;
mod table;

pub use ledger::{Ledger, SharedLedger};
pub use lines::LossLines;
pub use lossy::{Lossy, keep_lossiest};
pub use reason::{BYTES, EVENTS, Group, Row, Unit, Where};
pub use table::{Reason, TABLE};
