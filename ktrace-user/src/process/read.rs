//! What /proc says of a process (proc(5)), and the resource that follows from it.
//!
//! Command lines and environments hold secrets: of the command only the first argument is kept, of
//! the environment only what [`environment`] names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::environment::{self, Environment};
use super::name::{self, ServiceNames};
use crate::span::{Resource, Value};

/// Bytes of a command line or an environment that are looked at; the kernel allows 2 MiB for both
/// on most hosts.
const MOST_BYTES: u64 = 2 << 20;

/// What is known of a process.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) pid: u32,
    /// The executable's path as the process sees it.
    pub(super) executable: Option<PathBuf>,
    /// All arguments, for finding the name.
    pub(super) arguments: Vec<String>,
    pub(super) environment: Environment,
    pub(super) container_id: Option<String>,
    /// Name of the process or its thread, at most 15 bytes.
    pub(super) comm: String,
}

impl Facts {
    /// Reads everything that this agent may read; `None` if the process is gone.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        // What goes first when the process ends is read first.
        let environment = environment::parse(&block(&folder.join("environ")));
        let arguments = arguments(&block(&folder.join("cmdline")));
        let executable = executable(pid);
        let comm = fs::read_to_string(folder.join("comm")).ok()?.trim_end().to_owned();
        let container_id = fs::read_to_string(folder.join("cgroup")).ok().as_deref().and_then(container_id);
        Some(Self { pid, executable, arguments, environment, container_id, comm })
    }

    /// The resource that the process's spans bear.
    pub(super) fn resource(&self, names: &ServiceNames, host: &str) -> Resource {
        let path = self.executable.as_deref().map(Path::to_string_lossy);
        let file_name = self.file_name();
        let derived = name::derive(&file_name, &self.arguments);

        let mut attributes: BTreeMap<String, Value<'static>> = BTreeMap::new();
        let mut set = |key: &str, value: Value<'static>| attributes.insert(key.to_owned(), value);
        let text = |text: &str| Value::from(text.to_owned());
        set("host.name", text(host));
        if let Some(id) = &self.container_id {
            set("container.id", text(id));
        }
        if let Some(runtime) = derived.runtime {
            set("process.runtime.name", text(runtime));
        }
        if let Some(command) = self.arguments.first().filter(|command| !command.is_empty()) {
            set("process.command", text(first_word(command)));
        }
        if let Some(path) = &path {
            set("process.executable.path", text(path));
        }
        set("process.executable.name", text(&file_name));
        // The process knows better what it is; which process it is, the kernel knows.
        for (key, value) in &self.environment.attributes {
            set(key, text(value));
        }
        set("process.pid", Value::Int(i64::from(self.pid)));

        let keys = [self.container_id.as_deref(), path.as_deref(), Some(&derived.name), Some(&file_name)];
        let service = names
            .find(keys.into_iter().flatten())
            .or(self.environment.service_name.as_deref())
            .unwrap_or(&derived.name);
        set("service.name", text(service));
        Resource::new(attributes.into_iter().map(|(key, value)| (Arc::from(key), value)).collect())
    }

    /// The executable's file name; where it is not known, what the process calls itself.
    fn file_name(&self) -> String {
        let known = self
            .executable
            .as_deref()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned());
        match known {
            Some(name) => name,
            None if self.comm.is_empty() => "unknown".to_owned(),
            None => self.comm.clone(),
        }
    }
}

/// When the process was started, in clock ticks since boot: with the pid it names a process for
/// good. `None` if it is gone.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    start_time_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22; the second is the name in parentheses and may hold anything, spaces and parentheses
/// too.
fn start_time_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Where the executable lies, as the process sees it; `None` for kernel threads and where it may
/// not be read.
pub(super) fn executable(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // An executable that was replaced while it ran.
    let deleted = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Some(deleted.unwrap_or(path))
}

/// The host's name, as `host.name` wants it.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

fn block(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is as good as all that may be read.
        let _ = file.take(MOST_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

fn arguments(command_line: &[u8]) -> Vec<String> {
    let ended = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    if ended.is_empty() {
        return Vec::new();
    }
    ended.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Processes that rewrite their title leave the whole line in the first argument: nothing behind
/// the first blank is kept.
fn first_word(command: &str) -> &str {
    command.split_ascii_whitespace().next().unwrap_or_default()
}

/// The container id in a cgroup path: 64 hex digits, bare (`/docker/<id>`) or in a scope's name
/// (`cri-containerd-<id>.scope`).
fn container_id(cgroups: &str) -> Option<String> {
    cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.rsplit('/'))
        .filter_map(|part| part.strip_suffix(".scope").unwrap_or(part).rsplit(['-', ':']).next())
        .find(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn attribute(resource: &Resource, name: &str) -> Option<Value<'static>> {
        resource.attributes().iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn container_ids() {
        for line in [
            format!("0::/docker/{ID}"),
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("12:cpu:/\n0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("0::/kubepods/burstable/pod1/{ID}"),
            format!("0::/../../crio-{ID}.scope/inner"),
            format!("0::/k8s.io/cri-containerd:{ID}"),
        ] {
            assert_eq!(container_id(&line).as_deref(), Some(ID), "{line}");
        }
        for line in ["", "0::/", "0::/user.slice/session-1.scope", "garbage", "0::/docker/0123"] {
            assert_eq!(container_id(line), None, "{line}");
        }
    }

    #[test]
    fn start_times() {
        let fields = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time_of(&format!("7 (a) b (c) S {fields}")), Some(22));
        assert_eq!(start_time_of("7 (x) S 1"), None);
        assert_eq!(start_time_of(""), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn resources_have_each_name_once_in_order() {
        let facts = Facts {
            pid: 7,
            executable: Some("/usr/bin/kcat".into()),
            arguments: vec!["kcat".into(), "-X".into(), "sasl.password=secret".into()],
            environment: environment::parse(
                b"OTEL_RESOURCE_ATTRIBUTES=host.name=pod,a=1,process.pid=1,service.name=feed\0",
            ),
            container_id: Some(ID.into()),
            comm: "kcat".into(),
        };
        let resource = facts.resource(&ServiceNames::default(), "node");
        assert!(resource.attributes().is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(resource.service_name(), "feed");
        assert_eq!(attribute(&resource, "host.name"), Some(Value::Str("pod".into())));
        assert_eq!(attribute(&resource, "process.pid"), Some(Value::Int(7)));
        assert_eq!(attribute(&resource, "process.command"), Some(Value::Str("kcat".into())));
        assert!(!format!("{resource:?}").contains("secret"));

        let names: ServiceNames = [(ID.to_owned(), "named".to_owned())].into_iter().collect();
        assert_eq!(facts.resource(&names, "node").service_name(), "named");
    }

    #[test]
    fn a_process_that_is_gone_has_its_thread_name() {
        let facts = Facts { pid: 7, comm: "short".into(), ..Facts::default() };
        let resource = facts.resource(&ServiceNames::default(), "node");
        assert_eq!(resource.service_name(), "short");
        assert_eq!(attribute(&resource, "process.executable.path"), None);
    }

    #[test]
    fn rewritten_titles_are_cut() {
        assert_eq!(first_word("postgres: user secret"), "postgres:");
        assert_eq!(first_word(""), "");
    }

    #[test]
    fn reads_ourselves() {
        let facts = Facts::read(std::process::id()).unwrap();
        assert_eq!(facts.executable, std::env::current_exe().ok());
        assert!(!facts.arguments.is_empty() && !facts.comm.is_empty());
        assert!(Facts::read(u32::MAX).is_none());
    }
}
