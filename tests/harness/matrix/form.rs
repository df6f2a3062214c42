//! How much of the matrix is run.

use super::cell::{CODECS, Cell, Mode};
use super::clients::{LIBRARIES, NOT_OFFERED};
use crate::clients::Library;

/// How much of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each client in each mode with one codec, another one in each; every second client reads
    /// committed messages only.
    Short,
    /// All, read by every client twice: with and without what was aborted.
    Whole,
}

impl Form {
    /// Those that are offered.
    #[must_use]
    pub fn cells(self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (number, library) in LIBRARIES.into_iter().enumerate() {
            for (turn, mode) in Mode::ALL.into_iter().enumerate() {
                let of_short = CODECS[(number + 2 * turn) % CODECS.len()];
                let codecs = CODECS.into_iter().filter(|codec| self == Self::Whole || *codec == of_short);
                cells.extend(codecs.map(|codec| Cell { library, codec, mode }));
            }
        }
        cells.retain(|cell| !NOT_OFFERED.iter().any(|(not, _)| not == cell));
        cells
    }

    /// The readings of a client: whether each is of committed messages only.
    #[must_use]
    pub fn readings(self, library: Library) -> Vec<bool> {
        match self {
            Self::Whole => vec![false, true],
            Self::Short => {
                vec![LIBRARIES.iter().position(|one| *one == library).is_some_and(|at| at % 2 == 1)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_every_cell() {
        let all = LIBRARIES.len() * CODECS.len() * Mode::ALL.len();
        assert_eq!(Form::Whole.cells().len() + NOT_OFFERED.len(), all);
    }

    #[test]
    fn the_short_form_has_every_client_and_codec_in_every_mode() {
        let cells = Form::Short.cells();
        for mode in Mode::ALL {
            let of_mode = || cells.iter().filter(|cell| cell.mode == mode);
            assert_eq!(of_mode().count(), LIBRARIES.len());
            assert!(CODECS.iter().all(|codec| of_mode().any(|cell| cell.codec == *codec)), "{mode:?}");
        }
    }
}
