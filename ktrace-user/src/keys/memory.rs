//! Reads what a process has written to memory, as a debugger may: nothing is stopped, and nothing
//! is written.
//!
//! Only pages that are there now are read, by `/proc/PID/pagemap`: to read others would have the
//! kernel make them, or fetch them from swap. Only private memory that is no file's, and a JVM's
//! heap, which ZGC has as a file of its own in memory.
#![expect(unsafe_code, reason = "memory that is mapped and left out of core dumps by itself")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem;
use std::ops::{ControlFlow, Deref, Range};
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;
use std::{ptr, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::capture::page_size;
use crate::privilege;
use crate::process::start_time;

/// Bytes that a piece has in common with the one before where memory goes on: what lies across is
/// then seen as a whole, with 1 KiB on either side of it.
pub const OVERLAP: usize = 2048;
/// Bytes read by one call: a part of what a core's cache holds, as they are looked at next.
const PIECE: usize = 512 << 10;
/// Ranges read by one call; the kernel takes 1024.
const MOST_RANGES: usize = 512;
/// Pages of which the table is read by one call.
const PAGES: usize = 8192;
/// Pages of one file in memory that are known to have been read: a bit each, up to 8 TiB of them.
const MOST_FILE_PAGES: u64 = 1 << 31;
/// The kernel allows 65 530 mappings of some 100 bytes unless it is configured otherwise.
const MOST_MAPS_BYTES: u64 = 64 << 20;

/// Bits of an entry of `/proc/PID/pagemap` (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

static PAGE_BYTES: LazyLock<u64> = LazyLock::new(|| page_size() as u64);

/// A process, and no other that has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub pid: u32,
    /// In clock ticks since boot.
    pub started: u64,
}

/// Why memory cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and Yama and other security modules may
    /// refuse it to everyone.
    Denied,
    /// The process is over.
    Ended,
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT) => Self::Ended,
            _ => Self::Denied,
        }
    }
}

/// What was read at once.
pub struct Piece<'a> {
    /// Where it lies in the process.
    pub address: u64,
    pub bytes: &'a [u8],
}

/// Reads a process's memory piece by piece, until `look` breaks. Returns how many bytes were read.
///
/// # Errors
/// See [`Unreadable`]. What vanishes meanwhile is passed over.
pub fn read(
    target: Target,
    buffer: &mut Buffer,
    look: impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Result<u64, Unreadable> {
    if start_time(target.pid) != Some(target.started) {
        return Err(Unreadable::Ended);
    }
    let mut maps = String::new();
    File::open(format!("/proc/{}/maps", target.pid))?.take(MOST_MAPS_BYTES).read_to_string(&mut maps)?;
    let mut mappings: Vec<Mapping> = maps.lines().filter_map(Mapping::parse).collect();
    // First those that are read soonest. A short-lived client's are all small.
    mappings.sort_by_key(|mapping| (!mapping.is_heap, mapping.range.end - mapping.range.start));

    let table = File::open(format!("/proc/{}/pagemap", target.pid))?;
    let mut reader = Reader {
        pid: target.pid.cast_signed(),
        buffer,
        look,
        ranges: Vec::new(),
        waiting: 0,
        tail: Tail::default(),
        bytes: 0,
    };
    match reader.all(&mappings, &table) {
        ControlFlow::Continue(()) | ControlFlow::Break(None) => Ok(reader.bytes),
        ControlFlow::Break(Some(error)) => Err(error),
    }
}

/// What ends the reading: an error, or nothing where enough was seen.
type Flow = ControlFlow<Option<Unreadable>>;

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<u64>,
    is_heap: bool,
    /// Of a file in memory: its inode, and where the mapping begins in it.
    file: Option<(u64, u64)>,
}

impl Mapping {
    /// Of a line of `/proc/PID/maps`, if it is to be read.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let permissions = fields.next()?;
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        let name = fields.next().unwrap_or_default().trim_start();
        let file = match (permissions, inode) {
            ("rw-p", 0) => None,
            // ZGC, and heaps in large pages.
            ("rw-s", _) if name.starts_with("/memfd:java_heap") => Some((inode, offset)),
            ("rw-s" | "rw-p", _) if name.starts_with("/anon_hugepage") => Some((inode, offset)),
            _ => return None,
        };
        (range.start < range.end).then_some(Self { range, is_heap: name == "[heap]", file })
    }
}

