//! A machine in QEMU: no disk, no network, only a console.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;

/// The init's last line, before the status of what it ran.
const LAST_WORD: &str = "ktrace-vm: exit ";
/// By when it has said it: emulated, everything takes about ten times as long.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Boots, shows what the machine says, and gives the exit status of what its init ran.
pub(super) fn run(arch: Arch, kernel: &Path, initramfs: &Path) -> Result<i32> {
    let (emulator, machine, console) = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", ["-M", "pc", "-cpu", "max"], "ttyS0"),
        // A processor that servers have.
        Arch::Arm64 => ("qemu-system-aarch64", ["-M", "virt", "-cpu", "neoverse-n1"], "ttyAMA0"),
    };
    let mut qemu = Command::new(emulator)
        .args(machine)
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "2G"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("console={console} quiet loglevel=4 panic=-1")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {emulator}"))?;
    let console = qemu.stdout.take().context("no console")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.by_ref().read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut status = None;
    let ended = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.split_once(LAST_WORD) {
                Some((_, number)) => status = number.trim().parse().ok(),
                None => println!("   {line}"),
            },
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        qemu.kill()?;
    }
    qemu.wait()?;
    match status {
        Some(status) => Ok(status),
        None if ended => bail!("it ended without a last word"),
        None => bail!("it did not end within {PATIENCE:?}"),
    }
}
