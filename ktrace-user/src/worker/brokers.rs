//! Where brokers are, as the workers of a run have learned it: for TLS, which cannot be recognised
//! as Kafka's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::may_open::{Learned, Opening, may_open};
use super::tls_options::TlsOptions;
use crate::hop::store::Store;
use crate::seen::{Ends, Process};

/// What the place of a broker takes, about.
const PLACE_BYTES: usize = 64;

/// Addresses and ports of brokers, and to which processes responses have named them. Learns nothing
/// before [`Brokers::learn_by`].
#[derive(Default)]
pub struct Brokers {
    /// Has the kernel side take TLS on a port.
    take: OnceLock<Box<dyn Fn(u16) + Send + Sync>>,
    learned: Mutex<Learned>,
    not_learned: AtomicU64,
}

impl Brokers {
    /// From now on brokers are learned; `take` is given each port on which TLS is to be taken that
    /// was not known before.
    pub fn learn_by(&self, take: impl Fn(u16) + Send + Sync + 'static) {
        // A second one would be a second capture's, which has a `Shared` of its own.
        let _ = self.take.set(Box::new(take));
    }

    /// A response has named a broker to this process, at the captured end of the connection (0: not
    /// known).
    pub(super) fn named(&self, pid: u32, host: &str, port: i32) {
        self.learn(|learned| learned.named(pid, host, port));
    }

    /// Kafka was spoken with this broker inside TLS.
    pub fn spoke(&self, broker: SocketAddr) {
        self.learn(|learned| learned.spoke(broker));
    }

    /// See [`may_open`].
    pub fn may_open(
        &self,
        ends: &Ends,
        owner: Option<&Process>,
        alpn: bool,
        options: &TlsOptions,
    ) -> Opening {
        may_open(ends, owner, alpn, &self.lock(), options)
    }

    /// Places of brokers that found no room so far.
    #[must_use]
    pub fn not_learned(&self) -> u64 {
        self.not_learned.load(Ordering::Relaxed)
    }

    fn learn(&self, learn: impl FnOnce(&mut Learned) -> Option<u16>) {
        let Some(take) = self.take.get() else { return };
        let mut learned = self.lock();
        let port = learn(&mut learned);
        self.not_learned.fetch_add(learned.take_not_learned(), Ordering::Relaxed);
        drop(learned);
        if let Some(port) = port {
            take(port);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Brokers {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        vec![("brokers that may speak TLS", self.lock().len())]
    }

    fn bytes(&self) -> usize {
        self.lock().len().saturating_mul(PLACE_BYTES)
    }
}
