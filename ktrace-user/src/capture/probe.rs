//! What of capturing works on this host, tried and not guessed: for `ktrace doctor`.

use std::fs;
use std::sync::Arc;

use ktrace_common::ends;
use ktrace_kafka::connection::Speaks;

use super::cgroup::{self, Cgroup};
use super::existing;
use super::live::{page_size, refusal};
use super::programs::{PROGRAMS, Programs, Settings};
use super::ring::{ring_size, wake_shift};
use super::{CaptureError, Ends, PortSet, privilege};
use crate::privilege::{KEEPERS, filter};
use crate::process::{Process, ServiceNames, Table};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Short, the same on every host: `kernel`, `cgroup v2`, `CAP_BPF`, `program egress`.
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
    /// What it was heard to speak; `None` where it was not listened to, or silent.
    pub speaks: Option<Speaks>,
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
        let works = |name: &str| self.items.iter().any(|item| item.name == name && item.ok);
        PROGRAMS.into_iter().filter(|(_, needed)| *needed).all(|(name, _)| works(&program_item(name)))
    }
}

/// Capabilities that capturing makes use of: bit (`include/uapi/linux/capability.h`), name, what it is for, and whether there is no capture
/// without it.
const CAPABILITIES: [(u32, &str, &str, bool); 7] = [
    (39, "CAP_BPF", "loading the programs", true),
    (12, "CAP_NET_ADMIN", "attaching them to sockets", true),
    (privilege::PERFMON, "CAP_PERFMON", "not needed; names processes that end at once", false),
    (
        21,
        "CAP_SYS_ADMIN",
        "sockets in other network namespaces that were there before; mounting cgroup v2 where it is not",
        false,
    ),
    (19, "CAP_SYS_PTRACE", "names of processes of other users, from their environment and executable", false),
    (23, "CAP_SYS_NICE", "names of processes that end at once, on busy hosts", false),
    (2, "CAP_DAC_READ_SEARCH", "the same where file modes forbid it", false),
];
/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`: the inode of the initial pid namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Tries everything. Programs are attached for a moment and let nothing through the ring.
#[must_use]
pub fn run(ports: &PortSet) -> Report {
    let mut items = vec![kernel(), pid_namespace()];
    items.extend(capabilities(privilege::effective()));
    items.extend(memlock());
    let cgroup = cgroup::open(None);
    items.push(cgroup_item(&cgroup));
    items.extend(programs(ports, cgroup.as_ref().ok()));
    let (item, sockets) = sockets(ports);
    items.push(item);
    items.extend(hardening());
    Report { items, sockets }
}

fn check(name: &str, ok: bool, detail: impl Into<String>, advice: Option<&str>) -> Check {
    Check { name: name.to_owned(), ok, detail: detail.into(), advice: advice.map(str::to_owned) }
}

fn kernel() -> Check {
    let release = release();
    let ok = version(&release).is_some_and(|version| version >= (5, 8));
    check("kernel", ok, release, (!ok).then_some("ktrace needs Linux 5.8 or newer"))
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Major and minor number of a kernel release such as `5.10.0-33-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The kernel names processes by their number in the initial namespace; looked up in another one, they would be someone else.
fn pid_namespace() -> Check {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(name) if name.to_str() == Some(INITIAL_PID_NAMESPACE) => {
            check("pid namespace", true, "the host's", None)
        }
        Ok(_) => check(
            "pid namespace",
            false,
            "a container's: processes cannot be named",
            Some("run the container with the host's pid namespace (hostPID: true, --pid=host)"),
        ),
        Err(error) => check("pid namespace", false, error.to_string(), Some("mount /proc")),
    }
}

fn capabilities(effective: u64) -> Vec<Check> {
    CAPABILITIES
        .into_iter()
        .map(|(bit, name, purpose, needed)| {
            let held = effective & 1 << bit != 0;
            let implied = needed && effective & 1 << privilege::SYS_ADMIN != 0;
            let advice = (!held && !implied).then(|| format!("give ktrace {name}, or run it as root"));
            let detail = match (held, implied) {
                (true, _) => format!("held: {purpose}"),
                (false, true) => format!("covered by CAP_SYS_ADMIN: {purpose}"),
                (false, false) => format!("missing: {purpose}"),
            };
            let optional = name == "CAP_PERFMON";
            Check {
                name: name.to_owned(),
                ok: held || implied || optional,
                detail,
                advice: advice.filter(|_| !optional),
            }
        })
        .collect()
}

