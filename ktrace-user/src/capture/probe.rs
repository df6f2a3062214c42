//! What this host allows: not built yet.

use std::sync::Arc;

use super::{Ends, PortSet};
use crate::process::Process;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, where something is missing.
    pub advice: Option<String>,
}

/// A Kafka connection of a process on this host.
#[derive(Clone, Debug)]
pub struct KafkaSocket {
    pub ends: Ends,
    /// `None` where the process was not found, or may not be looked at.
    pub owner: Option<Arc<Process>>,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub items: Vec<Check>,
    pub sockets: Vec<KafkaSocket>,
}

impl Report {
    /// Whether everything works that a capture cannot do without.
    #[must_use]
    pub fn can_capture(&self) -> bool {
        self.items.iter().all(|item| item.ok)
    }
}

/// Tries everything.
#[must_use]
pub fn run(_ports: &PortSet) -> Report {
    let items = vec![Check {
        name: "eBPF".to_owned(),
        ok: false,
        detail: "not part of this build".to_owned(),
        advice: Some("use ktrace replay on a capture file".to_owned()),
    }];
    Report { items, sockets: Vec::new() }
}
