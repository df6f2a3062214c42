//! What the workers of a run share: the stores, the budget of memory, limits and counts.
//!
//! Locks are short, and none lies on the way of every record: see [`Versioned`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ktrace_kafka::counters::NotKafka;

use super::both_ends::ExchangePlaces;
use super::brokers::Brokers;
use super::memory::Memory;
use super::own_telemetry::OwnTelemetry;
use super::pending_commits::PendingCommits;
use super::refused::{Counts, Refused, Throttled};
use super::span_limit::SpanLimit;
use super::throttle::{Limit, Within};
use crate::hop::appends::Appends;
use crate::hop::attempts::Attempts;
use crate::hop::chains::Chains;
use crate::hop::groups::{Client, Groups};
use crate::hop::progress::AllProgress;
use crate::hop::sampling::Sampling;
use crate::hop::store::{Bound, Bounded, Knowledge, Store, drop_evicted};
use crate::hop::topics::TopicIds;
use crate::hop::transactions::Transactions;
use crate::hop::versioned::Versioned;
use crate::losses::{Group, Reason, SharedLedger};
use crate::seen::Ends;

/// Brokers whose cluster is known, and as many clients.
const MAX_BROKERS: usize = 16 << 10;

/// What a broker and a client take, in bytes, about; a client's id comes on top.
const BROKER_BYTES: usize = 128;
const CLIENT_BYTES: usize = 192;

/// Shared by all workers of a run.
#[derive(Default)]
pub struct Shared {
    pub(super) topics: Versioned<TopicIds>,
    pub(super) groups: Versioned<Groups>,
    pub(super) progress: AllProgress,
    pub(super) appends: Appends,
    pub(super) attempts: Attempts,
    pub(super) chains: Chains,
    pub(super) transactions: Versioned<Transactions>,
    pub(super) commits: PendingCommits,
    pub(super) clusters: Versioned<Clusters>,
    pub(super) both_ends: ExchangePlaces,
    /// Brokers learnt from responses, whose TLS may be opened without the user naming their ports.
    pub brokers: Brokers,
    pub(super) memory: Arc<Memory>,
    pub(super) losses: SharedLedger,
    pub(super) own: OwnTelemetry,
    pub(super) counts: Counts,
    pub(super) within: Within,
    spans: SpanLimit,
    pub(super) workers: AtomicUsize,
    /// Bytes that TLS connections hold until a key is found.
    pub(super) tls_held: AtomicUsize,
    tls: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
    not_kafka: Mutex<BTreeMap<&'static str, Others>>,
}

/// A line of the table of stores.
pub(super) struct StoreEntry<'a> {
    /// The reason of loss by which its evictions are counted, if it evicts.
    pub evicted_as: Option<Reason>,
    pub store: &'a dyn Store,
}

/// Connections that were given up for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    pub count: u64,
    /// The first of them.
    pub first: Ends,
}

/// Services whose TLS connections are counted by name; the others are counted together.
const MAX_SERVICES: usize = 1024;

impl Shared {
    /// What all workers together may hold by default, in bytes.
    pub const USUAL_BYTES: usize = super::memory::DEFAULT_BYTES;

    /// Sets what all workers together may hold, in bytes: see [`super::budget`]. To be called
    /// before the first worker is made.
    pub fn may_hold(&self, bytes: usize) {
        self.memory.set(bytes);
        let part = self.memory.part();
        self.stores().iter().for_each(|entry| entry.store.hold_at_most(part));
    }

