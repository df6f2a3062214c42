//! Go's table of functions (`.gopclntab`), which stays in stripped executables, since the runtime
//! itself needs it. Its form is that of `cmd/link/internal/ld/pcln.go` since Go 1.18.
//!
//! The file is another's: nothing here panics or reads without bound, whatever it holds.

use std::io::{self, Read, Seek, SeekFrom};

use memchr::memmem;

/// Go 1.18 and 1.19, and since then. What is older has its table in another form.
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
/// Large executables have some hundred thousand.
const MOST_FUNCTIONS: u64 = 4 << 20;
/// Bytes that are read at a time.
const WINDOW: usize = 16 << 10;

/// Where a function begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// From the beginning of the program's text (`runtime.text`).
    pub(super) offset: u64,
    /// The address of that beginning, where the table says it: until Go 1.25, and not in
    /// executables that may lie anywhere.
    pub(super) text: Option<u64>,
}

/// Looks a function up, in a table that lies at `at` of a file and has `size` bytes. `None` where
/// it is not there, or the table is of a form that is not known.
pub(super) fn find<R: Read + Seek + Clone>(
    file: &R,
    at: u64,
    size: u64,
    name: &[u8],
) -> io::Result<Option<Entry>> {
    let mut table = Window::new(file.clone(), at, size);
    // The instructions' least size, and the size of a pointer, are behind two bytes of padding.
    let [magic, sizes] = table.words(0)?;
    let [.., pointer] = sizes.to_le_bytes();
    if !MAGICS.contains(&magic) || pointer != 8 {
        return Ok(None);
    }
    let [functions, text] = [table.long(8)?, table.long(24)?];
    let [names, names_end, lines] = [table.long(32)?, table.long(40)?, table.long(64)?];
    if functions > MOST_FUNCTIONS {
        return Ok(None);
    }
    let Some(name) = table.find(names..names_end, name)? else { return Ok(None) };
    // What the entries point to is in their order: each has a window that moves on.
    let mut details = Window::new(file.clone(), at, size);
    for index in 0..functions {
        let [offset, detail] = table.words(sum(lines, index * 8)?)?;
        // `struct _func` of `runtime/runtime2.go` begins with the same offset, and where the name
        // lies.
        let [entry, name_at] = details.words(sum(lines, u64::from(detail))?)?;
        if u64::from(name_at) == name && entry == offset {
            return Ok(Some(Entry { offset: u64::from(offset), text: (text != 0).then_some(text) }));
        }
    }
    Ok(None)
}

/// A part of a file, read as it is needed.
struct Window<R> {
    file: R,
    begin: u64,
    size: u64,
    /// What was read last, and where in the part that begins.
    read: Vec<u8>,
    read_at: u64,
    /// Bytes that may still be read: offsets that lead to and fro would have the same read over and
    /// over.
    left: u64,
}

impl<R: Read + Seek> Window<R> {
    fn new(file: R, begin: u64, size: u64) -> Self {
        let left = size.saturating_mul(4).saturating_add(1 << 20);
        Self { file, begin, size, read: Vec::new(), read_at: 0, left }
    }

    /// The bytes at `at`, or fewer where the part ends.
    fn load(&mut self, at: u64) -> io::Result<()> {
        let size = self.size.saturating_sub(at).min(WINDOW as u64);
        self.left = self.left.checked_sub(size).ok_or_else(bad)?;
        self.read.resize(usize::try_from(size).map_err(|_| bad())?, 0);
        self.read_at = at;
        self.file.seek(SeekFrom::Start(sum(self.begin, at)?))?;
        self.file.read_exact(&mut self.read).inspect_err(|_| self.read.clear())
    }

