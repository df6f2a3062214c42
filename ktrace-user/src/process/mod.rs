//! Who owns a socket: the traced process and the resource that its spans bear.

mod environment;
mod name;
mod read;
mod table;

use std::sync::Arc;

use crate::span::Resource;

pub use name::ServiceNames;
pub use read::host_name;
pub use table::Table;

/// A traced process, read once at first sight.
#[derive(Debug)]
pub struct Process {
    /// In the initial pid namespace; 0 where it is not known (capture files).
    pub pid: u32,
    /// What its spans say of it: `service.name`, `process.*`, `container.id`, `host.name`.
    pub resource: Arc<Resource>,
}
