//! Who owns a socket: the traced process and the resource that its spans bear.

mod environment;
mod name;
mod read;
mod table;

use std::sync::Arc;

use crate::span::Resource;

pub use name::ServiceNames;
pub use read::host_name;
pub(crate) use read::start_time;
pub use table::Table;

/// A traced process, read once at first sight.
#[derive(Debug, Default)]
pub struct Process {
    /// In the initial pid namespace; 0 where it is not known (capture files).
    pub pid: u32,
    /// When it was started, in clock ticks since boot (`/proc/PID/stat`, field 22): another process
    /// with the same number has another. 0 where it had ended before it was read.
    pub start_time: u64,
    /// Whether it is below one of the cgroups that `--tls-cgroup` names. Without any, `false`.
    pub is_in_tls_cgroup: bool,
    /// What its spans say of it: `service.name`, `process.*`, `container.id`, `host.name`.
    pub resource: Arc<Resource>,
}

impl Process {
    /// Whether it runs still, and its number is not another's by now.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid != 0 && start_time(self.pid) == Some(self.start_time)
    }
}
