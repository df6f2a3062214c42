//! What of capturing works on this host, tried and not guessed: for `ktrace doctor`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ktrace_common::ends;
use ktrace_kafka::Speaks;
use rustix::process::{Resource, getrlimit};

use super::attachment::attach_for_a_moment;
use super::bpf_call::{self, Standing};
use super::cgroup::{self, Cgroup};
use super::existing;
use super::live::refusal;
use super::page::page_size;
use super::programs::{HOOKS, Programs, Settings};
use super::ring::{ring_size, wake_shift};
use super::{CaptureError, PortSet, privilege};
use crate::privilege::memory::Lack;
use crate::privilege::{KEEPERS, filter};
use crate::process::{ServiceNames, Table};
use crate::seen::{Ends, Process};
use crate::worker::{TlsOptions, TlsSource};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Short, the same on every host: `kernel`, `cgroup v2`, `CAP_BPF`, `program egress`.
    pub name: String,
    pub ok: bool,
    /// Whether there is no capture without it.
    pub needed: bool,
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
        HOOKS.iter().filter(|hook| hook.needed).all(|hook| works(&program_item(hook.name)))
    }
}

/// Capabilities that capturing makes use of: bit, name, what it is for, and whether there is no
/// capture without it.
const CAPABILITIES: [(u32, &str, &str, bool); 7] = [
    (privilege::BPF, "CAP_BPF", "loading the programs", true),
    (privilege::NET_ADMIN, "CAP_NET_ADMIN", "attaching them to sockets", true),
    (
        privilege::SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "names of processes of other users, from their environment and executable",
        false,
    ),
    (privilege::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "the same where file modes forbid it", false),
    (
        privilege::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "sockets in other network namespaces that were there before; mounting cgroup v2 where it is not",
        false,
    ),
    (privilege::PERFMON, "CAP_PERFMON", "names of processes that end at once", false),
    (privilege::SYS_NICE, "CAP_SYS_NICE", "the same on busy hosts", false),
];

/// Tries everything. Programs are attached for a moment, to the directory that is `named` or else
/// to the root, and let nothing through the ring.
#[must_use]
pub fn run(ports: &PortSet, named: Option<&Path>, tls: &TlsOptions) -> Report {
    let standing = Standing::here();
    let mut items = vec![kernel(), proc(), user_namespace(standing), pid_namespace()];
    let is_of_namespace = standing.in_host_user_namespace == Some(false);
    items.extend(capabilities(privilege::effective(), is_of_namespace));
    let forbidden = bpf_call::reason(bpf_call::call(), standing);
    items.push(match &forbidden {
        None => check("bpf(2)", true, "may be called", None).needed(),
        Some((reason, advice)) => check("bpf(2)", false, reason, Some(advice)).needed(),
    });
    items.extend(memlock());
    let cgroup = cgroup::open(named);
    items.push(cgroup_item(&cgroup, named));
    match forbidden {
        None => items.extend(programs(ports, cgroup.as_ref().ok(), standing)),
        Some(_) => items.push(check("eBPF maps", false, "not tried, as bpf(2) is forbidden", None).needed()),
    }
    let (item, sockets) = sockets(ports, tls);
    items.push(item);
    items.push(tls_keys(tls));
    items.extend(hardening());
    Report { items, sockets }
}

fn check(name: &str, ok: bool, detail: impl Into<String>, advice: Option<&str>) -> Check {
    Check {
        name: name.to_owned(),
        ok,
        needed: false,
        detail: detail.into(),
        advice: advice.map(str::to_owned),
    }
}