    fn bytes<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        if let Some(bytes) = self.loaded(at) {
            return Ok(bytes);
        }
        self.load(at)?;
        self.loaded(at).ok_or_else(bad)
    }

    fn loaded<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let from = usize::try_from(at.checked_sub(self.read_at)?).ok()?;
        self.read.get(from..)?.first_chunk().copied()
    }

    fn long(&mut self, at: u64) -> io::Result<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn words(&mut self, at: u64) -> io::Result<[u32; 2]> {
        let [a, b, c, d, e, f, g, h] = self.bytes(at)?;
        Ok([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
    }

    /// Where in a table of names, each ended by a zero byte, this one lies.
    fn find(&mut self, names: std::ops::Range<u64>, name: &[u8]) -> io::Result<Option<u64>> {
        let whole = [b"\0", name, b"\0"].concat();
        let finder = memmem::Finder::new(&whole);
        let end = names.end.min(self.size);
        let mut at = names.start;
        while at < end {
            self.load(at)?;
            if let Some(found) = finder.find(&self.read) {
                // Behind the zero byte of the name before it.
                return Ok(sum(at, found as u64)?.checked_add(1).and_then(|at| at.checked_sub(names.start)));
            }
            // A name may lie across the end of what was read.
            let step = self.read.len().saturating_sub(whole.len());
            if step == 0 {
                return Ok(None);
            }
            at = sum(at, step as u64)?;
        }
        Ok(None)
    }
}

fn sum(a: u64, b: u64) -> io::Result<u64> {
    a.checked_add(b).ok_or_else(bad)
}

fn bad() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use super::*;

    const NAME: &[u8] = b"crypto/tls.(*Config).writeKeyLog";

    /// A table of functions with these names and offsets.
    pub fn made(functions: &[(&str, u32)], text: u64) -> Vec<u8> {
        let mut names = vec![0];
        let mut lines = Vec::new();
        let mut details = Vec::new();
        let entries = (functions.len() as u32 + 1) * 8;
        for (name, offset) in functions {
            lines.extend(offset.to_le_bytes());
            lines.extend((entries + details.len() as u32).to_le_bytes());
            details.extend(offset.to_le_bytes());
            details.extend((names.len() as u32).to_le_bytes());
            details.extend([0x55; 32]);
            names.extend(name.as_bytes());
            names.push(0);
        }
        lines.extend([0xff; 8]);
        lines.extend(details);
        let mut table = Vec::new();
        table.extend(0xffff_fff1_u32.to_le_bytes());
        table.extend([0, 0, 1, 8]);
        let header = 72_u64;
        let lines_at = header + names.len() as u64;
        for word in [functions.len() as u64, 1, text, header, lines_at, lines_at, lines_at, lines_at] {
            table.extend(word.to_le_bytes());
        }
        table.extend(names);
        table.extend(lines);
        table
    }

    fn sample() -> Vec<u8> {
        let many: Vec<(String, u32)> =
            (0..5000).map(|index| (format!("main.f{index}"), index * 64)).collect();
        let mut functions: Vec<(&str, u32)> = many.iter().map(|(name, offset)| (&**name, *offset)).collect();
        functions.push(("crypto/tls.(*Config).writeKeyLogger", 400_000));
        functions.push(("crypto/tls.(*Config).writeKeyLog", 400_064));
        functions.push(("vendor/crypto/tls.(*Config).writeKeyLog", 400_128));
        made(&functions, 0x40_1000)
    }

    fn found(file: &[u8], at: u64, size: u64) -> io::Result<Option<Entry>> {
        find(&Cursor::new(file), at, size, NAME)
    }

    #[test]
    fn the_function_of_just_this_name() {
        let table = sample();
        let entry = Entry { offset: 400_064, text: Some(0x40_1000) };
        assert_eq!(found(&table, 0, table.len() as u64).unwrap(), Some(entry));
        // Where the section lies in the file does not matter.
        let file = [&[7; 777][..], &table].concat();
        assert_eq!(found(&file, 777, table.len() as u64).unwrap(), Some(entry));
        let without = made(&[("main.main", 0), ("crypto/tls.(*Config).clone", 64)], 0);
        assert_eq!(found(&without, 0, without.len() as u64).unwrap(), None);
    }

    #[test]
    fn since_go_1_26_the_text_is_not_said() {
        let table = made(&[("main.main", 0), ("crypto/tls.(*Config).writeKeyLog", 64)], 0);
        let entry = Entry { offset: 64, text: None };
        assert_eq!(found(&table, 0, table.len() as u64).unwrap(), Some(entry));
    }

    #[test]
    fn a_table_cut_anywhere_or_damaged_is_no_trouble() {
        let table = sample();
        for end in (0..table.len()).step_by(997) {
            // The section says more than the file has, or is itself shorter.
            drop(found(&table[..end], 0, table.len() as u64));
            drop(found(&table[..end], 0, end as u64));
        }
        for at in (0..72).chain((72..table.len()).step_by(499)) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = table.clone();
                damaged[at] = value;
                drop(found(&damaged, 0, table.len() as u64));
            }
        }
        drop(found(&table, u64::MAX - 3, u64::MAX));
        drop(found(&table, 0, u64::MAX));
    }

    #[test]
    fn offsets_that_lead_to_and_fro_end() {
        let mut table = sample();
        let lines = u64::from_le_bytes(*table[64..].first_chunk().unwrap()) as usize;
        let size = table.len();
        for index in 0..5003 {
            let far = if index % 2 == 0 { 0 } else { (size - lines - 8) as u32 };
            table[lines + index * 8 + 4..][..4].copy_from_slice(&far.to_le_bytes());
        }
        assert!(found(&table, 0, size as u64).is_err());
    }
}