    /// All stores, in the order in which reports list them. A new store is one line here.
    pub(super) fn stores(&self) -> [StoreEntry<'_>; 11] {
        fn entry<'a>(evicted_as: Option<Reason>, store: &'a dyn Store) -> StoreEntry<'a> {
            StoreEntry { evicted_as, store }
        }
        [
            entry(Some(Reason::MemberForgotten), &self.groups),
            entry(Some(Reason::ProgressForgotten), &self.progress),
            entry(Some(Reason::AttemptForgotten), &self.attempts),
            entry(Some(Reason::TransactionForgotten), &self.transactions),
            // Refuses when it is full: the commit is released early.
            entry(None, &self.commits),
            entry(Some(Reason::ChainForgotten), &self.chains),
            entry(Some(Reason::AppendForgotten), &self.appends),
            entry(Some(Reason::TopicForgotten), &self.topics),
            entry(Some(Reason::ClusterForgotten), &self.clusters),
            entry(Some(Reason::TwinForgotten), &self.both_ends),
            // Refuses when it is full (`tls_port_not_learned`): a client that names many brokers
            // must not evict those of others.
            entry(None, &self.brokers),
        ]
    }

    /// Sets how many workers share the budget. To be called before the first worker is made.
    pub fn is_shared_by(&self, workers: usize) {
        self.memory.is_shared_by(workers);
    }

    /// Adapts the budget to the size of the process and its limit, both in bytes.
    pub fn regulate_memory(&self, resident: usize, allowed: usize) {
        self.memory.regulate(resident, allowed);
    }

    /// From now on only these of the sampled traces are within the limit of CPU time.
    pub fn keep(&self, sampling: Sampling) {
        self.within.keep(Limit::Cpu, sampling);
    }

    /// Limits spans per second. To be called before the first worker is made.
    pub fn show_at_most(&self, spans: u32) {
        self.spans.set(spans);
    }

    /// Counts a span that is given to the sinks.
    pub fn count_span(&self) {
        self.spans.count(&self.within);
    }

    /// Spans that were given to the sinks.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.spans.shown()
    }

    /// The clock of a worker has advanced to this time.
    pub(super) fn turn(&self, now_ns: u64) {
        self.spans.turn(now_ns, &self.within);
    }

    /// What the workers have lost so far, by reason, zeros too.
    pub fn losses(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.losses.of(Group::Lost)
    }

    /// What the workers have refused as malformed so far, by reason, zeros too.
    pub fn malformed(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.losses.of(Group::Malformed)
    }

    /// The workers' part of what is reported as soon as it begins, by reason, zeros too.
    pub fn live_losses(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.losses.live()
    }

    /// Messages that were not committed in time, and not listed for want of room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.losses.get(Reason::UncommittedLeftOut)
    }

    /// Whether there are several workers, each with a ring of its own.
    pub(super) fn is_read_by_several(&self) -> bool {
        self.workers.load(Ordering::Relaxed) > 1
    }

    /// Messages left out so far because they carry ktrace's own telemetry, by topic.
    #[must_use]
    pub fn own_telemetry(&self) -> BTreeMap<String, u64> {
        self.own.left_out()
    }

    /// What brokers have refused so far, by operation and error.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.counts.refused()
    }

    /// How long brokers have throttled clients so far, by operation.
    #[must_use]
    pub fn throttled(&self) -> Throttled {
        self.counts.throttled()
    }

    /// TLS connections so far that are not read, by service, and by reason and cipher.
    #[must_use]
    pub fn tls(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections so far that were found not to be Kafka's, by reason.
    #[must_use]
    pub fn not_kafka(&self) -> BTreeMap<&'static str, Others> {
        self.not_kafka.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count_not_kafka(&self, reason: NotKafka, first: Ends) {
        let mut all = self.not_kafka.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.entry(reason.name()).or_insert(Others { count: 0, first });
        others.count = others.count.saturating_add(1);
    }

    pub(super) fn count_tls(&self, service: &str, why: &str) {
        count_why(&mut self.tls.lock().unwrap_or_else(PoisonError::into_inner), service, why);
    }
}

/// Counts one connection of a service, for a reason. Reasons are few.
pub(super) fn count_why(services: &mut BTreeMap<String, BTreeMap<String, u64>>, service: &str, why: &str) {
    let full = services.len() >= MAX_SERVICES && !services.contains_key(service);
    let of = services.entry(if full { "other services" } else { service }.to_owned()).or_default();
    let count = of.entry(why.to_owned()).or_default();
    *count = count.saturating_add(1);
}

/// Counts one connection of a service.
pub(super) fn count(services: &mut BTreeMap<String, u64>, service: &str) {
    let full = services.len() >= MAX_SERVICES && !services.contains_key(service);
    let count = services.entry(if full { "other services" } else { service }.to_owned()).or_default();
    *count = count.saturating_add(1);
}

/// The clusters of brokers and of clients. A client asks one broker for the cluster's id, and reads
/// from others of the same cluster. A look-up counts as a use: a connection repeats it with each
/// change until its cluster is known.
pub(super) struct Clusters {
    by_broker: Bounded<SocketAddr, Arc<str>>,
    /// `None` for clients of several clusters.
    by_client: Bounded<Client, Option<Arc<str>>>,
}

impl Default for Clusters {
    fn default() -> Self {
        let bound = Bound::entries(MAX_BROKERS);
        Self { by_broker: Bounded::new(bound), by_client: Bounded::new(bound) }
    }
}

impl Clusters {
    pub(super) fn of(&mut self, broker: SocketAddr, client: &Client) -> Option<Arc<str>> {
        if let Some(known) = self.by_broker.get(&broker) {
            return Some(Arc::clone(known));
        }
        self.by_client.get(client).cloned().flatten()
    }

