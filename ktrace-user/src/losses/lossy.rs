//! The connections that lost most bytes, by name.

use serde::Serialize;

/// Connections that the summary names. Enough to see whether one service or all of them are affected; a full
/// ring touches thousands.
const MAX_NAMED: usize = 16;

/// A connection of which bytes were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lossy {
    pub service: String,
    pub client: String,
    pub broker: String,
    pub gaps: u64,
    pub gap_bytes: u64,
}

/// Keeps those that lost most.
pub fn keep_lossiest(list: &mut Vec<Lossy>, more: impl IntoIterator<Item = Lossy>) {
    list.extend(more);
    list.sort_by(|a, b| b.gap_bytes.cmp(&a.gap_bytes).then_with(|| a.client.cmp(&b.client)));
    list.truncate(MAX_NAMED);
}
