//! The fidelity matrix: every client produces with every codec in every mode, and reads what all
//! the others have produced, while one agent looks on. What the clients logged is the truth.

mod cell;
mod clients;
mod form;
mod log;
mod page;
mod run;

pub use cell::{BROKERS, CODECS, Cell, Mode};
pub use clients::{LIBRARIES, NEVER_ABORT, NOT_OFFERED};
pub use form::Form;
pub use page::{PAGE, Page};
pub use run::{Run, run};
