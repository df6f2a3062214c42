//! What every printed format can do.

use super::Span;

/// Turns spans into bytes.
pub trait Format: Send {
    /// Appends `spans` in their order.
    fn write(&mut self, spans: &[Span], out: &mut Vec<u8>);
}
