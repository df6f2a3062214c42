//! Overwrites what was read of a ring: record values and secrets of clients would else stay in the
//! agent's memory until as many bytes have passed as the ring holds, which on a quiet host is
//! never.
//!
//! The kernel lets the agent only read the ring's data (`ringbuf_map_mmap_kern` in
//! `kernel/bpf/ringbuf.c`). So a program of ours writes blank records behind what is there, and the
//! agent reads over them: once around the ring, a part each second, so that the ring keeps its room
//! for what the sockets send.
#![expect(unsafe_code, reason = "bpf(2) with attributes that the library does not make")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use aya::programs::ProgramFd;
use ktrace_common::{BLANK_BYTES, RECORD_HEADER_BYTES};

/// Between two parts.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// A part is this share of the ring: what was read is gone after a little more than this number of
/// seconds.
const SHARE: usize = 8;
/// And no more than this: half a millisecond of a processor. Rings of more than 32 MiB take longer.
const MOST_BYTES: usize = 4 << 20;
/// What a blank record takes of a ring.
const STEP: usize = BLANK_BYTES + RECORD_HEADER_BYTES;

/// How far a ring is overwritten since it was read.
#[derive(Debug)]
pub(super) struct Scrubbed {
    ring_bytes: usize,
    /// Blank bytes since the last record that said something.
    blank_bytes: usize,
}

impl Scrubbed {
    /// A new ring, which holds zeros.
    pub(super) fn new(ring_bytes: usize) -> Self {
        Self { ring_bytes, blank_bytes: ring_bytes }
    }

    /// `records` were read, `blanks` of them blank.
    pub(super) fn read(&mut self, records: usize, blanks: usize) {
        if records > blanks {
            self.blank_bytes = 0;
        } else {
            self.blank_bytes =
                self.blank_bytes.saturating_add(blanks.saturating_mul(STEP)).min(self.ring_bytes);
        }
    }

    /// How many blank records to write next; 0 where all is overwritten.
    pub(super) fn next(&self) -> u32 {
        let left = self.ring_bytes - self.blank_bytes;
        let part = (self.ring_bytes / SHARE).clamp(STEP, MOST_BYTES);
        u32::try_from(left.min(part).div_ceil(STEP)).unwrap_or(u32::MAX)
    }
}

/// The program, loaded.
pub(crate) struct Scrubber {
    program: ProgramFd,
}

/// As much of `union bpf_attr` as `BPF_PROG_TEST_RUN` needs (`include/uapi/linux/bpf.h`, `test`).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// `BPF_PROG_TEST_RUN` of `enum bpf_cmd`.
const TEST_RUN: libc::c_int = 10;
/// Behind it begins what a socket filter sees.
const ETHERNET_HEADER: usize = 14;

impl Scrubber {
    pub(super) fn new(program: ProgramFd) -> Self {
        Self { program }
    }

    /// Another, for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { program: self.program.try_clone()? })
    }

    /// Writes this number of blank records into this ring, or as many as it has room for.
    pub(crate) fn write(&self, ring: u8, records: u32) -> io::Result<()> {
        // Not the library's call, which takes the program itself and not its descriptor.
        let mut packet = [0_u8; 64];
        packet[ETHERNET_HEADER] = ring;
        let run = TestRun {
            prog_fd: u32::try_from(self.program.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            data_size_in: packet.len() as u32,
            data_in: packet.as_ptr().expose_provenance() as u64,
            repeat: records,
            ..TestRun::default()
        };
        // SAFETY: the attributes of this command in their declared size; the packet outlives the
        // call, which copies it.
        match unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw const run, size_of::<TestRun>()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_around_and_no_further() {
        const RING: usize = 16 << 20;
        let mut scrubbed = Scrubbed::new(RING);
        assert_eq!(scrubbed.next(), 0, "a new ring holds nothing");
        scrubbed.read(5, 0);
        let mut parts = 0;
        while scrubbed.next() > 0 {
            let records = scrubbed.next() as usize;
            assert!(records * STEP <= RING / SHARE);
            scrubbed.read(records, records);
            parts += 1;
        }
        assert_eq!(parts, SHARE);
        scrubbed.read(3, 2);
        assert!(scrubbed.next() > 0, "what came between has to go too");
    }

    #[test]
    fn the_smallest_ring_and_the_largest() {
        for (ring, least, most) in [(4096, 1, 1), (1 << 30, 1, MOST_BYTES / STEP)] {
            let mut scrubbed = Scrubbed::new(ring);
            scrubbed.read(1, 0);
            assert!((least..=most).contains(&(scrubbed.next() as usize)), "{}", scrubbed.next());
        }
    }
}
