//! The first process of a virtual machine that has nothing else: mounts what programs expect, loads
//! modules, runs one command, says how it ended, and turns the machine off.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};

use crate::interface;

/// Never returns: the machine is off.
pub fn run() -> ! {
    let status = match prepare().and_then(|()| command()) {
        Ok(status) => status,
        Err(error) => {
            println!("init: {error:#}");
            125
        }
    };
    println!("ktrace-vm: exit {status}");
    // SAFETY: no pointers.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    unreachable!("the machine is off")
}

fn prepare() -> Result<()> {
    for (kind, path) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        mount(kind, path).with_context(|| format!("cannot mount {kind} at {path}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    modules.sort();
    for module in modules {
        let file = fs::File::open(&module)?;
        // SAFETY: an open descriptor and a terminated string.
        let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        let error = io::Error::last_os_error();
        // A part of the kernel itself, or one that this kernel does not want: who needs it will say so.
        if result != 0 && error.raw_os_error() != Some(libc::EEXIST) {
            println!("init: {}: {error}", module.display());
        }
    }
    interface::up("lo")?;
    Ok(())
}

fn mount(kind: &str, path: &str) -> Result<()> {
    let (kind, path) = (CString::new(kind)?, CString::new(path)?);
    // SAFETY: terminated strings, and no data.
    let result = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    ensure!(result == 0, io::Error::last_os_error());
    Ok(())
}

/// Runs what `/command` says, its words separated by zeros, and gives its exit status.
fn command() -> Result<i32> {
    let words = fs::read_to_string("/command")?;
    let mut words = words.split('\0');
    let child = Command::new(words.next().context("no command")?)
        .args(words)
        .env("PATH", "/bin")
        .env("HOME", "/tmp")
        .env("CI", "true")
        .spawn()?;
    let child = libc::pid_t::try_from(child.id())?;
    loop {
        let mut status = 0;
        // Any child: the orphans of others are the init's.
        // SAFETY: a valid place to write to.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if ended == child {
            let status = ExitStatus::from_raw(status);
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
        }
        ensure!(ended > 0, io::Error::last_os_error());
    }
}
