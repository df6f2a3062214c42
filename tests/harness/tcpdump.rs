//! A capture of a port into a file, and what can be made of it.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::process::{self, Process, deadline};

#[derive(Debug)]
pub struct Capture {
    pub file: PathBuf,
    process: Process,
}

impl Capture {
    /// Captures the whole packets of TCP `port` on loopback into `dir/NAME.pcap`.
    pub fn start(dir: &Path, name: &str, port: u16) -> Result<Self> {
        Self::start_on("lo", dir, name, port)
    }

    /// The same on another link.
    pub fn start_on(link: &str, dir: &Path, name: &str, port: u16) -> Result<Self> {
        let file = dir.join(format!("{name}.pcap"));
        let mut process = Process::start(
            "tcpdump",
            process::command("tcpdump")
                .args(["-i", link, "--packet-buffered", "-s", "262144", "--time-stamp-precision=nano"])
                // KiB in the kernel for what is not written yet
                .args(["-B", "262144"])
                // stays the user it is, so that it can write into the test's directory
                .args(["-Z", "root", "-w"])
                .arg(&file)
                .args(["tcp", "port", &port.to_string()]),
            &dir.join(format!("{name}.tcpdump.log")),
        )?;
        process.wait_for_line("listening on", Duration::from_secs(10))?;
        Ok(Self { file, process })
    }

    /// Stops, and returns how many packets the kernel dropped before tcpdump saw them.
    pub fn stop(mut self) -> Result<u64> {
        self.wait_until_written()?;
        self.process.terminate(Duration::from_secs(20))?;
        let said = self.process.said();
        let dropped = |line: &str| line.strip_suffix(" packets dropped by kernel")?.trim().parse().ok();
        said.lines().find_map(dropped).with_context(|| format!("tcpdump said: {said}"))
    }

    /// What has passed may still be in the kernel's buffer, so tcpdump is asked for its counts
    /// until it has written all that the kernel had for it, twice with one answer. On loopback
    /// the kernel counts each packet on its way out, too.
    fn wait_until_written(&mut self) -> Result<()> {
        let deadline = deadline(Duration::from_secs(20));
        let mut before = None;
        loop {
            let asked = counts(&self.process.said()).len();
            self.process.signal(Signal::USR1)?;
            let now = loop {
                let told = counts(&self.process.said());
                if let Some(now) = told.get(asked) {
                    break *now;
                }
                ensure!(Instant::now() < deadline, "tcpdump gives no counts: {}", self.process.said());
                sleep(Duration::from_millis(20));
            };
            let (captured, received) = now;
            if before.replace(now) == Some(now) && (received == captured || received == 2 * captured) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "tcpdump has {captured} of {received} packets");
            sleep(Duration::from_millis(100));
        }
    }
}

/// Packets captured and received by the filter, of each line in which tcpdump gives both.
fn counts(said: &str) -> Vec<(u64, u64)> {
    let count = |text: &str, what| text.trim().strip_suffix(what)?.trim().parse().ok();
    let of = |line: &str| {
        let mut parts = line.strip_prefix("tcpdump: ")?.split(", ");
        Some((count(parts.next()?, "packets captured")?, count(parts.next()?, "packets received by filter")?))
    };
    said.lines().filter_map(of).collect()
}

/// Writes a capture anew in `count` files of about as many packets each, beside it, as a rotating
/// capture would.
pub fn split(file: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let bytes = std::fs::read(file)?;
    let (head, packets) = packets(&bytes)?;
    packets
        .chunks(packets.len().div_ceil(count).max(1))
        .enumerate()
        .map(|(index, part)| {
            let path = file.with_extension(format!("{index}.pcap"));
            std::fs::write(&path, [head, &part.concat()].concat())?;
            Ok(path)
        })
        .collect()
}

/// Writes a capture anew, beside it, as one whose clock is `seconds` ahead, from the packet on that
/// stands at this part of all: of the whole, `0.0`.
pub fn shift(file: &Path, seconds: i32, from: f64) -> Result<PathBuf> {
    let bytes = std::fs::read(file)?;
    let (head, packets) = packets(&bytes)?;
    let first = (packets.len() as f64 * from) as usize;
    let mut shifted = head.to_vec();
    for (index, packet) in packets.into_iter().enumerate() {
        // a packet's header begins with its seconds
        let (time, rest) = packet.split_first_chunk().context("a cut packet")?;
        let behind = if index < first { 0 } else { seconds };
        shifted.extend(u32::from_le_bytes(*time).wrapping_add_signed(behind).to_le_bytes());
        shifted.extend(rest);
    }
    let path = file.with_extension(format!("{seconds}s.pcap"));
    std::fs::write(&path, shifted)?;
    Ok(path)
}

/// The file's header, and its packets, each with its own.
fn packets(bytes: &[u8]) -> Result<(&[u8], Vec<&[u8]>)> {
    /// Of a file, and of a packet.
    const HEADERS: (usize, usize) = (24, 16);
    let (head, mut rest) = bytes.split_at_checked(HEADERS.0).context("no pcap header")?;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = rest.get(8..12).and_then(|len| len.try_into().ok()).context("a cut packet")?;
        let len = HEADERS.1 + u32::from_le_bytes(len) as usize;
        let (packet, others) = rest.split_at_checked(len).context("a cut packet")?;
        packets.push(packet);
        rest = others;
    }
    Ok((head, packets))
}
