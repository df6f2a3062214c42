//! The memory of a process, as root reads it: what stays in it of what has passed.

use std::collections::BTreeMap;
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
    let overlap = words.iter().map(|word| word.len()).max().unwrap_or(0);
    let mut searched = Searched::default();
    let mut counts = BTreeMap::new();
    read(pid, overlap, |mapping, bytes| {
        if mapping.contains("bpf-map") {
            searched.ring_bytes += bytes.len().min(STEP);
        }
        for word in words {
            let count = memmem::find_iter(bytes, word.as_bytes()).count();
            if count > 0 {
                *counts.entry((mapping.to_owned(), *word)).or_default() += count;
            }
        }
    })?;
    let found =
        |((mapping, word), count): ((String, &str), usize)| Found { what: word.into(), mapping, count };
    searched.found = counts.into_iter().map(found).collect();
    Ok(searched)
}

/// How many expanded AES keys there are, with 128 or 256 bits, as libraries keep them: an oracle of
/// its own, that shares nothing with the agent's search.
pub fn aes_keys(pid: u32) -> Result<usize> {
    let boxed = substitution();
    let mut count = 0;
    read(pid, SCHEDULE, |_, bytes| {
        // those that begin in the overlap are counted with the next step
        let begins = bytes.len().min(STEP) / 4;
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        count += (0..begins).filter(|at| is_schedule(&words[*at..], &boxed)).count();
    })?;
    Ok(count)
}

/// Bytes at a time.
const STEP: usize = 1 << 20;

/// Bytes of the schedule of AES-256, which is the longer.
const SCHEDULE: usize = 240;

/// Calls for each step of each mapping, with `overlap` more bytes, which come again.
fn read(pid: u32, overlap: usize, mut each: impl FnMut(&str, &[u8])) -> Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut bytes = vec![0; STEP + overlap];
    for mapping in maps.lines() {
        let (range, _) = mapping.split_once(' ').context("no range")?;
        let (from, to) = range.split_once('-').context("no range")?;
        let (mut at, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        while at < to {
            let len = bytes.len().min((to - at) as usize);
            // what the kernel keeps to itself cannot be read
            let Ok(read) = memory.read_at(&mut bytes[..len], at) else { break };
            if read == 0 {
                break;
            }
            each(mapping, &bytes[..read]);
            at += read.min(STEP) as u64;
        }
    }
    Ok(())
}

/// Whether an expanded key begins here (FIPS 197, 5.2): each word follows from the ones before.
fn is_schedule(words: &[u32], boxed: &[u8; 256]) -> bool {
    [(4, 44), (8, 60)].into_iter().any(|(key, all)| {
        let Some(words) = words.get(..all) else { return false };
        // most of the time the cheapest step says no
        if words[key + 1] != words[key] ^ words[1] || words[0] == words[1] {
            return false;
        }
        let substituted =
            |word: u32| u32::from_be_bytes(word.to_be_bytes().map(|byte| boxed[usize::from(byte)]));
        let mut round: u8 = 1;
        (key..all).all(|at| {
            let before = match at % key {
                0 => {
                    let mixed = substituted(words[at - 1].rotate_left(8)) ^ u32::from(round) << 24;
                    round = double(round);
                    mixed
                }
                4 => substituted(words[at - 1]),
                _ => words[at - 1],
            };
            words[at] == words[at - key] ^ before
        })
    })
}

/// Times two in the field of AES.
const fn double(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1b }
}

/// The S-box: each byte's inverse in the field, and a rotation or five of that.
fn substitution() -> [u8; 256] {
    let mut boxed = [0x63; 256];
    let (mut power, mut inverse): (u8, u8) = (1, 1);
    loop {
        // times three, and divided by three, so that one is the inverse of the other
        power ^= double(power);
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        inverse ^= if inverse & 0x80 == 0 { 0 } else { 0x09 };
        let turned = (1..5).fold(inverse, |all, by| all ^ inverse.rotate_left(by));
        boxed[usize::from(power)] = turned ^ 0x63;
        if power == 1 {
            return boxed;
        }
    }
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

    /// FIPS 197, appendix A.1 and A.3: first and last words of the expanded keys.
    #[test]
    fn knows_an_expanded_key() {
        let boxed = substitution();
        let expand = |key: &[u32], all: usize| {
            let (mut words, mut round) = (key.to_vec(), 1);
            for at in key.len()..all {
                let before = words[at - 1];
                let each =
                    |word: u32| u32::from_be_bytes(word.to_be_bytes().map(|byte| boxed[usize::from(byte)]));
                let mixed = match at % key.len() {
                    0 => {
                        let mixed = each(before.rotate_left(8)) ^ u32::from(round) << 24;
                        round = double(round);
                        mixed
                    }
                    4 => each(before),
                    _ => before,
                };
                words.push(words[at - key.len()] ^ mixed);
            }
            words
        };
        let short = expand(&[0x2b7e_1516, 0x28ae_d2a6, 0xabf7_1588, 0x09cf_4f3c], 44);
        assert_eq!((short[4], short[43]), (0xa0fa_fe17, 0xb663_0ca6));
        let long = [
            0x603d_eb10,
            0x15ca_71be,
            0x2b73_aef0,
            0x857d_7781,
            0x1f35_2c07,
            0x3b61_08d7,
            0x2d98_10a3,
            0x0914_dff4,
        ];
        let long = expand(&long, 60);
        assert_eq!((long[8], long[59]), (0x9ba3_5411, 0x706c_631e));
        for mut words in [short, long] {
            assert!(is_schedule(&words, &boxed));
            if let Some(last) = words.last_mut() {
                *last ^= 1;
            }
            assert!(!is_schedule(&words, &boxed));
        }
        assert!(!is_schedule(&[0; 60], &boxed));
    }
}
