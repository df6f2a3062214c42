//! What the workers of a run know together: names, groups, clusters, and which connections are seen at both ends.
//!
//! Locks are short, and none lies on the way of every record: see [`Numbered`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::twins::Twins;
use crate::hop::groups::Groups;
use crate::hop::numbered::Numbered;
use crate::hop::topics::TopicIds;
use crate::process::Process;

/// Brokers whose cluster is remembered, and processes known to be brokers.
const MAX_BROKERS: usize = 16 << 10;

/// See the module. One for all workers of a run.
#[derive(Default)]
pub struct Shared {
    pub(super) topics: Numbered<TopicIds>,
    pub(super) groups: Numbered<Groups>,
    pub(super) clusters: Numbered<Clusters>,
    pub(super) brokers: Numbered<Brokers>,
    pub(super) twins: Twins,
}

/// The cluster of each broker.
#[derive(Default)]
pub(super) struct Clusters {
    by_broker: HashMap<SocketAddr, Arc<str>>,
}

impl Clusters {
    pub(super) fn of(&self, broker: SocketAddr) -> Option<Arc<str>> {
        self.by_broker.get(&broker).cloned()
    }

    /// Metadata told a broker's cluster. Returns whether that is news.
    pub(super) fn learn(&mut self, broker: SocketAddr, id: &Arc<str>) -> bool {
        if self.by_broker.get(&broker).is_some_and(|known| known == id) {
            return false;
        }
        if self.by_broker.len() >= MAX_BROKERS {
            self.by_broker.clear();
        }
        self.by_broker.insert(broker, Arc::clone(id));
        true
    }
}

/// Processes of this host that are brokers: they hold the broker's end of a connection.
#[derive(Default)]
pub(super) struct Brokers {
    by_pid: HashMap<u32, Arc<Process>>,
}

impl Brokers {
    /// The number may be another process's by now.
    pub(super) fn has(&self, process: &Arc<Process>) -> bool {
        self.by_pid.get(&process.pid).is_some_and(|known| Arc::ptr_eq(known, process))
    }

    /// A process holds a broker's end. Returns whether that is news.
    pub(super) fn learn(&mut self, process: &Arc<Process>) -> bool {
        if process.pid == 0 || self.has(process) {
            return false;
        }
        if self.by_pid.len() >= MAX_BROKERS {
            self.by_pid.clear();
        }
        self.by_pid.insert(process.pid, Arc::clone(process));
        true
    }
}