/// Pages of a file in memory that were read: ZGC maps its heap up to three times.
#[derive(Default)]
struct FilePages(Vec<u64>);

impl FilePages {
    /// Whether it is the first time.
    fn add(&mut self, page: u64) -> bool {
        if page >= MOST_FILE_PAGES {
            return true;
        }
        let (at, bit) = ((page / 64) as usize, 1 << (page % 64));
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        let is_first = self.0[at] & bit == 0;
        self.0[at] |= bit;
        is_first
    }
}

struct Reader<'a, L> {
    pid: libc::pid_t,
    buffer: &'a mut Buffer,
    look: L,
    /// What is read next, in the order of the buffer, and bytes of it.
    ranges: Vec<Range<u64>>,
    waiting: usize,
    tail: Tail,
    bytes: u64,
}

/// The end of what was read last, which lies in the buffer before what is read next.
#[derive(Default)]
struct Tail {
    /// Behind it, in the process.
    end: u64,
    bytes: usize,
}

impl<L: FnMut(Piece<'_>) -> ControlFlow<()>> Reader<'_, L> {
    fn all(&mut self, mappings: &[Mapping], table: &File) -> Flow {
        let mut files: HashMap<u64, FilePages> = HashMap::new();
        let mut entries = vec![0; PAGES * size_of::<u64>()];
        let page_bytes = *PAGE_BYTES;
        for Mapping { range, file, .. } in mappings {
            let mut at = range.start;
            while at < range.end {
                let pages = ((range.end - at) / page_bytes).clamp(1, PAGES as u64) as usize;
                let entries = &mut entries[..pages * size_of::<u64>()];
                let read = match table.read_at(entries, at / page_bytes * size_of::<u64>() as u64) {
                    // Its memory is gone: the process has ended, or runs another program.
                    Ok(0) => return ControlFlow::Break(Some(Unreadable::Ended)),
                    Ok(read) => read,
                    Err(error) => return ControlFlow::Break(Some(error.into())),
                };
                for entry in entries[..read].as_chunks().0 {
                    let entry = u64::from_ne_bytes(*entry);
                    let mut is_new = || {
                        let Some((inode, offset)) = file else { return true };
                        let page = (offset + (at - range.start)) / page_bytes;
                        files.entry(*inode).or_default().add(page)
                    };
                    if entry & PRESENT != 0 && entry & SWAPPED == 0 && is_new() {
                        self.add(at..at + page_bytes)?;
                    }
                    at += page_bytes;
                }
            }
        }
        self.flush()
    }

    /// Has a page read, with others.
    fn add(&mut self, page: Range<u64>) -> Flow {
        let bytes = (page.end - page.start) as usize;
        let goes_on = self.ranges.last().is_some_and(|last| last.end == page.start);
        if self.waiting + bytes > PIECE || !goes_on && self.ranges.len() == MOST_RANGES {
            self.flush()?;
        }
        match self.ranges.last_mut() {
            Some(last) if goes_on => last.end = page.end,
            _ => self.ranges.push(page),
        }
        self.waiting += bytes;
        ControlFlow::Continue(())
    }

    /// Reads the ranges that were added, and has them looked at.
    fn flush(&mut self) -> Flow {
        self.waiting = 0;
        let mut ranges = mem::take(&mut self.ranges);
        while let Some(first) = ranges.first() {
            let tail = mem::take(&mut self.tail);
            let mut before = if tail.end == first.start { tail.bytes } else { 0 };
            let read = match self.buffer.fill(self.pid, &ranges) {
                Ok(read) => read,
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
                Err(error) => return ControlFlow::Break(Some(error.into())),
            };
            self.bytes += read as u64;
            let end = OVERLAP + read;
            let mut at = OVERLAP;
            let mut whole = 0;
            let mut vanished = None;
            for Range { start: address, end: address_end } in ranges.iter().cloned() {
                let bytes = (end - at).min((address_end - address) as usize);
                if bytes > 0 {
                    let piece = Piece {
                        address: address - before as u64,
                        bytes: &self.buffer[at - before..at + bytes],
                    };
                    if (self.look)(piece).is_break() {
                        return ControlFlow::Break(None);
                    }
                    self.tail = Tail { end: address + bytes as u64, bytes: bytes.min(OVERLAP) };
                }
                before = 0;
                at += bytes;
                if address + (bytes as u64) < address_end {
                    vanished = Some(address + bytes as u64);
                    break;
                }
                whole += 1;
            }
            self.buffer.copy_within(at - self.tail.bytes..at, OVERLAP - self.tail.bytes);
            ranges.drain(..whole);
            if let (Some(page), Some(range)) = (vanished, ranges.first_mut()) {
                range.start = page + *PAGE_BYTES;
                if range.is_empty() {
                    ranges.remove(0);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Where memory of processes is read to: never part of a core dump, and overwritten at its end.
pub struct Buffer {
    /// A mapping that is its own until it is dropped.
    mapped: &'static mut [u8],
}

impl Buffer {
    const BYTES: usize = OVERLAP + PIECE;

    /// # Errors
    /// Where there is no memory.
    pub fn new() -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the kernel has room, of zeros; nothing else refers to it,
        // and it stays until the buffer is dropped.
        let mapped = unsafe {
            let start = mmap_anonymous(ptr::null_mut(), Self::BYTES, access, MapFlags::PRIVATE)?;
            slice::from_raw_parts_mut(start.cast::<u8>(), Self::BYTES)
        };
        let buffer = Self { mapped };
        let start = buffer.mapped.as_mut_ptr().cast();
        // SAFETY: the mapping of above, whose bytes this does not change.
        unsafe { madvise(start, Self::BYTES, Advice::LinuxDontDump) }?;
        Ok(buffer)
    }

    /// Leaves nothing of what was read.
    pub fn overwrite(&mut self) {
        self.mapped.fill(0);
        // A use behind the writes, or the compiler might leave them out.
        std::hint::black_box(&mut self.mapped);
    }

    fn copy_within(&mut self, from: Range<usize>, to: usize) {
        self.mapped.copy_within(from, to);
    }

    /// Reads ranges of a process one behind the other, as far as they are there: [`PIECE`] at most.
    fn fill(&mut self, pid: libc::pid_t, ranges: &[Range<u64>]) -> io::Result<usize> {
        privilege::memory::read(pid, &mut self.mapped[OVERLAP..], ranges)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapped
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.overwrite();
        let mapped = mem::take(&mut self.mapped);
        // SAFETY: the mapping was its own, and nothing refers to it any more.
        let _ = unsafe { munmap(mapped.as_mut_ptr().cast(), mapped.len()) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Held while this process's own memory is read: what is read lies in a buffer, where other
    /// tests would find it.
    pub fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own() -> Target {
        let pid = std::process::id();
        Target { pid, started: start_time(pid).unwrap() }
    }

    #[test]
    fn which_mappings() {
        for (line, expected) in [
            (
                "55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]",
                Some((true, None)),
            ),
            ("7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ", Some((false, None))),
            ("7f0000000000-7f0000021000 rw-p 00000000 00:00 0", Some((false, None))),
            ("7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                  [stack]", Some((false, None))),
            ("c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]", Some((false, None))),
            (
                "40000000000-40004000000 rw-s 00200000 00:01 2053 /memfd:java_heap (deleted)",
                Some((false, Some((2053, 0x20_0000)))),
            ),
            ("7f0000000000-7f0000021000 rw-s 00000000 08:01 77 /var/lib/kafka/0.index", None),
            ("7f0000000000-7f0000021000 rw-p 00000000 08:01 77 /usr/lib/libc.so.6", None),
            ("7f0000000000-7f0000021000 rw-s 00000000 00:06 9 /dev/dri/card0", None),
            ("7f0000000000-7f0000021000 r--p 00000000 00:00 0 ", None),
            ("7f0000000000-7f0000021000 rwxp 00000000 00:00 0 ", None),
            ("7f0000021000-7f0000000000 rw-p 00000000 00:00 0 ", None),
            ("", None),
            ("x", None),
        ] {
            let mapping = Mapping::parse(line);
            assert_eq!(mapping.map(|mapping| (mapping.is_heap, mapping.file)), expected, "{line}");
        }
    }

    #[test]
    fn pages_of_a_file_are_read_once() {
        let mut pages = FilePages::default();
        assert!(pages.add(70) && pages.add(7) && !pages.add(70) && !pages.add(7) && pages.add(71));
        // Too many to be known.
        assert!(pages.add(u64::MAX) && pages.add(u64::MAX));
    }

    /// A mapping of the test's own, of which it knows what is there.
    struct Mapped(*mut u8, usize);

    impl Mapped {
        fn new(pages: usize) -> Self {
            let bytes = pages * *PAGE_BYTES as usize;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping. Only pages that are written to are to be there.
            let start = unsafe {
                let start = mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE).unwrap();
                madvise(start, bytes, Advice::LinuxNoHugepage).unwrap();
                start
            };
            Self(start.cast(), bytes)
        }

        fn write(&self, at: usize, bytes: &[u8]) {
            assert!(at + bytes.len() <= self.1);
            // SAFETY: within the mapping, as was seen.
            unsafe { self.0.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }

        fn range(&self) -> Range<u64> {
            self.0 as u64..self.0 as u64 + self.1 as u64
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: its own mapping.
            unsafe { munmap(self.0.cast(), self.1) }.unwrap();
        }
    }

    #[test]
    fn pages_that_are_there_are_read_once_and_others_stay_away() {
        let _alone = alone();
        let page = *PAGE_BYTES as usize;
        let mapped = Mapped::new(3000);
        // Runs longer than a piece, and single pages, more than one call takes.
        let is_there = |at: usize| at < 700 || at.is_multiple_of(2);
        for at in (0..3000).filter(|at| is_there(*at)) {
            mapped.write(at * page, &(at as u32 + 1).to_ne_bytes());
        }
        let mut seen = vec![0; 3000];
        let mut buffer = Buffer::new().unwrap();
        let mut ends = Vec::new();
        let bytes = read(own(), &mut buffer, |piece| {
            let range = piece.address..piece.address + piece.bytes.len() as u64;
            assert!(piece.bytes.len() <= Buffer::BYTES);
            if mapped.range().contains(&range.start) {
                ends.push(range.clone());
                for (at, seen) in seen.iter_mut().enumerate() {
                    let address = mapped.range().start + (at * page) as u64;
                    if range.contains(&address) {
                        let from = (address - range.start) as usize;
                        assert_eq!(piece.bytes[from..from + 4], (at as u32 + 1).to_ne_bytes(), "{at}");
                        *seen += 1;
                    }
                }
            }
            ControlFlow::Continue(())
        });
        assert!(bytes.unwrap() > 1 << 20);
        let expected: Vec<_> = (0..3000).map(|at| i32::from(is_there(at))).collect();
        assert_eq!(seen, expected);
        // What goes on overlaps.
        let long: Vec<_> =
            ends.iter().filter(|range| range.start < mapped.range().start + 700 * page as u64).collect();
        assert!(long.len() > 1);
        assert!(long.windows(2).all(|pair| pair[1].start + OVERLAP as u64 == pair[0].end), "{long:?}");

        buffer.overwrite();
        assert!(buffer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn it_ends_when_enough_was_seen() {
        let _alone = alone();
        let mut pieces = 0;
        let bytes = read(own(), &mut Buffer::new().unwrap(), |_| {
            pieces += 1;
            ControlFlow::Break(())
        });
        assert!(bytes.is_ok() && pieces == 1);
    }

    #[test]
    fn another_process_of_the_same_number_is_not_read() {
        let other = Target { started: own().started + 1, ..own() };
        let look = |_: Piece<'_>| panic!("read");
        assert_eq!(read(other, &mut Buffer::new().unwrap(), look), Err(Unreadable::Ended));
        let none = Target { pid: u32::MAX, started: 1 };
        assert_eq!(read(none, &mut Buffer::new().unwrap(), look), Err(Unreadable::Ended));
    }
}
