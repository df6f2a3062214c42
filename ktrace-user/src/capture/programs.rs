//! The eBPF programs: loaded, attached to a cgroup, and their maps.

use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::links::{CgroupAttachMode, FdLink};
use aya::programs::{
    CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, ProgramError, ProgramFd,
    SocketFilter, UProbe,
};
use aya::{Ebpf, EbpfLoader};
use ktrace_common::{PORT_WORDS, RING_TEMPLATE_BYTES, Tally, port_slot};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::page::page_size;
use super::privilege;
use super::scrubber::Scrubber;
use super::{CaptureError, PortSet};
use crate::capture::cgroup::Cgroup;
use crate::keys::uprobes;

/// The object that the build script made.
#[cfg(ktrace_ebpf)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ktrace")));
#[cfg(not(ktrace_ebpf))]
static OBJECT: Option<&[u8]> = None;

/// A program of ours and where the kernel runs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// In the object.
    pub(super) name: &'static str,
    /// Whether there is no capture without it.
    pub(super) needed: bool,
    /// `enum bpf_attach_type` of `include/uapi/linux/bpf.h`.
    pub(super) attach_type: u32,
}

/// Without `connect4` and `connect6`, processes are only found by looking through /proc; without
/// `sock_release` (Linux 5.9), ends of sockets are only seen as FIN and RST.
pub(super) const HOOKS: [Hook; 5] = [
    Hook { name: "egress", needed: true, attach_type: 1 },
    Hook { name: "ingress", needed: true, attach_type: 0 },
    Hook { name: "connect4", needed: false, attach_type: 10 },
    Hook { name: "connect6", needed: false, attach_type: 11 },
    Hook { name: "sock_release", needed: false, attach_type: 34 },
];

/// What is set before the programs are loaded.
pub(super) struct Settings<'a> {
    pub(super) ports: &'a PortSet,
    /// TLS connections may be opened: on these ports, too.
    pub(super) tls: Option<&'a PortSet>,
    /// A power of two, at most [`ktrace_common::MAX_RINGS`].
    pub(super) rings: u32,
    /// Of each ring: a size that the kernel accepts.
    pub(super) ring_bytes: u32,
    pub(super) wake_shift: u32,
    /// Bits of [`ktrace_common::ends`].
    pub(super) ends: u8,
    /// Only sockets that this process connects; 0 for all.
    pub(super) pid: u32,
    /// Only sockets of the network namespace with this cookie; 0 for all.
    pub(super) netns_cookie: u64,
    /// Whether secrets of TLS are looked for where they are derived.
    pub(super) secrets: bool,
}

/// The object in the kernel: its maps are made; its programs are loaded one by one.
pub(super) struct Programs {
    ebpf: Ebpf,
    rings: Vec<(RingBuf<MapData>, usize)>,
}

/// The maps that the agent reads and writes.
pub(super) struct Maps {
    /// With their sizes.
    pub(super) rings: Vec<(RingBuf<MapData>, usize)>,
    pub(super) owners: RingBuf<MapData>,
    pub(super) counters: PerCpuArray<MapData, Tally>,
    pub(super) tracked: HashMap<MapData, u64, u8>,
    pub(super) refused: HashMap<MapData, u64, u8>,
    pub(super) refusals: Array<MapData, u32>,
    pub(super) ports: Array<MapData, u64>,
}

impl Programs {
    /// Makes the maps and fills in the ports.
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, CaptureError> {
        let object = OBJECT.ok_or(CaptureError::NotBuilt)?;
        raise_memlock();
        let names_threads = privilege::holds(privilege::PERFMON) || privilege::holds(privilege::SYS_ADMIN);
        let mut loader = EbpfLoader::new();
        if !settings.secrets {
            // Maps that are not used are as small as they can be.
            let page = u32::try_from(page_size()).unwrap_or(4096);
            loader
                .map_max_entries("SECRETS", page)
                .map_max_entries("EXPECTING", 1)
                .map_max_entries("DERIVED", 1);
        }
        let mut ebpf = loader
            .override_global("ENDS", &settings.ends, true)
            .override_global("COMM", &u8::from(names_threads), true)
            .override_global("WAKE_SHIFT", &settings.wake_shift, true)
            .override_global("AUTO", &u8::from(settings.ports.is_auto()), true)
            .override_global("TLS", &u8::from(settings.tls.is_some()), true)
            .override_global("RING_MASK", &(settings.rings - 1), true)
            .override_global("PID", &settings.pid, true)
            .override_global("NETNS_COOKIE", &settings.netns_cookie, true)
            .override_global("SECRETS_WANTED", &u8::from(settings.secrets), true)
            .load(object)
            .map_err(|source| CaptureError::Object(Box::new(source)))?;
        let mut words = vec![0_u64; PORT_WORDS as usize];
        for port in settings.ports.iter().chain(settings.tls.iter().flat_map(|ports| ports.iter())) {
            let (word, bit) = port_slot(port);
            words[word as usize] |= bit;
        }
        let mut ports: Array<_, u64> = ebpf
            .map_mut("PORTS")
            .ok_or(CaptureError::NoMap("PORTS"))?
            .try_into()
            .map_err(CaptureError::map("PORTS"))?;
        for (index, word) in (0..).zip(words).filter(|(_, word)| *word != 0) {
            ports.set(index, &word, 0).map_err(CaptureError::map("PORTS"))?;
        }
        let rings = rings(&mut ebpf, settings)?;
        Ok(Self { ebpf, rings })
    }

