//! Secrets that probes have seen derived, by the process that they are of.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ktrace_common::{Secret, SecretKind};
use ktrace_tls::Sender;
use ktrace_tls::secret::Secrets;
use ktrace_tls::session::{Plain, Session};
use zeroize::Zeroizing;

use crate::losses::Reason;

/// Of a process: what opens sixteen connections at once derives four each.
const OF_A_PROCESS: usize = 64;
/// Processes whose secrets are kept: those of which came longest nothing new are forgotten.
const PROCESSES: usize = 1024;
/// A connection's first protected record follows its handshake at once, so its secrets are asked
/// for by then.
const KEPT_NS: u64 = 60_000_000_000;

/// A secret of one connection of a process.
#[derive(Clone)]
pub struct Derived {
    pub kind: SecretKind,
    /// The connection's, where the library knows it when it derives: not OpenSSL in TLS 1.3.
    pub client_random: Option<[u8; 32]>,
    pub secret: Zeroizing<Vec<u8>>,
    /// Kernel time.
    pub time_ns: u64,
    /// Later ones have higher numbers.
    number: u64,
}

/// All that were seen lately, bounded.
#[derive(Default)]
pub struct Store {
    processes: Mutex<HashMap<u32, VecDeque<Derived>>>,
    number: AtomicU64,
    forgotten: AtomicU64,
}

