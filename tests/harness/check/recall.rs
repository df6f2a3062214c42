//! Found, of what was to be found.

/// How many there were, and how many of them have a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recall {
    pub found: usize,
    pub expected: usize,
}

impl Recall {
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.found == self.expected
    }
}
