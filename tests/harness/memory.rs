//! The memory of a process, as root reads it: what stays in it of what has passed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use memchr::memmem;

/// A mapping in which something was found.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub what: String,
    /// The line of `/proc/PID/maps`.
    pub mapping: String,
    pub count: usize,
}

/// What a search has read, and found.
#[derive(Debug, Default)]
pub struct Searched {
    pub found: Vec<Found>,
    /// Bytes that could be read of mappings of BPF maps: the rings.
    pub ring_bytes: usize,
}

impl Searched {
    /// What was found of one of the words.
    pub fn of<'a>(&'a self, word: &str) -> impl Iterator<Item = &'a Found> {
        self.found.iter().filter(move |found| found.what == word)
    }
}

/// Searches all that can be read of a process's memory for each of the words.
pub fn search(pid: u32, words: &[&str]) -> Result<Searched> {
    const STEP: usize = 1 << 20;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let overlap = words.iter().map(|word| word.len()).max().unwrap_or(0);
    let mut searched = Searched::default();
    let mut bytes = vec![0; STEP + overlap];
    for mapping in maps.lines() {
        let (range, _) = mapping.split_once(' ').context("no range")?;
        let (from, to) = range.split_once('-').context("no range")?;
        let (mut at, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut counts = vec![0; words.len()];
        while at < to {
            let len = bytes.len().min((to - at) as usize);
            // what the kernel keeps to itself cannot be read
            let Ok(read) = memory.read_at(&mut bytes[..len], at) else { break };
            if read == 0 {
                break;
            }
            if mapping.contains("bpf-map") {
                searched.ring_bytes += read.min(STEP);
            }
            for (word, count) in words.iter().zip(&mut counts) {
                *count += memmem::find_iter(&bytes[..read], word.as_bytes()).count();
            }
            at += read.min(STEP) as u64;
        }
        for (word, count) in words.iter().zip(counts).filter(|(_, count)| *count > 0) {
            searched.found.push(Found { what: (*word).to_owned(), mapping: mapping.to_owned(), count });
        }
    }
    Ok(searched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there() {
        let word = format!("distinctive-{}", std::process::id());
        let searched = search(std::process::id(), &[&word, "\u{1}never\u{2}there\u{3}x"]).unwrap();
        assert!(searched.of(&word).count() > 0);
    }
}