/// Without the secrets.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Store {
    /// A number that changes when there is something new.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The number of the newest of this process, if there is one: a number that other processes do
    /// not change.
    #[must_use]
    pub fn number_of(&self, pid: u32) -> Option<u64> {
        self.lock().get(&pid)?.back().map(|derived| derived.number)
    }

    /// What was lost: secrets that others have pushed out before their time was over.
    #[must_use]
    pub fn loss(&self) -> (Reason, u64) {
        (Reason::SecretForgotten, self.forgotten())
    }

    /// Secrets that were pushed out by others before their time was over.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Opens what can be opened of a connection of this process. Returns whether a key came of it.
    /// Those up to the number `tried` were tried with what the session held then, and are tried
    /// with newer records only.
    pub fn open(
        &self,
        pid: u32,
        tried: Option<u64>,
        session: &mut Session,
        give: &mut impl FnMut(Sender, Plain<'_>),
    ) -> bool {
        if session.lacks().is_empty() {
            return false;
        }
        let random = session.hello().client_random;
        let mut sure = Secrets::default();
        let mut opened = false;
        for derived in self.of(pid, random.as_ref()) {
            if derived.client_random.is_some() && random.is_some() {
                put(&mut sure, &derived);
                continue;
            }
            let mut perhaps = Secrets::default();
            put(&mut perhaps, &derived);
            let again = tried.is_some_and(|tried| derived.number <= tried);
            if session.try_secrets(&perhaps, again, give) {
                self.taken(pid, &derived.secret);
                opened = true;
                if session.lacks().is_empty() {
                    break;
                }
            }
        }
        session.end_trial();
        if sure.all().next().is_some() && session.take_secrets(&sure, give) {
            for secret in sure.all() {
                self.taken(pid, secret);
            }
            opened = true;
        }
        opened
    }

    /// What may be of a connection of this process, the newest first: where both randoms are known
    /// they have to be the same; else a record that it opens has to show it.
    #[must_use]
    pub fn of(&self, pid: u32, client_random: Option<&[u8; 32]>) -> Vec<Derived> {
        let fits = |derived: &&Derived| match (&derived.client_random, client_random) {
            (Some(its), Some(random)) => its == random,
            _ => true,
        };
        let processes = self.lock();
        processes.get(&pid).map(|all| all.iter().rev().filter(fits).cloned().collect()).unwrap_or_default()
    }

    /// A connection has this secret: no other will.
    pub fn taken(&self, pid: u32, secret: &[u8]) {
        if let Some(all) = self.lock().get_mut(&pid) {
            all.retain(|derived| **derived.secret != *secret);
        }
    }

    /// Takes a secret that a probe has seen.
    pub(super) fn add(&self, kind: SecretKind, seen: &Secret) {
        let Some(secret) = seen.secret.get(..usize::from(seen.length)) else { return };
        let client_random = (seen.has_random != 0).then_some(seen.client_random);
        let secret = Zeroizing::new(secret.to_vec());
        let mut processes = self.lock();
        let number = self.number().saturating_add(1);
        let derived = Derived { kind, client_random, secret, time_ns: seen.time_ns, number };
        if !processes.contains_key(&seen.pid) && processes.len() >= PROCESSES {
            self.make_room(&mut processes, seen.time_ns);
        }
        let all = processes.entry(seen.pid).or_default();
        if all.len() >= OF_A_PROCESS && all.pop_front().is_some_and(|old| is_young(&old, seen.time_ns)) {
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        all.push_back(derived);
        // Under the lock, so that no two have the same.
        self.number.store(number, Ordering::Release);
    }

    /// Forgets what is too old to be asked for, at this kernel time.
    pub(super) fn tick(&self, now_ns: u64) {
        self.lock().retain(|_, all| {
            all.retain(|derived| is_young(derived, now_ns));
            !all.is_empty()
        });
    }

    fn make_room(&self, processes: &mut HashMap<u32, VecDeque<Derived>>, now_ns: u64) {
        processes.retain(|_, all| all.back().is_some_and(|derived| is_young(derived, now_ns)));
        let time = |all: &VecDeque<Derived>| all.back().map_or(0, |derived| derived.time_ns);
        if processes.len() >= PROCESSES
            && let Some(oldest) = processes.iter().min_by_key(|(_, all)| time(all)).map(|(pid, _)| *pid)
        {
            let all = processes.remove(&oldest).unwrap_or_default();
            self.forgotten.fetch_add(all.len() as u64, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, VecDeque<Derived>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(secrets: &mut Secrets, derived: &Derived) {
    let place = match derived.kind {
        SecretKind::Master => &mut secrets.master,
        SecretKind::ClientTraffic => &mut secrets.client_traffic,
        SecretKind::ServerTraffic => &mut secrets.server_traffic,
        SecretKind::Blank | SecretKind::Connecting => return,
    };
    // The newest comes first.
    place.get_or_insert_with(|| derived.secret.clone());
}

fn is_young(derived: &Derived, now_ns: u64) -> bool {
    now_ns.saturating_sub(derived.time_ns) < KEPT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pid: u32, secret: u8, random: Option<u8>, time_s: u64) -> Secret {
        Secret {
            kind: SecretKind::ClientTraffic as u8,
            length: 32,
            has_random: u8::from(random.is_some()),
            pid,
            time_ns: time_s * 1_000_000_000,
            client_random: [random.unwrap_or(0); 32],
            secret: [secret; 48],
            ..Secret::BLANK
        }
    }

    fn seen(store: &Store, pid: u32, random: Option<u8>) -> Vec<u8> {
        let random = random.map(|byte| [byte; 32]);
        store.of(pid, random.as_ref()).iter().map(|derived| derived.secret[0]).collect()
    }

    #[test]
    fn of_the_process_and_the_random_the_newest_first() {
        let store = Store::default();
        for told in
            [told(1, 10, None, 1), told(1, 11, Some(7), 2), told(1, 12, Some(8), 3), told(2, 13, None, 4)]
        {
            store.add(SecretKind::ClientTraffic, &told);
        }
        assert_eq!(seen(&store, 1, Some(7)), [11, 10]);
        assert_eq!(seen(&store, 1, None), [12, 11, 10]);
        assert_eq!(seen(&store, 2, Some(7)), [13]);
        assert!(seen(&store, 3, None).is_empty());
        assert_eq!(store.of(1, None)[0].secret.len(), 32);
        assert_eq!(store.number(), 4);
        assert_eq!([1, 2, 3].map(|pid| store.number_of(pid)), [Some(3), Some(4), None]);
        store.taken(1, &[11; 32]);
        assert_eq!(seen(&store, 1, Some(7)), [10]);
    }

    #[test]
    fn bounded_and_forgotten_in_time() {
        let store = Store::default();
        for index in 0..100 {
            store.add(SecretKind::ClientTraffic, &told(1, index, None, 1));
        }
        assert_eq!((seen(&store, 1, None).len(), store.forgotten()), (OF_A_PROCESS, 36));
        for pid in 2..=1025 {
            store.add(SecretKind::ClientTraffic, &told(pid, 0, None, 2));
        }
        assert_eq!(store.forgotten(), 100, "those of the process that was silent longest");
        assert_eq!(store.lock().len(), PROCESSES);
        store.tick(61 * 1_000_000_000);
        assert_eq!(store.lock().len(), PROCESSES, "not yet");
        store.tick(62 * 1_000_000_000);
        assert_eq!(store.lock().len(), 0);
        // A length that the kernel never reports.
        store.add(SecretKind::Master, &Secret { length: 49, ..told(1, 0, None, 1) });
        assert!(store.of(1, None).is_empty());
    }
}
