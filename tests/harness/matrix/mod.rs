//! The fidelity matrix: every client produces with every codec in every mode, and reads what all the others have produced,
//! while one agent looks on. What the clients logged is the truth.

mod clients;
mod log;
mod page;
mod run;

pub use clients::{LIBRARIES, NEVER_ABORT, NOT_OFFERED};
pub use page::{PAGE, Page};
pub use run::{Run, run};

use crate::clients::Library;
use crate::tools::{KAFKA_OLD_VERSION, KAFKA_VERSION};

pub const BROKERS: [&str; 2] = [KAFKA_OLD_VERSION, KAFKA_VERSION];

/// By their number in a batch's attributes.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// How a producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// acks=1, and not idempotent.
    Plain,
    Idempotent,
    /// In transactions, of which every second one is aborted.
    Transactional,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Idempotent, Self::Transactional];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Idempotent => "idempotent",
            Self::Transactional => "transactional",
        }
    }
}

/// What one producer writes into one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub library: Library,
    pub codec: &'static str,
    pub mode: Mode,
}

impl Cell {
    #[must_use]
    pub fn topic(self) -> String {
        format!("{}-{}-{}", self.library.name(), self.codec, self.mode.name())
    }

    /// Whether its client can do this.
    #[must_use]
    pub fn is_offered(self) -> bool {
        !NOT_OFFERED.iter().any(|(cell, _)| *cell == self)
    }
}

/// How much of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each client in each mode with one codec, another one in each; every second client reads committed messages only.
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
        cells.retain(|cell| cell.is_offered());
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
    use super::{CODECS, Form, LIBRARIES, Mode, NOT_OFFERED};

    #[test]
    fn the_whole_is_every_cell() {
        let all = LIBRARIES.len() * CODECS.len() * Mode::ALL.len();
        assert_eq!(Form::Whole.cells().len() + NOT_OFFERED.len(), all);
    }

    #[test]
    fn the_short_form_has_every_client_in_every_mode_and_every_codec_in_every_mode() {
        let cells = Form::Short.cells();
        for mode in Mode::ALL {
            let of_mode = || cells.iter().filter(|cell| cell.mode == mode);
            assert_eq!(of_mode().count(), LIBRARIES.len());
            assert!(CODECS.iter().all(|codec| of_mode().any(|cell| cell.codec == *codec)), "{mode:?}");
        }
    }
}
