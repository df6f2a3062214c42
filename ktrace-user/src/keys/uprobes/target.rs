//! Where in an executable or a library the functions begin that are probed. Files are other
//! programs': whatever they hold, looking at them neither panics nor takes more than some
//! megabytes.

use std::io::{Read, Seek, SeekFrom};

use memchr::memmem;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian as Endian, ReadCache, ReadRef as _};

use super::gopclntab;

/// What is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// OpenSSL's, since 3.0.
    KdfDerive,
    /// Go's, since 1.18.
    GoKeyLog,
}

/// A place for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) function: Function,
    /// In the file.
    pub(super) offset: u64,
}

const KDF_DERIVE: &[u8] = b"EVP_KDF_derive";
const KEY_LOG: &[u8] = b"crypto/tls.(*Config).writeKeyLog";
/// Where Go puts its table; the second in executables that may lie anywhere.
const GO_TABLES: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];
/// Of Node, which exports more than any other, 2 MB of symbols and 5 MB of names.
const MOST_BYTES: u64 = 32 << 20;
/// Go's linker puts this before all other text, unless a flag forbids it.
const BUILD_ID: &[u8] = b"\xff Go build ID: \"";
/// Before it, in programs that have C in them, is what C begins with.
const BEFORE_BUILD_ID: u64 = 64 << 10;

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

/// The first instructions of a Go function that looks whether its stack is large enough: `cmp rsp,
/// [r14+16]`, or `lea r12, [rsp-frame]`. A probe in the middle of an instruction would break the
/// program: so a place that begins otherwise is not probed.
#[cfg(target_arch = "x86_64")]
const PROLOGUES: [&[u8]; 3] =
    [&[0x49, 0x3b, 0x66, 0x10], &[0x4c, 0x8d, 0x64, 0x24], &[0x4c, 0x8d, 0xa4, 0x24]];
/// `ldr x16, [x28, #16]`.
#[cfg(target_arch = "aarch64")]
const PROLOGUES: [&[u8]; 1] = [&[0x90, 0x0b, 0x40, 0xf9]];

/// First instructions behind which a conditional jump follows. The kernel carries a jump out by
/// itself; for most others it lets the program run a copy of the instruction, and stops it once
/// more. What the function was called with is still in its registers: these only compare.
#[cfg(target_arch = "x86_64")]
const COMPARISONS: [&[u8]; 2] = [
    // `test rdi, rdi`, as OpenSSL's function begins: is there a context?
    &[0x48, 0x85, 0xff],
    // `cmp rsp, [r14+16]`
    &[0x49, 0x3b, 0x66, 0x10],
];
#[cfg(target_arch = "aarch64")]
const COMPARISONS: [&[u8]; 0] = [];
/// `je`, `jbe` over a short distance.
const JUMPS: [u8; 2] = [0x74, 0x76];

/// The places in a file; none where it has none, or is no executable of this machine.
pub(super) fn points<R: Read + Seek + Clone>(file: &R) -> Vec<Point> {
    let cache = ReadCache::new(file.clone());
    let Some(image) = Image::parse(&cache) else { return Vec::new() };
    let derives = image.named(KDF_DERIVE).map(|offset| Point { function: Function::KdfDerive, offset });
    let logged = image.key_log(file).map(|offset| Point { function: Function::GoKeyLog, offset });
    let places = derives.into_iter().chain(logged);
    let mut file = file.clone();
    places.map(|point| Point { offset: cheapest(&mut file, point.offset), ..point }).collect()
}

/// Of the places at a function's beginning, the one at which a probe costs least.
fn cheapest(file: &mut (impl Read + Seek), offset: u64) -> u64 {
    let mut start = [0; 5];
    if file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut start)).is_err() {
        return offset;
    }
    let jump = COMPARISONS.iter().find_map(|comparison| {
        let behind = start.strip_prefix(*comparison)?;
        JUMPS.contains(behind.first()?).then_some(comparison.len() as u64)
    });
    offset.saturating_add(jump.unwrap_or(0))
}

/// Where in an executable its first instruction lies, which runs once.
pub(super) fn entry<R: Read + Seek + Clone>(file: &R) -> Option<u64> {
    let cache = ReadCache::new(file.clone());
    let image = Image::parse(&cache)?;
    image.offset(Header::parse(&cache).ok()?.e_entry(Endian))
}

type Header = FileHeader64<Endian>;

struct Image<'a, R: Read + Seek> {
    cache: &'a ReadCache<R>,
    segments: &'a [elf::ProgramHeader64<Endian>],
    sections: object::read::elf::SectionTable<'a, Header, &'a ReadCache<R>>,
}

impl<'a, R: Read + Seek> Image<'a, R> {
    fn parse(cache: &'a ReadCache<R>) -> Option<Self> {
        let header = Header::parse(cache).ok()?;
        let endian = header.endian().ok()?;
        // More sections than 16 bits count would be as many as the file says.
        let usual = header.e_shnum(endian) != 0 && header.e_phnum(endian) != elf::PN_XNUM;
        if header.e_machine(endian) != MACHINE || !usual {
            return None;
        }
        let segments = header.program_headers(endian, cache).ok()?;
        let sections = header.sections(endian, cache).ok()?;
        Some(Self { cache, segments, sections })
    }

