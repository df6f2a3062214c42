//! BPF programs, maps and links in the kernel: what a process holds, and what is there at all.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::need;
use crate::process::deadline;

/// Kinds of objects, as bpftool and `/proc/PID/fdinfo` call them.
const KINDS: [&str; 3] = ["prog", "map", "link"];

/// Kind and id.
pub type Objects = BTreeSet<(&'static str, u64)>;

/// Kind, id, and what bpftool prints of each in the kernel.
pub fn all() -> Result<Vec<(&'static str, u64, Value)>> {
    let mut objects = Vec::new();
    for kind in KINDS {
        let bpftool = need::on_path("bpftool").context("no bpftool")?;
        let output = Command::new(bpftool).args(["-j", kind, "show"]).output()?;
        ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
        let list: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        objects.extend(list.into_iter().filter_map(|object| Some((kind, object["id"].as_u64()?, object))));
    }
    Ok(objects)
}

/// What a process holds, from `/proc` on its descriptors (`link_id: 7`); a link names its program
/// too.
pub fn of_process(pid: u32) -> Result<Objects> {
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let told = fs::read_to_string(entry?.path()).unwrap_or_default();
        for kind in KINDS {
            let id = told
                .lines()
                .find_map(|line| line.strip_prefix(kind)?.strip_prefix("_id:")?.trim().parse().ok());
            objects.extend(id.map(|id| (kind, id)));
        }
    }
    Ok(objects)
}

/// Waits until none of these is there any more: the kernel frees maps after a grace period.
pub fn wait_until_gone(objects: &Objects) -> Result<()> {
    let deadline = deadline(Duration::from_secs(5));
    loop {
        let mut left = all()?;
        left.retain(|(kind, id, _)| objects.contains(&(*kind, *id)));
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left in the kernel: {left:?}");
        sleep(Duration::from_millis(100));
    }
}
