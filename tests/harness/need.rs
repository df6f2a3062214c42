//! What a test needs of its host. A test whose needs are not met says so and is skipped; under
//! `CI=true` it fails.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::agent;

#[derive(Clone, Copy, Debug)]
pub enum Need {
    Root,
    /// The release musl binary of the agent.
    Agent,
    /// A mounted cgroup v2 tree, which the agent attaches to.
    CgroupV2,
    /// A program on `PATH`.
    Program(&'static str),
}

impl Need {
    /// What is missing, in words.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".into()),
            Self::Agent => {
                let binary = agent::binary();
                (!binary.exists())
                    .then(|| format!("no agent at {}: build it or set KTRACE_BIN", binary.display()))
            }
            Self::CgroupV2 => {
                let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
                let mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"));
                (!mounted).then(|| "no cgroup v2 tree is mounted".into())
            }
            Self::Program(name) => on_path(name).is_none().then(|| format!("{name} is not installed")),
        }
    }
}

/// Whether the test can run. Tests begin with `if !need::met(…) { return Ok(()) }`, or with
/// [`live`].
///
/// # Panics
/// Under `CI=true`, where something is missing.
#[must_use]
pub fn met(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let why = missing.join("; ");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run: {why}");
    // not eprintln: the test harness would swallow it where the test passes
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
    false
}

/// The same, for a test that attaches the agent to this host and runs these programs.
///
/// # Panics
/// As [`met`] does.
#[must_use]
pub fn live(test: &str, programs: &[&'static str]) -> bool {
    let programs = programs.iter().map(|name| Need::Program(name));
    met(test, &[Need::Root, Need::Agent, Need::CgroupV2].into_iter().chain(programs).collect::<Vec<_>>())
}

/// Whether tests run in their whole form (`./dev test --full`), not in CI's.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("KTRACE_FULL").is_some()
}

/// The program's path, if `PATH` or the system's own directories have it.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|file: &PathBuf| Path::is_file(file))
}

/// Whether a command can be run and ends well.
#[must_use]
pub fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
