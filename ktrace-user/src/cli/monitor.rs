//! Watches the agent itself, once or twice a second: it reports losses and connections that are not
//! read, and holds CPU time and memory to their limits.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ktrace_kafka::counters::Lost;
use rustix::time::{ClockId, clock_gettime};

use super::Failure;
use super::own_limit::usage;
use crate::capture::CounterReader;
use crate::export::{printable, top};
use crate::losses::LossLines;
use crate::seen::Ends;
use crate::worker::{Others, Shared, Throttle};

/// How often losses are looked at. A line a second later is early enough for people.
const PAUSE: Duration = Duration::from_secs(1);
/// How often where CPU time is limited: the share of traces that is kept follows within seconds.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// The least time between two lines about messages that are not listed: a group that never commits
/// has more and more of them.
const LEFT_OUT_PAUSE: Duration = Duration::from_secs(60);

/// How often where memory is limited. Large pieces are asked for before they are taken, the rest
/// grows slowly.
const MEMORY_PAUSE: Duration = Duration::from_millis(200);

/// How the memory that the agent takes is measured.
#[derive(Clone, Debug)]
pub enum Usage {
    /// The process's resident set.
    Resident,
    /// The memory charged to its cgroup, this directory.
    OfCgroup(PathBuf),
}

impl Usage {
    fn bytes(&self) -> Option<usize> {
        match self {
            Self::Resident => resident(),
            Self::OfCgroup(dir) => usage(dir).or_else(resident),
        }
    }
}

/// Limits of the agent itself.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Share of one core.
    pub cpu: Option<f64>,
    /// Bytes that it may take.
    pub memory: Option<(Usage, usize)>,
}

/// The thread that watches.
pub struct Monitor {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Monitor {
    /// `ports_are_given`: other protocols on these ports are reported.
    pub fn start(
        shared: Arc<Shared>,
        counters: CounterReader,
        limits: Limits,
        ports_are_given: bool,
    ) -> Result<Self, Failure> {
        let (stop, stopped) = mpsc::channel();
        let pause = if limits.cpu.is_some() { SHORT_PAUSE } else { PAUSE };
        let short_pause = if limits.memory.is_some() { MEMORY_PAUSE.min(pause) } else { pause };
        let mut watch = Watch::new(shared, counters, limits);
        watch.ports_are_given = ports_are_given;
        let look = move || {
            let mut looked = Instant::now();
            // The other end is dropped, or says so, when the run ends.
            while stopped.recv_timeout(short_pause) == Err(RecvTimeoutError::Timeout) {
                watch.look_at_memory();
                if looked.elapsed() + short_pause / 2 >= pause {
                    looked = Instant::now();
                    watch.look();
                }
            }
            watch.end();
        };
        let thread =
            std::thread::Builder::new().name("ktrace-monitor".to_owned()).spawn(look).map_err(|error| {
                Failure::failed(format_args!("cannot start a thread: {error}"), "report this")
            })?;
        Ok(Self { stop, thread })
    }

    /// After the last event: reports what is left, and ends.
    pub fn finish(self) {
        drop(self.stop);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    counters: CounterReader,
    limits: Limits,
    begin: Instant,
    losses: LossLines,
    throttle: Option<Throttle>,
    /// CPU time at the last look, and when that was.
    cpu: (Duration, Instant),
    /// Services that were reported to have TLS that is not read, and why.
    tls: BTreeSet<(String, String)>,
    /// The user has named Kafka's ports.
    ports_are_given: bool,
    /// Reasons that were reported for connections that are not Kafka.
    not_kafka: BTreeSet<&'static str>,
    /// A line has said that messages carry ktrace's own telemetry.
    own_telemetry: bool,
    /// How many messages were reported as not listed, and when.
    left_out: (u64, Option<Instant>),
}

impl Watch {
    fn new(shared: Arc<Shared>, counters: CounterReader, limits: Limits) -> Self {
        let begin = Instant::now();
        Self {
            shared,
            counters,
            begin,
            losses: LossLines::default(),
            throttle: limits.cpu.map(Throttle::new),
            limits,
            cpu: (cpu_time(), begin),
            tls: BTreeSet::new(),
            ports_are_given: false,
            not_kafka: BTreeSet::new(),
            own_telemetry: false,
            left_out: (0, None),
        }
    }

    fn look(&mut self) {
        if let Some(line) = self.lost() {
            say(&line);
        }
        self.left_out(false);
        self.own_telemetry();
        for (service, reasons) in self.shared.tls() {
            for (reason, count) in reasons {
                let key = (service.clone(), reason);
                if !self.tls.contains(&key) {
                    let (what, are) = if count == 1 { ("connection", "is") } else { ("connections", "are") };
                    let name = printable(&service);
                    let why = if key.1 == Lost::Tls.name() { "--tls reads them" } else { &key.1 };
                    say(&format!("{name}: {count} {what} {are} TLS, not read ({why})"));
                    self.tls.insert(key);
                }
            }
        }
        if self.ports_are_given {
            for (reason, Others { first: Ends { client, broker }, .. }) in self.shared.not_kafka() {
                if self.not_kafka.insert(reason) {
                    say(&format!("{client} to {broker} is not read as Kafka ({reason}); others are counted"));
                }
            }
        }
        if let Some(throttle) = &mut self.throttle {
            let (used, now) = (cpu_time(), Instant::now());
            let (before, since) = std::mem::replace(&mut self.cpu, (used, now));
            let share = used.saturating_sub(before).as_secs_f64() / (now - since).as_secs_f64().max(1e-3);
            self.shared.keep(throttle.turn(share));
        }
    }

    fn look_at_memory(&self) {
        if let Some((usage, allowed)) = &self.limits.memory
            && let Some(bytes) = usage.bytes()
        {
            self.shared.regulate_memory(bytes, *allowed);
        }
    }

    fn lost(&mut self) -> Option<String> {
        let kernel = self.counters.read();
        let kernel = kernel.lost().map(|(reason, count)| (reason, count.events));
        let kernel: Vec<_> = kernel.collect();
        self.losses.look(self.begin.elapsed(), kernel.into_iter().chain(self.shared.live_losses()))
    }

    /// Reports once that a backend writes ktrace's own telemetry to Kafka, with the first such
    /// topic.
    fn own_telemetry(&mut self) {
        if self.own_telemetry {
            return;
        }
        if let Some((topic, _)) = self.shared.own_telemetry().first_key_value() {
            say(&format!(
                "{} carries ktrace's own telemetry: such messages are left out and counted as own_telemetry; \
                 --own-telemetry shows them",
                printable(topic)
            ));
            self.own_telemetry = true;
        }
    }

    /// Reports messages that `--uncommitted` does not list: from time to time, and at the `end`.
    fn left_out(&mut self, end: bool) {
        let count = self.shared.left_out();
        let (reported, since) = self.left_out;
        let is_due = end || since.is_none_or(|since| since.elapsed() >= LEFT_OUT_PAUSE);
        if count > reported && is_due {
            say(&format!("{} messages more were not committed in time and are not listed", count - reported));
            self.left_out = (count, Some(Instant::now()));
        }
    }

    fn end(&mut self) {
        self.look();
        self.left_out(true);
        if let Some(line) = self.losses.end() {
            say(&line);
        }
    }
}

/// Prints a line on standard error, unless a full screen is shown: that shows losses itself.
pub fn say(line: &str) {
    if !top::is_taken() {
        eprintln!("ktrace: {line}");
    }
}

/// CPU time that the process has used, in all its threads.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Bytes of the process's resident set. Memory shared with the kernel counts as often as it is
/// mapped.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }
}
