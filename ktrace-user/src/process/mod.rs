//! Who owns a socket: the traced process and the resource that its spans bear.

mod environment;
mod name;
mod read;
mod table;

use crate::seen::Process;

pub use name::ServiceNames;
pub use read::host_name;
pub(crate) use read::start_time;
pub use table::Table;

/// Whether a process runs still, and its number is not another's by now.
#[must_use]
pub(crate) fn is_alive(process: &Process) -> bool {
    process.pid != 0 && start_time(process.pid) == Some(process.start_time)
}