    /// Metadata names a client's cluster, its broker's. Returns whether that is news.
    pub(super) fn learn(&mut self, broker: SocketAddr, client: &Client, id: &Arc<str>) -> bool {
        let of_client = self.by_client.peek(client);
        let is_known = self.by_broker.peek(&broker).is_some_and(|known| known == id);
        if is_known && of_client.is_some_and(|known| known.as_ref().is_none_or(|known| known == id)) {
            return false;
        }
        self.by_broker.insert(broker, Arc::clone(id), BROKER_BYTES, drop_evicted);
        let bytes = CLIENT_BYTES + client.id.as_ref().map_or(0, |id| id.len());
        let known = self.by_client.get_or_insert(client, bytes, || Some(Arc::clone(id)), drop_evicted);
        if known.as_ref() != Some(id) {
            *known = None;
        }
        true
    }
}

impl Knowledge for Clusters {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("brokers of clusters", self.by_broker.len()), ("clients of clusters", self.by_client.len())]
    }

    fn bytes(&self) -> usize {
        self.by_broker.bytes() + self.by_client.bytes()
    }

    fn hold_at_most(&mut self, part: f64) {
        self.by_broker.hold_at_most(part);
        self.by_client.hold_at_most(part);
    }

    fn take_evicted(&mut self) -> u64 {
        self.by_broker.take_evicted() + self.by_client.take_evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::groups::Speaker;

    #[test]
    fn a_client_reads_from_other_brokers_of_its_cluster() {
        let (one, two): (SocketAddr, SocketAddr) =
            (([10, 0, 0, 1], 9092).into(), ([10, 0, 0, 2], 9092).into());
        let client = |pid| Client { speaker: Speaker::Process(pid), id: None };
        let mut clusters = Clusters::default();
        assert!(clusters.learn(one, &client(1), &"a".into()));
        assert!(!clusters.learn(one, &client(1), &"a".into()));
        assert_eq!(clusters.of(two, &client(1)).as_deref(), Some("a"));
        assert_eq!(clusters.of(two, &client(2)), None);
        // A client of two clusters: a broker without an id of its own belongs to neither.
        assert!(clusters.learn(two, &client(1), &"b".into()));
        assert_eq!(clusters.of(one, &client(1)).as_deref(), Some("a"));
        assert_eq!(clusters.of(([10, 0, 0, 3], 9092).into(), &client(1)), None);
        assert!(!clusters.learn(two, &client(1), &"b".into()));
    }

    /// Hostile: as many addresses and client ids as there may be.
    #[test]
    fn clusters_are_bounded_and_those_forgotten_are_counted() {
        let mut clusters = Clusters::default();
        for number in 0..100_000_u32 {
            let broker = (std::net::Ipv4Addr::from(number), 9092).into();
            let client = Client { speaker: Speaker::Process(1), id: Some(number.to_string().into()) };
            clusters.learn(broker, &client, &"a".into());
            assert!(clusters.by_broker.len() <= MAX_BROKERS && clusters.by_client.len() <= MAX_BROKERS);
        }
        let held = (clusters.by_broker.len() + clusters.by_client.len()) as u64;
        assert_eq!(clusters.take_evicted() + held, 200_000);
    }

    #[test]
    fn evictions_are_counted_by_known_reasons() {
        let shared = Shared::default();
        let reasons: Vec<_> = shared.losses().map(|(reason, _)| reason).collect();
        for evicted_as in shared.stores().iter().filter_map(|entry| entry.evicted_as) {
            assert!(reasons.contains(&evicted_as), "{}", evicted_as.name());
        }
    }

    /// Each kind of knowledge, within a hundredth of what it may hold.
    #[test]
    fn stores_are_named_weighed_and_hold_less_where_memory_is_limited() {
        let shared = Shared::default();
        let names: Vec<_> = shared.stores().iter().flat_map(|entry| entry.store.rows()).collect();
        assert!(names.iter().all(|(_, count)| *count == 0), "{names:?}");
        assert!(names.iter().enumerate().all(|(at, one)| !names[..at].contains(one)), "{names:?}");
        assert_eq!(shared.known_bytes(None), 0);
        shared.may_hold(super::super::memory::DEFAULT_BYTES / 100);
        for number in 0..1000_u32 {
            let broker = (std::net::Ipv4Addr::from(number), 9092).into();
            let client = Client { speaker: Speaker::Process(1), id: Some(number.to_string().into()) };
            shared.clusters.update(|clusters| clusters.learn(broker, &client, &"a".into()));
        }
        assert_eq!(shared.clusters.read(|clusters| clusters.by_broker.len()), MAX_BROKERS / 100);
        assert!(shared.known_bytes(None) > MAX_BROKERS / 100 * (BROKER_BYTES + CLIENT_BYTES));
    }
}
