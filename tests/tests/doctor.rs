//! `ktrace doctor` names the true cause where something other than a capability is missing.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::agent;
use harness::need::{self, Need};
use harness::scratch::Scratch;
use serde_json::Value;

/// What `ktrace doctor -o json` says of one thing, run as `command` with its own arguments behind,
/// and its exit code.
struct Said {
    items: Vec<Value>,
    tls: Value,
    code: Option<i32>,
}

impl Said {
    fn by(command: &mut Command) -> Result<Self> {
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| stderr)?;
        let items = report["items"].as_array().context("no items")?.clone();
        Ok(Self { items, tls: report["tls"].clone(), code: output.status.code() })
    }

    /// Whether it is as it should be, and the rest in words.
    fn of(&self, name: &str) -> Result<(bool, String)> {
        let item = self.items.iter().find(|item| item["name"] == name).with_context(|| name.to_owned())?;
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        Ok((item["ok"] == true, text("detail") + "; " + &text("advice")))
    }

    fn ensure(&self, name: &str, ok: bool, words: &str) -> Result<()> {
        let (is_ok, said) = self.of(name)?;
        ensure!(is_ok == ok && said.contains(words), "{name}: {is_ok}, {said}");
        Ok(())
    }
}

fn doctor(command: &mut Command) -> Result<Said> {
    Said::by(command.arg(agent::binary()).args(["doctor", "-o", "json"]))
}

#[test]
fn in_a_user_namespace() -> Result<()> {
    if !need::met("user namespace", &[Need::Root, Need::Agent, Need::Program("unshare")]) {
        return Ok(());
    }
    let said = doctor(Command::new("unshare").arg("-Ur"))?;
    ensure!(said.code == Some(3));
    said.ensure("user namespace", false, "hostUsers: true")?;
    said.ensure("CAP_BPF", false, "of this user namespace alone")?;
    if let (false, reason) = said.of("bpf(2)")? {
        ensure!(reason.contains("user namespace do not count"), "{reason}");
    }
    Ok(())
}

#[test]
fn without_proc() -> Result<()> {
    if !need::live("without /proc", &[]) {
        return Ok(());
    }
    // in a mount namespace of its own, so that the host keeps its /proc
    let script = "umount -l /proc && exec \"$@\"";
    let said = doctor(Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]))?;
    said.ensure("/proc", false, "not mounted")?;
    for held in ["kernel", "CAP_BPF", "CAP_NET_ADMIN", "bpf(2)", "cgroup v2", "program egress"] {
        said.ensure(held, true, "")?;
    }
    ensure!(said.code == Some(0));
    Ok(())
}

#[test]
fn with_hidden_processes() -> Result<()> {
    if !need::live("hidepid", &[]) {
        return Ok(());
    }
    let script = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
    let mount = ["--mount", "sh", "-c", script, "sh"];
    let sees_all = doctor(Command::new("unshare").args(mount))?;
    sees_all.ensure("/proc", true, "hidepid")?;
    // a copy that another user may run, wherever the target directory is; the group of root sees all
    let scratch = Scratch::new()?;
    let copy = scratch.join("ktrace");
    fs::copy(agent::binary(), &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"];
    let mut command = Command::new("unshare");
    command.args(mount).args(user).arg(copy).args(["doctor", "-o", "json"]);
    let said = Said::by(&mut command)?;
    said.ensure("/proc", false, "hidepid")?;
    said.ensure("CAP_BPF", false, "missing")?;
    // whoever may call it at all (kernel.unprivileged_bpf_disabled = 0) is refused the maps
    let (is_open, _) = said.of("bpf(2)")?;
    said.ensure(if is_open { "eBPF maps" } else { "bpf(2)" }, false, "CAP_BPF is missing")
}

/// What a filter does to who makes a call: `SECCOMP_RET_…` of `include/uapi/linux/seccomp.h`.
#[derive(Clone, Copy)]
enum Denial {
    Errno(i32),
    Kill,
}

/// As container runtimes and systemd do it.
fn filtered(command: &mut Command, denied: libc::c_long, denial: Denial) {
    let action = match denial {
        Denial::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
        Denial::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let denied = u32::try_from(denied).unwrap_or_default();
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // the call's number is the first field of `struct seccomp_data`
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, denied),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: a program of that length.
        let result =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(install) };
}