/// Locked memory matters before Linux 5.11 only.
fn memlock() -> Option<Check> {
    if version(&release())? >= (5, 11) {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place to write to.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    let ok = limit.rlim_max == libc::RLIM_INFINITY || privilege::holds(privilege::SYS_RESOURCE);
    let advice = "this kernel counts BPF maps as locked memory: raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity)";
    let detail = match limit.rlim_max {
        libc::RLIM_INFINITY => "no limit".to_owned(),
        bytes => format!("at most {} KiB; raised by ktrace where it may", bytes >> 10),
    };
    Some(check("locked memory", ok, detail, (!ok).then_some(advice)))
}

fn cgroup_item(cgroup: &Result<Cgroup, cgroup::CgroupError>) -> Check {
    match cgroup {
        Ok(Cgroup { path, whole_host, .. }) => {
            let place = path.as_ref().map_or_else(
                || "mounted nowhere; ktrace makes a mount of its own that nobody sees".to_owned(),
                |path| format!("mounted at {}", path.display()),
            );
            let advice = "only a container's part of the tree is in sight: mount the host's /sys/fs/cgroup into the container";
            check("cgroup v2", *whole_host, place, (!whole_host).then_some(advice))
        }
        Err(error) => check(
            "cgroup v2",
            false,
            error.to_string(),
            Some("mount the tree: mount -t cgroup2 none /sys/fs/cgroup/unified"),
        ),
    }
}

/// What the agent goes on with once it watches.
fn hardening() -> [Check; 2] {
    let given = privilege::effective();
    let names = |keeps: &[u32]| {
        let kept = privilege::among(given, keeps);
        let names = CAPABILITIES.into_iter().filter(|(bit, ..)| kept & 1 << bit != 0);
        names.map(|(_, name, ..)| name.trim_start_matches("CAP_")).collect::<Vec<_>>().join(", ")
    };
    let keepers = KEEPERS.iter().map(|keeper| (keeper.thread, names(keeper.keeps)));
    let keepers: Vec<_> = keepers
        .filter(|(_, kept)| !kept.is_empty())
        .map(|(thread, kept)| format!("{thread} {kept}"))
        .collect();
    let kept = if keepers.is_empty() { "none".to_owned() } else { keepers.join("; ") };
    let (capabilities, filter) = ("capabilities kept", "system calls");
    let cannot = |name, error: &dyn std::fmt::Display| {
        check(
            name,
            false,
            error.to_string(),
            Some("the agent runs all the same, with more power than it needs"),
        )
    };
    let allowed =
        format!("{} allowed; others fail with ENOSYS and are logged by the kernel", filter::allowed());
    match privilege::rehearse() {
        Ok(Ok(left)) => [
            check(capabilities, left == 0, format!("{kept}; other threads none"), None),
            check(filter, true, allowed, None),
        ],
        Ok(Err(error)) => [check(capabilities, true, kept, None), cannot(filter, &error)],
        Err(error) => [cannot(capabilities, &error), cannot(filter, &error)],
    }
}

fn program_item(name: &str) -> String {
    format!("program {name}")
}

/// Loads and attaches each program; all are gone again when this returns.
fn programs(ports: &PortSet, cgroup: Option<&Cgroup>) -> Vec<Check> {
    let ring_bytes = ring_size(1 << 16, page_size());
    let settings = Settings {
        ports,
        rings: 1,
        ring_bytes,
        wake_shift: wake_shift(ring_bytes),
        ends: ends::CLIENT | ends::BROKER,
        pid: 0,
        netns_cookie: 0,
    };
    let mut programs = match Programs::new(&settings) {
        Ok(programs) => programs,
        Err(error) => {
            return vec![check("eBPF maps", false, error.to_string(), Some(error.advice()))];
        }
    };
    let mut items = vec![check("eBPF maps", true, "made", None)];
    let Some(cgroup) = cgroup else { return items };
    for (name, needed) in PROGRAMS {
        let item = program_item(name);
        items.push(match programs.attach(name, cgroup) {
            Ok(_link) => check(&item, true, "loaded and attached", None),
            Err(source) => {
                let error = CaptureError::Program { name, source: Box::new(source) };
                let advice = if needed {
                    error.advice()
                } else {
                    "capture works without it, but knows less of processes"
                };
                check(&item, false, error.to_string(), Some(advice))
            }
        });
    }
    let scrubbed = programs.scrubber().map_err(|error| refusal(&error));
    let scrubbed = scrubbed.and_then(|scrubber| scrubber.write(0, 1).map_err(|error| error.to_string()));
    let item = program_item("scrub");
    items.push(match scrubbed {
        Ok(()) => check(&item, true, "loaded and run", None),
        Err(error) => {
            let advice = "capture works without it, but what was read stays in memory until as much has passed as the ring holds";
            check(&item, false, error, Some(advice))
        }
    });
    items
}

fn sockets(ports: &PortSet) -> (Check, Vec<KafkaSocket>) {
    let mut table = Table::new(ServiceNames::default());
    match existing::find(|socket| ports.contains(socket.remote.port())) {
        Ok(found) => {
            let usual = if ports.is_auto() { "the usual ports" } else { "these ports" };
            let detail = format!("{} connections to {usual}", found.len());
            let sockets = found
                .into_iter()
                .map(|socket| KafkaSocket {
                    ends: socket.ends,
                    owner: socket.pid.map(|pid| table.get(pid, "")),
                    speaks: None,
                })
                .collect();
            (check("sockets", true, detail, None), sockets)
        }
        Err(error) => {
            let advice = "the kernel lists sockets by sock_diag (modules inet_diag and tcp_diag); without it, connections older than ktrace have no process";
            (check("sockets", false, error.to_string(), Some(advice)), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("5.10.0-33-amd64"), Some((5, 10)));
        assert_eq!(version("6.18"), Some((6, 18)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("custom"), None);
        assert!(kernel().ok);
    }

    #[test]
    fn capabilities_one_by_one() {
        let of = |effective: u64| -> Vec<(String, bool)> {
            capabilities(effective).into_iter().map(|check| (check.name, check.ok)).collect()
        };
        assert!(of(u64::MAX).iter().all(|(_, ok)| *ok));
        let none = of(0);
        assert!(none.iter().all(|(name, ok)| *ok == (name == "CAP_PERFMON")), "{none:?}");
        let admin = of(1 << privilege::SYS_ADMIN);
        assert!(admin.contains(&("CAP_BPF".to_owned(), true)));
        assert!(admin.contains(&("CAP_SYS_PTRACE".to_owned(), false)));
    }

    #[test]
    fn without_its_programs_nothing_can_be_captured() {
        assert!(!Report::default().can_capture());
    }
}
