//! What the user asks of the pipeline.

use std::sync::Arc;

use ipnet::IpNet;

use super::stage::filter::Filter;
use super::stage::follow::Follow;
use super::tls_options::TlsOptions;
use crate::hop::sampling::{Exceptions, Sampling};
use crate::hop::uncommitted::Uncommitted;
use crate::keys::uprobes::Store;
use crate::keys::{Keys, SharedKeyLog};
use crate::seen::Side;

/// At which end of connections messages are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sides {
    /// Those of clients on this host
    #[default]
    Client,
    /// Those of all clients of brokers on this host
    Broker,
    /// Both; a connection within the host is shown once, as its client's
    Both,
}

impl Sides {
    /// Whether this end is shown.
    #[must_use]
    pub fn have(self, side: Side) -> bool {
        match self {
            Self::Client => side == Side::Client,
            Self::Broker => side == Side::Broker,
            Self::Both => true,
        }
    }
}

/// Which hops are emitted, the same for all workers of a run: clones follow the same traces, and
/// wait for the same commits.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Follows one message's way; `None` lets all hops pass.
    pub follow: Option<Arc<Follow>>,
    /// `None` lets all hops pass, with their keys.
    pub filter: Option<Arc<Filter>>,
    /// Deliveries that are not committed in time are emitted, and nothing else.
    pub uncommitted: Option<Arc<Uncommitted>>,
}

impl Selection {
    /// Traces that were followed and are not any more, because others came.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.follow.as_ref().map_or(0, |follow| follow.forgotten())
    }
}

/// What the user asks of the pipeline.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// Trace header formats in the order in which they are tried; empty: all known. `key:NAME` is a
    /// user's own.
    pub context: Vec<String>,
    /// Which traces are shown.
    pub sampling: Sampling,
    pub exceptions: Exceptions,
    pub sides: Sides,
    /// The source has taken connections for Kafka by their first bytes and not by their ports: what
    /// turns out to be something else is given up soon.
    pub recognised: bool,
    /// Addresses of clients that have an agent of their own: it shows them, so their connections
    /// are left out at the broker's end.
    pub agents: Vec<IpNet>,
    /// Hops bear their records' keys.
    pub keys: bool,
    /// What made a process send a message is found out where no header says it.
    pub infer: bool,
    /// Messages that carry ktrace's own telemetry are shown too.
    pub own_telemetry: bool,
    /// What clients catch up with is late, too.
    pub old_is_late: bool,
    /// How TLS connections are read.
    pub tls: TlsOptions,
    /// Secrets of TLS connections by their client random, from a key log or from a capture file.
    pub key_log: Option<SharedKeyLog>,
    /// Which hops are emitted.
    pub selection: Selection,
    /// Secrets of TLS connections by their process, from probes.
    pub derived: Option<Arc<Store>>,
    /// Searches processes for keys of TLS connections.
    pub search: Option<Arc<Keys>>,
}
