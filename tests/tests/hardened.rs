//! What the agent has given up once it watches, as the kernel shows it, held against the table in
//! `deploy/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::agent::{self, Agent};
use harness::need;
use harness::scratch::Scratch;
use harness::{ports, process};

/// Bits of `include/uapi/linux/capability.h`.
const NAMES: [(&str, u32); 6] = [
    ("DAC_READ_SEARCH", 2),
    ("NET_ADMIN", 12),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("PERFMON", 38),
    ("BPF", 39),
];

/// By thread, the capabilities that `deploy/README.md` says it keeps: rows that begin with a
/// thread's name.
fn table() -> Result<BTreeMap<String, u64>> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md"))?;
    let rows = readme.lines().filter(|line| line.starts_with("| `ktrace-"));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (thread, kept) = (cells.next().context("no thread")?, cells.next().context("no capability")?);
        let bits = kept.split(", ").map(|name| {
            let name = name.trim_matches('`');
            let known = NAMES.iter().find(|(known, _)| *known == name);
            known
                .map(|(_, bit)| 1_u64 << bit)
                .with_context(|| format!("{name} is no capability that is kept"))
        });
        Ok((thread.trim_matches('`').to_owned(), bits.sum::<Result<u64>>()?))
    })
    .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    name: String,
    /// Permitted, effective, inheritable, bounding, ambient.
    sets: [u64; 5],
    no_new_privileges: bool,
    filtered: bool,
}

fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // one that has ended meanwhile
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let field = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.map(str::trim).with_context(|| format!("no {name} in {status}"))
        };
        let mut sets = [0; 5];
        for (set, name) in sets.iter_mut().zip(["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"]) {
            *set = u64::from_str_radix(field(name)?, 16)?;
        }
        threads.push(Thread {
            name: field("Name")?.to_owned(),
            sets,
            no_new_privileges: field("NoNewPrivs")? == "1",
            filtered: field("Seccomp")? == "2",
        });
    }
    Ok(threads)
}

/// What is wrong with the threads of an agent that was `given` these.
fn wrong(threads: &[Thread], given: u64) -> Result<Vec<String>> {
    let table = table()?;
    let mut wrong = Vec::new();
    for thread in threads {
        let kept = given & table.get(&thread.name).copied().unwrap_or(0);
        if thread.sets != [kept, kept, 0, 0, 0] || !thread.no_new_privileges || !thread.filtered {
            wrong.push(format!("{thread:x?}, and not {kept:x}"));
        }
    }
    // Those that run at times alone.
    let at_times = ["ktrace-netns", "ktrace-cgroup", "ktrace-keylog", "ktrace-keys", "ktrace-uprobes"];
    for name in table.keys().filter(|name| !at_times.contains(&name.as_str())) {
        if !threads.iter().any(|thread| thread.name == *name) {
            wrong.push(format!("no thread {name}"));
        }
    }
    Ok(wrong)
}

/// It says that it watches a moment before it has given up all.
fn settles(agent: &Agent, given: u64) -> Result<Vec<Thread>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let threads = threads(agent.pid())?;
        let wrong = wrong(&threads, given)?;
        if wrong.is_empty() {
            return Ok(threads);
        }
        ensure!(Instant::now() < deadline, "{}", wrong.join("\n"));
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn all_threads_of_every_verb() -> Result<()> {
    if !need::live("hardened", &[]) {
        return Ok(());
    }
    ensure!(!table()?.is_empty(), "no table");
    let scratch = Scratch::new()?;
    let [port, collector] = ports::free()?;
    let otlp = format!("http://127.0.0.1:{collector}");
    for (verb, arguments) in [
        ("run", &["--otlp", &otlp, "--rings", "4"][..]),
        ("observe", &["--otlp", &otlp]),
        ("observe", &["--tree"]),
    ] {
        let agent =
            Agent::start(scratch.path(), verb, process::command(agent::binary()).arg(verb), port, arguments)?;
        let threads = settles(&agent, u64::MAX)?;
        ensure!(threads.len() > 6, "{verb}: {threads:?}");
        let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid()))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
        ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
        agent.stop_with_text()?;
    }
    Ok(())
}

/// As another user with the capabilities of the manifest: only root reads its memory, not even its
/// own user.
#[test]
fn not_dumpable_and_no_more_than_was_given() -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    if !need::live("not dumpable", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let copy = scratch.join("ktrace");
    fs::copy(agent::binary(), &copy)?;
    let [port] = ports::free()?;
    let mut command = process::command("setpriv");
    let given = "+bpf,+net_admin,+sys_ptrace,+dac_read_search";
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args([format!("--inh-caps={given}"), format!("--ambient-caps={given}")]);
    command.arg("--").arg(&copy).args(["observe", "-o", "json", "--tls", "memory"]);
    let agent = Agent::start(scratch.path(), "user", &mut command, port, &[])?;
    let bits = NAMES
        .iter()
        .filter(|(name, _)| !["SYS_ADMIN", "PERFMON"].contains(name))
        .map(|(_, bit)| 1_u64 << bit);
    // Without SETPCAP the bounding set stays; it is of no use to who may gain no privilege.
    let given = bits.sum();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut threads = threads(agent.pid())?;
        threads.iter_mut().for_each(|thread| thread.sets[3] = 0);
        let wrong = wrong(&threads, given)?;
        if wrong.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "{}", wrong.join("\n"));
        sleep(Duration::from_millis(50));
    }
    let owner = fs::metadata(format!("/proc/{}/mem", agent.pid()))?.uid();
    ensure!(owner == 0, "its memory is user {owner}'s");
    agent.stop()?;
    Ok(())
}

#[test]
fn not_where_it_is_not_wanted() -> Result<()> {
    if !need::live("not hardened", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let [port] = ports::free()?;
    let agent = Agent::observe(scratch.path(), "observe", port, &["--no-harden"])?;
    let threads = threads(agent.pid())?;
    ensure!(threads.iter().all(|thread| !thread.filtered && thread.sets[0] != 0), "{threads:x?}");
    agent.stop()?;
    Ok(())
}

#[test]
fn the_doctor_tells() -> Result<()> {
    if !need::live("doctor of hardening", &[]) {
        return Ok(());
    }
    let output = Command::new(agent::binary()).args(["doctor", "-o", "json"]).output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let items = report["items"].as_array().context("no items")?;
    let detail = |name: &str| {
        let item = items.iter().find(|item| item["name"] == name && item["ok"] == true);
        item.and_then(|item| item["detail"].as_str()).with_context(|| format!("no {name} in {report:#}"))
    };
    let kept = detail("capabilities kept")?;
    for (thread, _) in table()? {
        ensure!(kept.contains(&thread), "{thread} is not in: {kept}");
    }
    ensure!(detail("system calls")?.contains("ENOSYS"));
    Ok(())
}