    /// Takes the maps out.
    pub(super) fn maps(&mut self) -> Result<Maps, CaptureError> {
        Ok(Maps {
            rings: std::mem::take(&mut self.rings),
            owners: take(&mut self.ebpf, "OWNERS")?,
            counters: take(&mut self.ebpf, "COUNTERS")?,
            tracked: take(&mut self.ebpf, "TRACKED")?,
            refused: take(&mut self.ebpf, "REFUSED")?,
            refusals: take(&mut self.ebpf, "REFUSALS")?,
            ports: take(&mut self.ebpf, "PORTS")?,
        })
    }

    /// Takes out the ring of secrets. Who takes it has to keep it until all programs are loaded.
    pub(super) fn secrets(&mut self) -> Result<RingBuf<MapData>, CaptureError> {
        take(&mut self.ebpf, "SECRETS")
    }

    /// Loads the program that overwrites what was read.
    pub(super) fn scrubber(&mut self) -> Result<Scrubber, ProgramError> {
        let program = self.ebpf.program_mut("scrub").ok_or(ProgramError::NotLoaded)?;
        let program: &mut SocketFilter = program.try_into()?;
        program.load()?;
        Ok(Scrubber::new(program.fd()?.try_clone()?))
    }

    /// Loads the programs that see secrets derived: those that are attached by a link, if the
    /// kernel takes them, and those that are attached by an event. Takes CAP_PERFMON.
    pub(super) fn uprobes(&mut self) -> Result<(Option<uprobes::Programs>, uprobes::Programs), ProgramError> {
        let mut load = |name| -> Result<ProgramFd, ProgramError> {
            let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
            let program: &mut UProbe = program.try_into()?;
            program.load()?;
            Ok(program.fd()?.try_clone()?)
        };
        let by_event = uprobes::Programs { kdf_derive: load("kdf_derive")?, go_key_log: load("go_key_log")? };
        let by_link = load("kdf_derive_link").and_then(|kdf_derive| {
            Ok(uprobes::Programs { kdf_derive, go_key_log: load("go_key_log_link")? })
        });
        Ok((by_link.ok(), by_event))
    }

    /// Loads one program; its number in the kernel.
    pub(super) fn load(&mut self, name: &str) -> Result<u32, ProgramError> {
        let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
        match program {
            Program::CgroupSkb(program) => program.load()?,
            Program::CgroupSockAddr(program) => program.load()?,
            Program::CgroupSock(program) => program.load()?,
            _ => return Err(ProgramError::UnexpectedProgramType),
        }
        Ok(program.info()?.id())
    }

    /// Attaches a loaded program by a link, which takes it off again when it is dropped, or its
    /// process dies.
    pub(super) fn attach(&mut self, name: &str, cgroup: &Cgroup) -> Result<FdLink, ProgramError> {
        let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
        // A link is never exclusive: the kernel adds BPF_F_ALLOW_MULTI.
        let mode = CgroupAttachMode::default();
        let fd = &cgroup.fd;
        match program {
            Program::CgroupSkb(program) => {
                let program: &mut CgroupSkb = program;
                let way = program.expected_attach_type().unwrap_or(CgroupSkbAttachType::Egress);
                let link = program.attach(fd, way, mode)?;
                Ok(program.take_link(link)?.try_into()?)
            }
            Program::CgroupSockAddr(program) => {
                let program: &mut CgroupSockAddr = program;
                let link = program.attach(fd, mode)?;
                Ok(program.take_link(link)?.try_into()?)
            }
            Program::CgroupSock(program) => {
                let program: &mut CgroupSock = program;
                let link = program.attach(fd, mode)?;
                Ok(program.take_link(link)?.try_into()?)
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }
}

fn take<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, CaptureError> {
    let map = ebpf.take_map(name).ok_or(CaptureError::NoMap(name))?;
    T::try_from(map).map_err(CaptureError::map(name))
}

/// Makes the rings and puts them in their places. Before Linux 5.10 all have to be of the size that
/// the object declares.
fn rings(ebpf: &mut Ebpf, settings: &Settings<'_>) -> Result<Vec<(RingBuf<MapData>, usize)>, CaptureError> {
    let failed = CaptureError::map("RINGS");
    let map = ebpf.map_mut("RINGS").ok_or(CaptureError::NoMap("RINGS"))?;
    let mut places: ArrayOfMaps<_, RingBuf<MapData>> = map.try_into().map_err(&failed)?;
    let mut make = |index, bytes: u32| {
        let ring = RingBuf::create(bytes, 0)?;
        places.set(index, &ring, 0).map(|()| (ring, bytes as usize))
    };
    (0..settings.rings)
        .map(|index| {
            make(index, settings.ring_bytes)
                .or_else(|error| make(index, RING_TEMPLATE_BYTES as u32).map_err(|_| error))
                .map_err(&failed)
        })
        .collect()
}

/// Before Linux 5.11, maps count as locked memory. Where this fails on such a kernel, loading
/// fails, and says so.
fn raise_memlock() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}