#[test]
fn under_a_seccomp_filter() -> Result<()> {
    if !need::live("seccomp filter", &[]) {
        return Ok(());
    }
    for (denial, words) in [
        (Denial::Errno(libc::EPERM), "a seccomp filter denies it, though CAP_BPF is held"),
        (Denial::Errno(libc::ENOSYS), "a seccomp filter denies it, though CAP_BPF is held"),
        (Denial::Kill, "a seccomp filter kills who calls it"),
    ] {
        let mut command = Command::new(agent::binary());
        filtered(&mut command, libc::SYS_bpf, denial);
        let said = Said::by(command.args(["doctor", "-o", "json"]))?;
        ensure!(said.code == Some(3));
        said.ensure("CAP_BPF", true, "held")?;
        said.ensure("bpf(2)", false, words)?;
        said.ensure("bpf(2)", false, "seccompProfile")?;
        let mut command = Command::new(agent::binary());
        filtered(&mut command, libc::SYS_bpf, denial);
        let output = command.arg("observe").output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(3) && stderr.contains(words), "{}: {stderr}", output.status);
    }
    Ok(())
}

/// What is needed and what is not, each with how it is granted.
#[test]
fn capabilities_apart() -> Result<()> {
    if !need::live("capabilities", &[]) {
        return Ok(());
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--"]).arg(agent::binary()).arg("doctor");
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(3), "{text}");
    let (needed, optional) = text.split_once("\nOptional:\n").context("no optional part")?;
    ensure!(
        needed.starts_with("Needed:\n") && needed.contains("✗ CAP_BPF") && needed.contains("✓ CAP_NET_ADMIN")
    );
    ensure!(optional.contains("– CAP_SYS_PTRACE") && !optional.contains("CAP_BPF  "), "{optional}");
    for way in ["add: [BPF]", "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN", "setcap cap_bpf,cap_net_admin+ep"]
    {
        ensure!(needed.contains(way), "{way}: {needed}");
    }
    Ok(())
}

#[test]
fn a_report_that_cannot_be_written() -> Result<()> {
    if !need::met("full disk", &[Need::Root, Need::Agent]) {
        return Ok(());
    }
    // what cannot call bpf(2) is done at once
    let doctor = |output: &str| {
        let mut command = Command::new(agent::binary());
        filtered(&mut command, libc::SYS_bpf, Denial::Errno(libc::EPERM));
        command.args(["doctor", "-o", output]).stderr(Stdio::piped());
        command
    };
    for output in ["text", "json"] {
        let full = File::options().write(true).open("/dev/full")?;
        let ended = doctor(output).stdout(full).spawn()?.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(1) && said.contains("cannot write"), "{}: {said}", ended.status);
        // a reader that has gone before there was anything to read
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let ended = doctor(output).stdout(writer).spawn()?.wait_with_output()?;
        ensure!(ended.status.code() == Some(3) && ended.stderr.is_empty(), "{ended:?}");
    }
    Ok(())
}

/// Whether memory may be read for `--tls memory`, and of whom it would be.
#[test]
fn keys_of_tls() -> Result<()> {
    if !need::live("keys of TLS", &[]) {
        return Ok(());
    }
    const ITEM: &str = "keys of TLS";
    let with = |launcher: &[&str]| {
        let (program, arguments) = launcher.split_first().unwrap_or((&"env", &[]));
        let mut command = Command::new(program);
        command.args(arguments).env("KTRACE_TLS", "memory");
        command
    };
    for capability in ["sys_ptrace", "dac_read_search"] {
        let said = doctor(&mut with(&["setpriv", &format!("--bounding-set=-{capability}"), "--"]))?;
        said.ensure(ITEM, false, &format!("CAP_{}", capability.to_uppercase()))?;
        ensure!(said.code == Some(0), "the rest can be captured all the same");
    }
    let mut without_call = with(&["env"]);
    filtered(&mut without_call, libc::SYS_process_vm_readv, Denial::Errno(libc::ENOSYS));
    doctor(&mut without_call)?.ensure(ITEM, false, "seccomp")?;

    let said = doctor(&mut with(&["unshare", "--pid", "--fork", "--mount-proc"]))?;
    said.ensure(ITEM, false, "pid namespace")?;

    // a connection of this very process, on a port of its own
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let _client = TcpStream::connect(listener.local_addr()?)?;
    let mut allowed = with(&["env"]);
    let said = doctor(allowed.env("KTRACE_PORTS", &port))?;
    said.ensure(ITEM, true, "may be read")?;
    let own = &said.tls[0];
    ensure!(own["pid"] == std::process::id() && own["searched"] == true, "{}", said.tls);
    ensure!(own["resident_bytes"].as_u64() > Some(1 << 16) && own["search_ms"].as_f64() > Some(0.0));
    let mut narrowed = with(&["env"]);
    let said = doctor(narrowed.env("KTRACE_PORTS", &port).env("KTRACE_TLS_SERVICE", "another"))?;
    ensure!(said.tls[0]["searched"] == false, "{}", said.tls);
    let mut off = Command::new("env");
    let said = doctor(off.env("KTRACE_PORTS", &port))?;
    said.ensure(ITEM, true, "off")?;
    ensure!(said.tls[0]["searched"] == false, "{}", said.tls);
    Ok(())
}
