//! What is missing of a connection, and whose spans say so: those of the first exchange with
//! messages behind a gap.

/// Counts gaps, and marks the messages behind one.
#[derive(Default)]
pub(in crate::worker) struct Missed {
    pub gaps: u64,
    pub bytes: u64,
    mark: Mark,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Nothing,
    /// The next message bears it.
    Due,
    /// The messages of the current exchange bear it.
    Given,
}

impl Missed {
    pub fn gap(&mut self, bytes: u64) {
        self.gaps = self.gaps.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.mark = Mark::Due;
    }

    /// Messages were given up, whose bytes were there.
    pub fn messages(&mut self) {
        self.mark = Mark::Due;
    }

    /// An exchange begins.
    pub fn exchange(&mut self) {
        if self.mark == Mark::Given {
            self.mark = Mark::Nothing;
        }
    }

    /// A message is shown. Returns whether it is marked.
    pub fn show(&mut self) -> bool {
        if self.mark == Mark::Due {
            self.mark = Mark::Given;
        }
        self.mark == Mark::Given
    }
}