    /// Where in the file the code of this address lies.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let code = segment.p_type(Endian) == elf::PT_LOAD && segment.p_flags(Endian).contains(elf::PF_X);
            let within = address.checked_sub(segment.p_vaddr(Endian))?;
            (code && within < segment.p_filesz(Endian)).then_some(())?;
            segment.p_offset(Endian).checked_add(within)
        })
    }

    /// The whole of a section that is not too large.
    fn data(&self, section: &elf::SectionHeader64<Endian>) -> Option<&'a [u8]> {
        let (at, size) = section.file_range(Endian)?;
        (size <= MOST_BYTES).then(|| self.cache.read_bytes_at(at, size).ok())?
    }

    /// Where a function begins that the file exports, or that it still names, as most do that have
    /// OpenSSL within them.
    fn named(&self, name: &[u8]) -> Option<u64> {
        let whole = [name, b"\0"].concat();
        let address = [elf::SHT_DYNSYM, elf::SHT_SYMTAB].into_iter().find_map(|kind| {
            let symbols = self.sections.iter().find(|section| section.sh_type(Endian) == kind)?;
            self.address(symbols, &whole)
        });
        self.offset(address?)
    }

    /// The address of a function in a table of symbols. The name ends with a zero byte.
    fn address(&self, symbols: &elf::SectionHeader64<Endian>, name: &[u8]) -> Option<u64> {
        let names = self.sections.section(object::SectionIndex(symbols.sh_link(Endian) as usize)).ok()?;
        let names = self.data(names)?;
        // Most files have no such name at all.
        memmem::find(names, name)?;
        let symbols = self.data(symbols)?;
        let count = symbols.len() / size_of::<elf::Sym64<Endian>>();
        let (symbols, _) = object::pod::slice_from_bytes::<elf::Sym64<Endian>>(symbols, count).ok()?;
        let symbol = symbols.iter().find(|symbol| {
            let defined = symbol.st_shndx.get(Endian) != elf::SHN_UNDEF && symbol.st_type() == elf::STT_FUNC;
            let at = || names.get(symbol.st_name.get(Endian) as usize..);
            defined && at().is_some_and(|at| at.starts_with(name))
        })?;
        Some(symbol.st_value.get(Endian))
    }

    /// Where Go's function begins that is called with each secret.
    fn key_log(&self, file: &R) -> Option<u64>
    where
        R: Clone,
    {
        let named = |name: &[u8]| self.sections.section_by_name(Endian, name).map(|(_, section)| section);
        let table = GO_TABLES.iter().find_map(|name| named(name))?;
        let (at, size) = table.file_range(Endian)?;
        let entry = gopclntab::find(file, at, size, KEY_LOG).ok().flatten()?;
        let text = named(b".text")?;
        let candidates = [self.after_build_id(text), entry.text, Some(text.sh_addr(Endian))];
        let mut file = file.clone();
        candidates.into_iter().flatten().find_map(|text| {
            let offset = self.offset(text.checked_add(entry.offset)?)?;
            begins_function(&mut file, offset).then_some(offset)
        })
    }

    /// The address of the program's own text, by what the linker puts there.
    fn after_build_id(&self, text: &elf::SectionHeader64<Endian>) -> Option<u64> {
        let (at, size) = text.file_range(Endian)?;
        let start = self.cache.read_bytes_at(at, size.min(BEFORE_BUILD_ID)).ok()?;
        text.sh_addr(Endian).checked_add(memmem::find(start, BUILD_ID)? as u64)
    }
}

