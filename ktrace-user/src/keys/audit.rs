//! One line for each process that was searched, so that it is known whose memory was read, when and
//! why.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::memory::{Target, Unreadable};
use crate::export::printable;
use crate::seen::Ends;

/// Of one process after its first line.
const PAUSE: Duration = Duration::from_secs(60);
/// Processes that are remembered. Where there are more, each of their searches is a first one.
const MOST: usize = 4096;

/// A search of one process, or several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// That asked for it.
    pub connections: usize,
    pub bytes: u64,
    pub cpu: Duration,
    /// That were proved.
    pub keys: usize,
    pub failed: Option<Unreadable>,
}

/// What was said of which process.
#[derive(Default)]
pub struct Audit {
    said: HashMap<Target, Said>,
}

struct Said {
    at: Instant,
    /// Searches that were not said yet, and their sums.
    since: usize,
    sum: Search,
}

impl Audit {
    /// The line to be said of a search now, if any. `ends` are those of one of the connections.
    pub fn searched(
        &mut self,
        target: Target,
        service: &str,
        ends: Ends,
        search: Search,
        now: Instant,
    ) -> Option<String> {
        if self.said.len() >= MOST && !self.said.contains_key(&target) {
            self.said.clear();
        }
        let said = self.said.entry(target);
        let mut is_first = false;
        let said = said.or_insert_with(|| {
            is_first = true;
            Said { at: now, since: 0, sum: Search::default() }
        });
        said.since += 1;
        said.sum = said.sum.and(search);
        if !is_first && now.saturating_duration_since(said.at) < PAUSE {
            return None;
        }
        let line = line(target, service, ends, said);
        *said = Said { at: now, since: 0, sum: Search::default() };
        Some(line)
    }
}

impl Search {
    fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            bytes: self.bytes + other.bytes,
            cpu: self.cpu + other.cpu,
            keys: self.keys + other.keys,
            failed: other.failed,
        }
    }
}

fn line(target: Target, service: &str, ends: Ends, Said { since, sum, .. }: &Said) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut line = format!(
        "memory of {} (pid {}) read for keys of {} TLS connection{} ({} to {}{}): ",
        printable(service),
        target.pid,
        sum.connections,
        plural(sum.connections),
        ends.client,
        ends.broker,
        if sum.connections > 1 { ", …" } else { "" },
    );
    // Writing to a string cannot fail.
    let _ = match sum.failed {
        Some(Unreadable::Denied) => write!(line, "denied"),
        Some(Unreadable::Ended) => write!(line, "the process had ended"),
        None => write!(
            line,
            "{:.1} MiB in {:.1} ms of CPU, {} key{} found",
            sum.bytes as f64 / f64::from(1 << 20),
            sum.cpu.as_secs_f64() * 1e3,
            sum.keys,
            plural(sum.keys)
        ),
    };
    if *since > 1 {
        let _ = write!(line, " in {since} searches");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_at_once_and_then_each_minute() {
        let ends = Ends { client: "10.0.0.1:5".parse().unwrap(), broker: "10.0.0.2:9093".parse().unwrap() };
        let target = Target { pid: 7, started: 1 };
        let search = Search {
            connections: 1,
            bytes: 3 << 20,
            cpu: Duration::from_micros(2500),
            keys: 2,
            failed: None,
        };
        let mut audit = Audit::default();
        let mut now = Instant::now();
        let mut say = |target, search, now| audit.searched(target, "or\nders", ends, search, now);
        assert_eq!(
            say(target, search, now).unwrap(),
            "memory of or\u{fffd}ders (pid 7) read for keys of 1 TLS connection (10.0.0.1:5 to \
            10.0.0.2:9093): 3.0 MiB in 2.5 ms \
             of CPU, 2 keys found"
        );
        now += Duration::from_secs(1);
        assert_eq!(say(target, search, now), None);
        let denied = Search { failed: Some(Unreadable::Denied), ..Search::default() };
        assert!(say(Target { pid: 8, started: 1 }, denied, now).unwrap().ends_with(": denied"));
        // The same number, and another process.
        assert!(say(Target { pid: 7, started: 2 }, search, now).is_some());
        now += PAUSE;
        let line = say(target, search, now).unwrap();
        assert!(line.contains("2 TLS connections (10.0.0.1:5 to 10.0.0.2:9093, …): 6.0 MiB"), "{line}");
        assert!(line.ends_with("4 keys found in 2 searches"), "{line}");
    }

    #[test]
    fn bounded() {
        let ends = Ends { client: "[::1]:5".parse().unwrap(), broker: "[::1]:9093".parse().unwrap() };
        let mut audit = Audit::default();
        for pid in 0..MOST as u32 * 2 {
            let target = Target { pid, started: 1 };
            assert!(audit.searched(target, "x", ends, Search::default(), Instant::now()).is_some());
        }
        assert!(audit.said.len() <= MOST);
    }
}
