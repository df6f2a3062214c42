//! A machine in QEMU: no disk, no network, only a console.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The init's last line, before the status of what it ran.
const LAST_WORD: &str = "ktrace-vm: exit ";
/// By when it has said it: emulated, everything takes about ten times as long.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Boots, shows what the machine says, and gives the exit status of what its init ran.
pub(super) fn run(kernel: &Path, initramfs: &Path) -> Result<i32> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
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