impl Check {
    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

fn kernel() -> Check {
    let release = release();
    let ok = version(&release).is_some_and(|version| version >= (5, 8));
    check("kernel", ok, release, (!ok).then_some("ktrace needs Linux 5.8 or newer")).needed()
}

/// Without /proc, as that may be what is missing.
fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor number of a kernel release such as `5.10.0-33-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where processes are looked up.
fn proc() -> Check {
    if !Path::new("/proc/self/stat").exists() {
        return check(
            "/proc",
            false,
            "not mounted: no process can be named, and no socket's owner found",
            Some("mount it: mount -t proc proc /proc"),
        );
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match hidepid(&table) {
        None => check("/proc", true, "mounted", None),
        Some(option) if privilege::holds(privilege::SYS_PTRACE) => check(
            "/proc",
            true,
            format!("mounted with {option}, which does not hide from CAP_SYS_PTRACE"),
            None,
        ),
        Some(option) if Path::new("/proc/1/stat").exists() => check(
            "/proc",
            true,
            format!("mounted with {option}; processes are shown to this one all the same"),
            None,
        ),
        Some(option) => check(
            "/proc",
            false,
            format!("mounted with {option}: processes of other users are hidden, so they are not named"),
            Some("give ktrace CAP_SYS_PTRACE, or the group that the mount's gid= names"),
        ),
    }
}

/// The mount option of /proc that hides processes, in a mount table (proc_pid_mountinfo(5)); the
/// last mount is on top.
fn hidepid(table: &str) -> Option<&str> {
    let proc = table.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"))?;
    let options = proc.split_once(" - ")?.1.split(' ').nth(2)?;
    options
        .split(',')
        .find(|option| option.starts_with("hidepid=") && !matches!(*option, "hidepid=0" | "hidepid=off"))
}

fn user_namespace(standing: Standing) -> Check {
    match standing.in_host_user_namespace {
        Some(true) => check("user namespace", true, "the host's", None),
        Some(false) => check(
            "user namespace",
            false,
            "a container's or a user's own: what is held there counts for nothing that ktrace needs",
            Some(
                "run ktrace in the host's: Kubernetes: hostUsers: true; podman: not rootless, --userns=host",
            ),
        ),
        None => check("user namespace", true, "not to be seen without /proc", None),
    }
    .needed()
}

/// The kernel names processes by their number in the initial namespace; looked up in another one,
/// they would be someone else.
fn pid_namespace() -> Check {
    match privilege::is_in_host_pid_namespace() {
        Ok(true) => check("pid namespace", true, "the host's", None),
        Ok(false) => check(
            "pid namespace",
            false,
            "a container's: processes cannot be named",
            Some("run the container with the host's pid namespace (hostPID: true, --pid=host)"),
        ),
        Err(error) => check(
            "pid namespace",
            false,
            format!("not to be seen without /proc: {error}"),
            Some("mount /proc"),
        ),
    }
}

/// `of_namespace`: they are a user namespace's, and not the host's.
fn capabilities(effective: u64, of_namespace: bool) -> Vec<Check> {
    let item = |(bit, name, purpose, needed): (u32, &str, &str, bool)| {
        let held = effective & 1 << bit != 0;
        // CAP_SYS_ADMIN stands for those that were split off from it.
        let split_off = matches!(bit, privilege::BPF | privilege::PERFMON);
        let covered = split_off && effective & 1 << privilege::SYS_ADMIN != 0;
        let detail = match (held, covered) {
            (true, _) if of_namespace => format!("of this user namespace alone: {purpose}"),
            (true, _) => format!("held: {purpose}"),
            (false, true) => format!("covered by CAP_SYS_ADMIN: {purpose}"),
            (false, false) => format!("missing: {purpose}"),
        };
        let ok = (held || covered) && !of_namespace;
        let advice = (!held && !covered).then(|| grant(bit, name, needed));
        Check { name: name.to_owned(), ok, needed, detail, advice }
    };
    CAPABILITIES.into_iter().map(item).collect()
}

/// How a capability is given: each way that ktrace is run.
fn grant(bit: u32, name: &str, needed: bool) -> String {
    // A file has one list: whoever sets it needs all of it.
    let mut all: Vec<_> =
        CAPABILITIES.iter().filter(|(.., needed)| *needed).map(|(_, name, ..)| *name).collect();
    if !needed {
        all.push(name);
    }
    let own = std::env::current_exe().map_or_else(|_| "ktrace".to_owned(), |path| path.display().to_string());
    let file = if privilege::ignores_file_capabilities() {
        "on the file: of no use here, as no_new_privs is set".to_owned()
    } else {
        format!("on the file: setcap {}+ep {own}", all.join(",").to_lowercase())
    };
    let withheld =
        if privilege::may_be_granted(bit) { "" } else { "what started ktrace withholds it (bounding set): " };
    format!(
        "{withheld}Kubernetes: capabilities: {{add: [{}]}}; systemd: AmbientCapabilities={}; {file}; or \
        run as root",
        name.trim_start_matches("CAP_"),
        all.join(" ")
    )
}

/// Locked memory matters before Linux 5.11 only.
fn memlock() -> Option<Check> {
    if version(&release())? >= (5, 11) {
        return None;
    }
    let most = getrlimit(Resource::Memlock).maximum;
    let ok = most.is_none() || privilege::holds(privilege::SYS_RESOURCE);
    let advice = "this kernel counts BPF maps as locked memory: raise the limit (ulimit -l unlimited, \
    LimitMEMLOCK=infinity)";
    let detail = match most {
        None => "no limit".to_owned(),
        Some(bytes) => format!("at most {} KiB; raised by ktrace where it may", bytes >> 10),
    };
    Some(check("locked memory", ok, detail, (!ok).then_some(advice)).needed())
}

fn cgroup_item(cgroup: &Result<Cgroup, cgroup::CgroupError>, named: Option<&Path>) -> Check {
    match (cgroup, named) {
        (Ok(_), Some(named)) => {
            check("cgroup v2", true, format!("directory {}", named.display()), None).needed()
        }
        (Ok(Cgroup { path, whole_host, .. }), None) => {
            let place = path.as_ref().map_or_else(
                || "mounted nowhere; ktrace makes a mount of its own that nobody sees".to_owned(),
                |path| format!("mounted at {}", path.display()),
            );
            let advice = "only a container's part of the tree is in sight: mount the host's /sys/fs/cgroup \
            into the container";
            // A part of the host can be watched too.
            check("cgroup v2", *whole_host, place, (!whole_host).then_some(advice))
        }
        (Err(error), named) => {
            let advice = match named {
                Some(_) => {
                    "name a directory of the cgroup v2 tree, as `findmnt -t cgroup2` and `systemd-cgls` \
                    show it"
                }
                None => "mount the tree: mount -t cgroup2 none /sys/fs/cgroup/unified",
            };
            check("cgroup v2", false, error.to_string(), Some(advice)).needed()
        }
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

/// Where keys of TLS connections would come from.
fn tls_keys(tls: &TlsOptions) -> Check {
    let name = "keys of TLS";
    match (&tls.source, Lack::here()) {
        (TlsSource::KeyLog(file), _) => match fs::File::open(file) {
            Ok(_) => check(name, true, format!("of the key log {}", file.display()), None),
            Err(error) => {
                let advice = "name the file that programs write (SSLKEYLOGFILE), where this agent sees it \
                and may read it";
                check(name, false, format!("of the key log {}: {error}", file.display()), Some(advice))
            }
        },
        (TlsSource::Memory, None) => check(name, true, "of processes' memory, which may be read", None),
        (TlsSource::Off, None) => {
            check(name, true, "off: TLS is counted, not read; memory may be read with --tls memory", None)
        }
        (TlsSource::Memory, Some(Lack { what, advice })) => check(name, false, what, Some(advice)),
        (TlsSource::Off, Some(Lack { what, advice })) => {
            check(name, true, format!("off: TLS is counted, not read; {what}"), Some(advice))
        }
    }
}

fn program_item(name: &str) -> String {
    format!("program {name}")
}

/// Loads and attaches each program; all are gone again when this returns.
fn programs(ports: &PortSet, cgroup: Option<&Cgroup>, standing: Standing) -> Vec<Check> {
    let ring_bytes = ring_size(1 << 16, page_size());
    let settings = Settings {
        ports,
        tls: Some(ports),
        rings: 1,
        ring_bytes,
        wake_shift: wake_shift(ring_bytes),
        ends: ends::CLIENT | ends::BROKER,
        pid: 0,
        netns_cookie: 0,
        secrets: false,
    };
    let mut programs = match Programs::new(&settings) {
        Ok(programs) => programs,
        Err(error) => {
            // A filter or a security module may look at what is asked for; a user namespace's
            // capabilities go that far.
            let denied =
                error.errno().and_then(|errno| bpf_call::reason(bpf_call::Call::Denied(errno), standing));
            let forbids = matches!(error.errno(), Some(libc::EPERM | libc::EACCES));
            return vec![match denied.filter(|_| forbids) {
                Some((reason, advice)) => {
                    check("eBPF maps", false, format!("{error} ({reason})"), Some(advice)).needed()
                }
                None => check("eBPF maps", false, error.to_string(), Some(&error.advice())).needed(),
            }];
        }
    };
    let mut items = vec![check("eBPF maps", true, "made", None).needed()];
    let Some(cgroup) = cgroup else { return items };
    for hook in &HOOKS {
        let item = program_item(hook.name);
        let check = match attach_for_a_moment(&mut programs, cgroup, hook) {
            Ok(()) => check(&item, true, "loaded and attached", None),
            Err(refusal) => {
                let error = CaptureError::refused(hook.name, refusal);
                let advice = match error {
                    CaptureError::Program { .. } if !hook.needed => {
                        "capture works without it, but knows less of processes".into()
                    }
                    _ => error.advice(),
                };
                check(&item, false, error.to_string(), Some(&advice))
            }
        };
        items.push(Check { needed: hook.needed, ..check });
    }
    let scrubbed = programs.scrubber().map_err(|error| refusal(&error));
    let scrubbed = scrubbed.and_then(|scrubber| scrubber.write(0, 1).map_err(|error| error.to_string()));
    let item = program_item("scrub");
    items.push(match scrubbed {
        Ok(()) => check(&item, true, "loaded and run", None),
        Err(error) => {
            let advice = "capture works without it, but what was read stays in memory until as much has \
            passed as the ring holds";
            check(&item, false, error, Some(advice))
        }
    });
    items
}

fn sockets(ports: &PortSet, tls: &TlsOptions) -> (Check, Vec<KafkaSocket>) {
    let mut table = Table::new(ServiceNames::default()).with_tls_cgroups(tls.cgroups.clone());
    let is_kafka = |port| ports.contains(port) || tls.ports.contains(port);
    match existing::find(|socket| is_kafka(socket.remote.port())) {
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
            let advice = "the kernel lists sockets by sock_diag (modules inet_diag and tcp_diag); without \
            it, connections older than ktrace have no process";
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
        let of = |effective: u64, of_namespace| -> Vec<(String, bool)> {
            capabilities(effective, of_namespace).into_iter().map(|check| (check.name, check.ok)).collect()
        };
        assert!(of(u64::MAX, false).iter().all(|(_, ok)| *ok));
        assert!(of(u64::MAX, true).iter().all(|(_, ok)| !*ok));
        assert!(of(0, false).iter().all(|(_, ok)| !*ok));
        let admin = of(1 << privilege::SYS_ADMIN, false);
        assert!(admin.contains(&("CAP_BPF".to_owned(), true)));
        assert!(admin.contains(&("CAP_NET_ADMIN".to_owned(), false)), "the kernel asks for it itself");
        assert!(admin.contains(&("CAP_SYS_PTRACE".to_owned(), false)));
    }

    #[test]
    fn how_each_is_granted() {
        for check in capabilities(0, false) {
            let advice = check.advice.unwrap();
            assert!(
                advice.contains(&format!("add: [{}]", check.name.trim_start_matches("CAP_"))),
                "{advice}"
            );
            assert!(advice.contains("AmbientCapabilities=CAP_BPF CAP_NET_ADMIN"), "{advice}");
            let is_named = advice.contains(&format!("{}+ep", check.name.to_lowercase())) || check.needed;
            assert!(is_named || privilege::ignores_file_capabilities(), "{advice}");
        }
    }

    #[test]
    fn mount_options_that_hide_processes() {
        let line = |options: &str| format!("22 1 0:20 / /proc rw,nosuid - proc proc {options}\n");
        assert_eq!(hidepid(&line("rw")), None);
        assert_eq!(hidepid(&line("rw,hidepid=off")), None);
        assert_eq!(hidepid(&line("rw,gid=5,hidepid=invisible")), Some("hidepid=invisible"));
        assert_eq!(hidepid(&(line("rw,hidepid=2") + &line("rw"))), None);
        assert_eq!(hidepid(""), None);
    }

    #[test]
    fn without_its_programs_nothing_can_be_captured() {
        assert!(!Report::default().can_capture());
    }
}
