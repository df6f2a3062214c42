//! Looks at the agent itself, once or twice a second: what it loses, what it met and cannot read, and how much CPU time and
//! memory it takes where those are limited.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ktrace_kafka::counters::Lost;

use super::Failure;
use super::own_limit::usage;
use crate::capture::CounterReader;
use crate::export::{printable, top};
use crate::losses::LossLines;
use crate::seen::Ends;
use crate::worker::{Others, Shared, Throttle};

/// How often.
const PAUSE: Duration = Duration::from_secs(1);
/// How often where CPU time is limited.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// How often it is told at most that messages were not listed: of a group that never commits there are more and more.
const LEFT_OUT_PAUSE: Duration = Duration::from_secs(60);

/// How often where memory is limited: what is known to be large is asked for before, the rest grows slowly.
const MEMORY_PAUSE: Duration = Duration::from_millis(200);

/// What tells how much memory the agent takes.
#[derive(Clone, Debug)]
pub enum Usage {
    /// The process's resident set.
    Resident,
    /// What is charged to its cgroup, this directory.
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

/// The thread.
pub struct Lookout {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Lookout {
    /// `ports_are_given`: what speaks something else there is told.
    pub fn start(
        shared: Arc<Shared>,
        counters: CounterReader,
        limits: Limits,
        ports_are_given: bool,
    ) -> Result<Self, Failure> {
        let (stop, stopped) = mpsc::channel();
        let pause = if limits.cpu.is_some() { SHORT_PAUSE } else { PAUSE };
        let short_pause = if limits.memory.is_some() { MEMORY_PAUSE.min(pause) } else { pause };
        let mut looks = Looks::new(shared, counters, limits);
        looks.ports_are_given = ports_are_given;
        let look = move || {
            let mut looked = Instant::now();
            // The other end is dropped, or says so, when the run ends.
            while stopped.recv_timeout(short_pause) == Err(RecvTimeoutError::Timeout) {
                looks.look_at_memory();
                if looked.elapsed() + short_pause / 2 >= pause {
                    looked = Instant::now();
                    looks.look();
                }
            }
            looks.end();
        };
        let thread =
            std::thread::Builder::new().name("ktrace-lookout".to_owned()).spawn(look).map_err(|error| {
                Failure::failed(format_args!("cannot start a thread: {error}"), "report this")
            })?;
        Ok(Self { stop, thread })
    }

    /// After the last event: what is still to be told.
    pub fn finish(self) {
        drop(self.stop);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Looks {
    shared: Arc<Shared>,
    counters: CounterReader,
    limits: Limits,
    begin: Instant,
    losses: LossLines,
    throttle: Option<Throttle>,
    /// CPU time at the last look, and when that was.
    cpu: (Duration, Instant),
    /// Services of which it was said that their TLS is not read, and why.
    tls: BTreeSet<(String, String)>,
    /// The user has said where Kafka is.
    ports_are_given: bool,
    /// Reasons for which a connection was said to be none of Kafka's.
    not_kafka: BTreeSet<&'static str>,
    /// It was said that messages carry ktrace's own telemetry.
    own_telemetry: bool,
    /// Of how many messages it was told that they are not listed, and when.
    left_out: (u64, Option<Instant>),
}

impl Looks {
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

    /// A backend writes ktrace's own telemetry to Kafka: said once, with the first topic that it is seen in.
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

    /// Messages that `--uncommitted` does not list; now where this is the `end`.
    fn left_out(&mut self, end: bool) {
        let count = self.shared.left_out();
        let (told, since) = self.left_out;
        let is_due = end || since.is_none_or(|since| since.elapsed() >= LEFT_OUT_PAUSE);
        if count > told && is_due {
            say(&format!("{} messages more were not committed in time and are not listed", count - told));
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

/// A full screen tells it itself.
pub fn say(line: &str) {
    if !top::is_taken() {
        eprintln!("ktrace: {line}");
    }
}

/// CPU time that the process has used, in all its threads.
fn cpu_time() -> Duration {
    // SAFETY: all zeros are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer; the call cannot fail with RUSAGE_SELF.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |of: libc::timeval| {
        Duration::from_secs(of.tv_sec.unsigned_abs()) + Duration::from_micros(of.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes of the process's resident set, where what it shares with the kernel counts as often as it is mapped.
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