fn begins_function(file: &mut (impl Read + Seek), offset: u64) -> bool {
    let mut start = [0; 4];
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut start));
    read.is_ok() && PROLOGUES.contains(&&start[..])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Cursor;

    use super::*;
    use crate::keys::uprobes::gopclntab::tests::made;

    /// Where the code begins in the file, and in memory.
    const CODE: u64 = 0x2000;
    const ADDRESS: u64 = 0x40_2000;

    /// An executable that exports OpenSSL's function 0x40 bytes into its code, and has Go's 0x80
    /// bytes into it.
    fn executable(text: u64) -> Vec<u8> {
        let name_at = 1_u32;
        let names = b"\0EVP_KDF_derive\0EVP_KDF_derived\0".to_vec();
        let symbol = |name: u32, value: u64| {
            let mut symbol = name.to_le_bytes().to_vec();
            // A global function of the code's section.
            symbol.extend([0x12, 0, 4, 0]);
            symbol.extend(value.to_le_bytes());
            symbol.extend(27_u64.to_le_bytes());
            symbol
        };
        let symbols = [symbol(0, 0), symbol(16, ADDRESS + 0x20), symbol(name_at, ADDRESS + 0x40)].concat();
        let section_names = b"\0.dynsym\0.dynstr\0.shstrtab\0.text\0.gopclntab\0";
        let mut code = vec![0xcc; 0x200];
        code[..BUILD_ID.len()].copy_from_slice(BUILD_ID);
        code[0x80..][..4].copy_from_slice(PROLOGUES[0]);
        let table = made(&[("main.main", 0), ("crypto/tls.(*Config).writeKeyLog", 0x80)], text);

        let mut file = vec![0; CODE as usize];
        file.extend(&code);
        let mut sections = Vec::new();
        let mut section = |name: u32, kind: u32, link: u32, address: u64, at: u64, size: usize| {
            sections.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
            for word in [0, address, at, size as u64] {
                sections.extend(word.to_le_bytes());
            }
            sections.extend([link.to_le_bytes(), 0_u32.to_le_bytes()].concat());
            for word in [1_u64, if kind == 11 { 24 } else { 0 }] {
                sections.extend(word.to_le_bytes());
            }
        };
        section(0, 0, 0, 0, 0, 0);
        let mut put = |file: &mut Vec<u8>, name, kind, link, bytes: &[u8]| {
            section(name, kind, link, 0, file.len() as u64, bytes.len());
            file.extend(bytes);
        };
        put(&mut file, 1, 11, 2, &symbols);
        put(&mut file, 9, 3, 0, &names);
        put(&mut file, 17, 3, 0, section_names);
        section(27, 1, 0, ADDRESS, CODE, code.len());
        let mut put = |file: &mut Vec<u8>, name, kind, bytes: &[u8]| {
            section(name, kind, 0, 0, file.len() as u64, bytes.len());
            file.extend(bytes);
        };
        put(&mut file, 33, 1, &table);
        let sections_at = file.len().next_multiple_of(8) as u64;
        file.resize(sections_at as usize, 0);
        file.extend(sections);

        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let machine = if cfg!(target_arch = "x86_64") { 62_u16 } else { 183 };
        header.extend([2_u16.to_le_bytes(), machine.to_le_bytes()].concat());
        header.extend(1_u32.to_le_bytes());
        for word in [ADDRESS, 64, sections_at] {
            header.extend(word.to_le_bytes());
        }
        header.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 64, 6, 3] {
            header.extend(half.to_le_bytes());
        }
        // PT_LOAD, to be read and executed.
        header.extend([1_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
        for word in [CODE, ADDRESS, ADDRESS, 0x200_u64, 0x200, 0x1000] {
            header.extend(word.to_le_bytes());
        }
        file[..header.len()].copy_from_slice(&header);
        file
    }

    fn found(file: &[u8]) -> Vec<Point> {
        points(&Cursor::new(file))
    }

    #[test]
    fn both_functions_of_a_file_that_has_both() {
        let both = [
            Point { function: Function::KdfDerive, offset: CODE + 0x40 },
            Point { function: Function::GoKeyLog, offset: CODE + 0x80 },
        ];
        for text in [0, ADDRESS] {
            assert_eq!(found(&executable(text)), both);
        }
        assert_eq!(entry(&Cursor::new(&executable(0)[..])), Some(CODE));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn at_the_jump_where_one_follows_at_once() {
        let mut file = executable(0);
        file[CODE as usize + 0x40..][..4].copy_from_slice(&[0x48, 0x85, 0xff, 0x74]);
        file[CODE as usize + 0x84] = 0x76;
        let offsets: Vec<u64> = found(&file).iter().map(|point| point.offset).collect();
        assert_eq!(offsets, [CODE + 0x43, CODE + 0x84]);
        // Another comparison.
        file[CODE as usize + 0x42] = 0xfe;
        assert_eq!(found(&file)[0].offset, CODE + 0x40);
    }

    #[test]
    fn no_probe_in_the_middle_of_something() {
        let mut file = executable(0);
        file[CODE as usize + 0x80] = 0x90;
        let [point] = found(&file)[..] else { panic!("one place") };
        assert_eq!(point.function, Function::KdfDerive);
    }

    #[test]
    fn a_file_cut_anywhere_or_damaged_is_no_trouble() {
        let file = executable(0);
        for end in (0..file.len()).step_by(61) {
            drop(found(&file[..end]));
        }
        let tables = file.len() - 6 * 64 - 0x200;
        for at in (0..120).chain(tables..file.len()) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                drop(found(&damaged));
                let _ = entry(&Cursor::new(&damaged[..]));
            }
        }
    }

    /// Of this host, as far as it has them.
    #[test]
    fn real_files() {
        let crypto =
            ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib/aarch64-linux-gnu/libcrypto.so.3"];
        for path in crypto {
            let Ok(file) = File::open(path) else { continue };
            let [point] = points(&&file)[..] else { panic!("{path}") };
            assert_eq!(point.function, Function::KdfDerive);
        }
        if let Ok(file) = File::open("/usr/local/go/bin/go") {
            let [point] = points(&&file)[..] else { panic!("go") };
            assert_eq!(point.function, Function::GoKeyLog);
        }
        // This test itself has neither.
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(points(&&own), []);
        assert!(entry(&&own).is_some());
    }
}
