//! The release binary runs anywhere: one file, no interpreter, small.

use std::fs;

use anyhow::{Result, ensure};
use harness::agent;
use harness::need::{self, Need};

/// ELF's `PT_INTERP`: names the dynamic loader.
const INTERPRETER: u32 = 3;

#[test]
fn static_and_below_20_mb() -> Result<()> {
    if !need::met("binary", &[Need::Agent]) {
        return Ok(());
    }
    let bytes = fs::read(agent::binary())?;
    ensure!(bytes.len() < 20_000_000, "{} bytes", bytes.len());
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a little-endian 64-bit ELF file");
    let kinds = segment_kinds(&bytes);
    ensure!(!kinds.is_empty(), "no program headers");
    ensure!(!kinds.contains(&INTERPRETER), "it needs a dynamic loader");
    Ok(())
}

/// The types of an ELF64 file's program headers; `e_phoff` is at 32, `e_phentsize` at 54, `e_phnum`
/// at 56.
fn segment_kinds(elf: &[u8]) -> Vec<u32> {
    let number =
        |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).map(|i| number(offset + i * size, 4) as u32).collect()
}
