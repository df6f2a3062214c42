//! What this host allows: not built yet.

use super::{Ends, PortSet};

/// One thing looked at.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    /// What to do about it, where it is not well.
    pub advice: Option<String>,
}

/// A socket to or from a Kafka port.
#[derive(Clone, Debug)]
pub struct SocketSeen {
    pub ends: Ends,
    pub pid: Option<u32>,
    pub service: Option<String>,
}

/// What was found; capture is possible where all checks are well.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub items: Vec<Check>,
    pub sockets: Vec<SocketSeen>,
}

/// Looks at this host.
#[must_use]
pub fn run(_ports: &PortSet) -> Report {
    let items = vec![Check {
        name: "live capture".to_owned(),
        ok: false,
        detail: "not part of this build".to_owned(),
        advice: Some("use ktrace replay on a capture file".to_owned()),
    }];
    Report { items, sockets: Vec::new() }
}
