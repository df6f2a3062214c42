//! A program attached to a place in a file, for all processes that have it mapped.
#![expect(
    unsafe_code,
    reason = "bpf(2), perf_event_open(2) and ioctl(2) with attributes that no library makes"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::programs::ProgramFd;

/// As much of `struct perf_event_attr` as the kernel of 2009 had, and its second word of
/// configuration (`PERF_ATTR_SIZE_VER1`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    path: u64,
    offset: u64,
}

/// Of `include/uapi/linux/perf_event.h`. The filter of system calls has to allow the two requests.
const FD_CLOEXEC: libc::c_ulong = 1 << 3;
const SET_BPF: u64 = 0x4004_2408;
const ENABLE: u64 = 0x2400;

/// As much of `union bpf_attr` as `BPF_LINK_CREATE` of many places needs
/// (`link_create.uprobe_multi`).
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    process: u32,
    padding: u32,
}

/// `BPF_LINK_CREATE` of `enum bpf_cmd`, `BPF_TRACE_UPROBE_MULTI` of `enum bpf_attach_type`.
const LINK_CREATE: libc::c_int = 28;
const UPROBE_MULTI: u32 = 48;

/// How programs are attached.
pub(super) enum Attacher {
    /// By a link, which takes CAP_BPF alone: since Linux 6.6.
    Link,
    /// By an event of this kind, which takes CAP_SYS_ADMIN on kernels since July 2025, and
    /// CAP_PERFMON on those before.
    Event { kind: u32 },
}

/// The probe is taken off when this is dropped, or the process dies.
#[derive(Debug)]
pub(super) struct Probe {
    _attached: OwnedFd,
}

impl Attacher {
    /// Fails where the kernel has no uprobes.
    pub(super) fn by_event() -> io::Result<Self> {
        let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
        Ok(Self::Event { kind: kind.trim().parse().map_err(|_| io::ErrorKind::InvalidData)? })
    }

    /// Not the library's call, which takes the program itself and not its descriptor, and asks the
    /// kernel first for what it can by loading programs, which is forbidden by then.
    pub(super) fn attach(&self, program: &ProgramFd, file: &File, offset: u64) -> io::Result<Probe> {
        // By the descriptor, so that it is the very file that was looked at.
        let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        match self {
            Self::Link => link(program, &path, offset),
            Self::Event { kind } => event(*kind, program, &path, offset),
        }
    }
}

fn link(program: &ProgramFd, path: &str, offset: u64) -> io::Result<Probe> {
    let offsets = [offset];
    let link = Link {
        program: u32::try_from(program.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        attach_type: UPROBE_MULTI,
        path: path.as_ptr().expose_provenance() as u64,
        offsets: offsets.as_ptr().expose_provenance() as u64,
        count: 1,
        ..Link::default()
    };
    // SAFETY: attributes of this command in their declared size, a path that ends with a zero byte,
    // and as many offsets as are said; the kernel copies all.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const link, size_of::<Link>()) };
    owned(fd).map(|fd| Probe { _attached: fd })
}

fn event(kind: u32, program: &ProgramFd, path: &str, offset: u64) -> io::Result<Probe> {
    let attributes = Attributes {
        kind,
        size: size_of::<Attributes>() as u32,
        path: path.as_ptr().expose_provenance() as u64,
        offset,
        ..Attributes::default()
    };
    // All processes: then the CPU only says to which the event itself belongs, the program runs on
    // any.
    let (process, cpu, group): (libc::c_int, libc::c_int, libc::c_int) = (-1, 0, -1);
    // SAFETY: attributes of the size that they say, and a path that ends with a zero byte; the
    // kernel copies both.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, process, cpu, group, FD_CLOEXEC)
    };
    let event = owned(event)?;
    for (request, argument) in [(SET_BPF, program.as_fd().as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: an open descriptor, and a request that takes a number.
        if unsafe { libc::ioctl(event.as_raw_fd(), request as libc::Ioctl, argument) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Probe { _attached: event })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(fd) {
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
