//! A row of the table of bounds.

use ktrace_user::losses::Reason;

use super::constant::Kind;

/// A row of the page.
pub struct Row {
    pub what: &'static str,
    /// With `{}` for each constant.
    pub bound: &'static str,
    /// What the value counts, the file (in this crate's `src`, or from the root on), the constant's name.
    pub constants: &'static [(Kind, &'static str, &'static str)],
    /// What happens over the limit.
    pub over: &'static str,
    /// What it is counted as.
    pub reasons: &'static [Reason],
}

pub const fn row(
    what: &'static str,
    bound: &'static str,
    constants: &'static [(Kind, &'static str, &'static str)],
    over: &'static str,
    reasons: &'static [Reason],
) -> Row {
    Row { what, bound, constants, over, reasons }
}
