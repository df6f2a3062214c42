//! The interface of the printed formats.

use crate::span::Span;

/// Turns spans into bytes.
pub trait Format: Send {
    /// Appends the first of `spans` in their order: at least one, if there is one, and no more than
    /// should be in memory as bytes at once.
    fn write(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>, out: &mut Vec<u8>);
}
