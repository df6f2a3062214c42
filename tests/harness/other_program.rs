//! A program of another tool at a cgroup, attached as such tools do it: it counts its runs, and
//! always says the same.

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Flags of `BPF_PROG_ATTACH`.
pub const NONE: u32 = 0;
pub const OVERRIDE: u32 = 1;
pub const MULTI: u32 = 2;

/// Where in the kernel programs are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// `enum bpf_prog_type`.
    program: u32,
    /// `enum bpf_attach_type`.
    attach: u32,
}

pub const EGRESS: Kind = Kind { name: "egress", program: 8, attach: 1 };
pub const INGRESS: Kind = Kind { name: "ingress", program: 8, attach: 0 };
pub const CONNECT4: Kind = Kind { name: "connect4", program: 18, attach: 10 };
pub const CONNECT6: Kind = Kind { name: "connect6", program: 18, attach: 11 };
pub const SOCK_RELEASE: Kind = Kind { name: "sock_release", program: 9, attach: 34 };

/// Detached when this goes.
#[derive(Debug)]
pub struct OtherProgram {
    program: OwnedFd,
    counter: OwnedFd,
    cgroup: File,
    kind: Kind,
}

impl OtherProgram {
    /// `verdict`: 1 lets pass, 0 drops the packet or refuses the connection.
    pub fn attach(kind: Kind, cgroup: &Path, flags: u32, verdict: i32) -> Result<Self> {
        let cgroup = File::open(cgroup)?;
        let counter = counter().context("a map")?;
        let program = load(kind, &counter, verdict).context("a program")?;
        attach_or_detach(PROG_ATTACH, &cgroup, &program, kind, flags).context("attaching it")?;
        Ok(Self { program, counter, cgroup, kind })
    }

    /// How often it has run.
    pub fn runs(&self) -> Result<u64> {
        /// `BPF_MAP_LOOKUP_ELEM`.
        const MAP_LOOKUP: libc::c_int = 1;
        #[repr(C)]
        struct Attributes {
            map: u32,
            unused: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let (key, mut value) = (0_u32, 0_u64);
        let attributes = Attributes {
            map: self.counter.as_raw_fd().cast_unsigned(),
            unused: 0,
            key: (&raw const key) as u64,
            value: (&raw mut value) as u64,
            flags: 0,
        };
        bpf(MAP_LOOKUP, &attributes)?;
        Ok(value)
    }
}

impl Drop for OtherProgram {
    fn drop(&mut self) {
        if let Err(error) = attach_or_detach(PROG_DETACH, &self.cgroup, &self.program, self.kind, 0) {
            eprintln!("a program stays attached: {error}");
        }
    }
}

const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;

fn attach_or_detach(
    command: libc::c_int,
    cgroup: &File,
    program: &OwnedFd,
    kind: Kind,
    flags: u32,
) -> io::Result<()> {
    let attributes =
        [cgroup.as_raw_fd().cast_unsigned(), program.as_raw_fd().cast_unsigned(), kind.attach, flags];
    bpf(command, &attributes).map(|_| ())
}

/// A map of one number.
fn counter() -> io::Result<OwnedFd> {
    /// `BPF_MAP_CREATE`, `BPF_MAP_TYPE_ARRAY`.
    const MAP_CREATE: libc::c_int = 0;
    const ARRAY: u32 = 2;
    let (key_size, value_size, entries, flags) = (4, 8, 1, 0);
    bpf_fd(MAP_CREATE, &[ARRAY, key_size, value_size, entries, flags])
}

fn load(kind: Kind, counter: &OwnedFd, verdict: i32) -> io::Result<OwnedFd> {
    /// `BPF_PROG_LOAD`.
    const PROG_LOAD: libc::c_int = 5;
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach: u32,
    }
    const { assert!(offset_of!(Attributes, name) == 48 && size_of::<Attributes>() == 72) };
    let map = counter.as_raw_fd();
    // code, registers (source, destination), offset, immediate: `struct bpf_insn`
    let instructions = [
        instruction(0x62, 0x0a, -4, 0),      // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 0xa2, 0, 0),       // r2 = r10
        instruction(0x07, 0x02, 0, -4),      // r2 += -4
        instruction(0x18, 0x11, 0, map),     // r1 = the map
        instruction(0x00, 0x00, 0, 0),       //   its second half
        instruction(0x85, 0x00, 0, 1),       // r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x15, 0x00, 2, 0),       // if r0 == 0 goto + 2
        instruction(0xb7, 0x01, 0, 1),       // r1 = 1
        instruction(0xdb, 0x10, 0, 0),       // lock *(u64 *)r0 += r1
        instruction(0xb7, 0x00, 0, verdict), // r0 = verdict
        instruction(0x95, 0x00, 0, 0),       // exit
    ];
    let mut name = [0; 16];
    name[..9].copy_from_slice(b"other_one");
    let attributes = Attributes {
        kind: kind.program,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach: kind.attach,
    };
    bpf_fd(PROG_LOAD, &attributes)
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

fn bpf_fd(command: libc::c_int, attributes: &impl Sized) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    let (attributes, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: attributes of that size; all that they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
