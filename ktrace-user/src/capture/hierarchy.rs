//! What other tools have attached between a cgroup and the root, and whether a program of ours may
//! stand beside it.
//!
//! A program that is attached without `BPF_F_ALLOW_MULTI` runs for the cgroups below only as long
//! as these have none of their own; ours, which is attached by a link and so always with that flag,
//! would be such a one. The kernel says nothing then (`compute_effective_progs` in
//! `kernel/bpf/cgroup.c`), so it has to be asked before.
#![expect(unsafe_code, reason = "bpf(2) with attributes that the library does not make")]

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::cgroup::{Cgroup, is_cgroup2, is_root};
use super::programs::Hook;

/// `BPF_PROG_QUERY`, `BPF_F_QUERY_EFFECTIVE`, `BPF_F_ALLOW_OVERRIDE` and `BPF_F_ALLOW_MULTI` of
/// `include/uapi/linux/bpf.h`.
const PROG_QUERY: libc::c_int = 16;
const QUERY_EFFECTIVE: u32 = 1;
const ALLOW_OVERRIDE: u32 = 1;
const ALLOW_MULTI: u32 = 2;
/// `BPF_CGROUP_MAX_PROGS` of `include/linux/bpf-cgroup.h`: of one type, at one cgroup.
const MOST_PROGRAMS: usize = 64;
/// Programs that run for one cgroup: those of each directory above count. No tree is that full; it
/// bounds what is asked for.
const MOST_EFFECTIVE: u32 = 4096;

/// What is attached at one cgroup for one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attached {
    flags: u32,
    programs: Vec<u32>,
}

/// The cgroup to attach to and those above it, as far as they are in sight.
pub(super) struct Hierarchy {
    /// The cgroup itself first.
    levels: Vec<(PathBuf, OwnedFd)>,
    /// Whether the last one is the root of the whole host.
    is_whole: bool,
}

/// Why a program of ours would not stand beside another tool's, and where that is attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Conflict {
    #[error(
        "{} has {program} attached with BPF_F_ALLOW_OVERRIDE: one attached below, at {}, would switch it \
        off there",
        .at.display(), .below.display()
    )]
    Overridden { at: PathBuf, below: PathBuf, program: Named, advice: String },
    #[error(
        "{} has {program} attached without flags, so the kernel lets no other be attached there or below: {}",
        .at.display(), not_permitted()
    )]
    Exclusive { at: PathBuf, program: Named, advice: String },
    #[error(
        "{} has {program} attached with BPF_F_ALLOW_OVERRIDE, so the kernel lets none with \
        BPF_F_ALLOW_MULTI be attached there: {}",
        .at.display(), not_permitted()
    )]
    Single { at: PathBuf, program: Named, advice: String },
    #[error("{} has {MOST_PROGRAMS} programs of this type, which is as many as the kernel \
    takes", .at.display())]
    Full { at: PathBuf },
    #[error("{program} is attached above what is in sight of {}, and one attached here might switch it \
    off", .at.display())]
    OutOfSight { at: PathBuf, program: Named },
    #[error("cannot ask which programs are attached at {}: {source}", .at.display())]
    Unknown { at: PathBuf, source: io::Error },
}

impl Conflict {
    /// What the user can do about it.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Overridden { advice, .. }
            | Self::Exclusive { advice, .. }
            | Self::Single { advice, .. } => advice.clone(),
            Self::Full { .. } => {
                "name a directory above with --cgroup, or detach what is no longer in use (bpftool cgroup \
                tree)"
                    .to_owned()
            }
            Self::OutOfSight { .. } => {
                "run ktrace where the whole tree is in sight (mount the host's /sys/fs/cgroup into the \
                container), \
                 or have the other tool attach with BPF_F_ALLOW_MULTI"
                    .to_owned()
            }
            Self::Unknown { .. } => "give ktrace CAP_NET_ADMIN; `ktrace doctor` says what is \
            missing"
                .to_owned(),
        }
    }
}

/// `EPERM` as the kernel would return it.
fn not_permitted() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

/// A program in the kernel, for messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    id: u32,
    name: Option<String>,
}

impl Named {
    /// Its name takes CAP_SYS_ADMIN, and not every program has one.
    fn of(id: u32) -> Self {
        let info = aya::programs::loaded_programs().map_while(Result::ok).find(|program| program.id() == id);
        let name = info.and_then(|info| info.name_as_str().map(str::to_owned));
        Self { id, name: name.filter(|name| !name.is_empty()) }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "program {} ({})", self.id, name.escape_default()),
            None => write!(f, "program {}", self.id),
        }
    }
}

/// What stands in the way: where (by the number of its level) and which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Overridden(usize, u32),
    Exclusive(usize, u32),
    Single(u32),
    Full,
    OutOfSight(u32),
}

impl Hierarchy {
    /// Opens all directories above.
    pub(super) fn above(cgroup: &Cgroup) -> io::Result<Self> {
        let target = cgroup.fd.try_clone()?;
        let Some(path) = &cgroup.path else {
            let levels = vec![(PathBuf::from("the root of the tree"), target)];
            return Ok(Self { levels, is_whole: cgroup.whole_host });
        };
        // Through links in the path, the directories above are others.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let mut levels = vec![(path.clone(), target)];
        for above in path.ancestors().skip(1) {
            match File::open(above) {
                Ok(directory) if is_cgroup2(&directory) => {
                    levels.push((above.to_owned(), directory.into()));
                }
                // Out of sight from here on. Any other failure must not be taken for that.
                Ok(_) => break,
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES | libc::EPERM)) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let is_whole = levels.last().is_some_and(|(_, top)| is_root(top));
        Ok(Self { levels, is_whole })
    }

    /// Whether a program may be attached at the cgroup, or stay there; `own` is its number in the
    /// kernel.
    pub(super) fn allows(&self, hook: &Hook, own: u32) -> Result<(), Conflict> {
        let ask = |(path, fd): &(PathBuf, OwnedFd), flags| match query(fd.as_fd(), hook.attach_type, flags) {
            // A kernel that does not know the type; none can be attached.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Attached::default()),
            // At the root there is none above that could be switched off: the kernel itself refuses
            // what cannot be.
            Err(_) if self.levels.len() == 1 && self.is_whole => Ok(Attached::default()),
            Err(source) => Err(Conflict::Unknown { at: path.clone(), source }),
            Ok(attached) => Ok(attached),
        };
        let levels: Result<Vec<_>, _> = self.levels.iter().map(|level| ask(level, 0)).collect();
        let mut levels = levels?;
        let mut effective = match self.levels.first() {
            Some(target) => ask(target, QUERY_EFFECTIVE)?.programs,
            None => Vec::new(),
        };
        effective.retain(|program| *program != own);
        if let Some(target) = levels.first_mut() {
            target.programs.retain(|program| *program != own);
        }
        obstacle(&levels, &effective).map_or(Ok(()), |obstacle| Err(self.conflict(obstacle, &levels)))
    }

    fn conflict(&self, obstacle: Obstacle, levels: &[Attached]) -> Conflict {
        let path = |level: usize| self.levels.get(level).map(|(path, _)| path.clone()).unwrap_or_default();
        let advice = |level: usize| {
            let multi = "have the other tool attach with BPF_F_ALLOW_MULTI";
            let free = (level + 1..levels.len()).find(|above| obstacle_here(&levels[*above..]).is_none());
            match free.map(path) {
                Some(free) => format!(
                    "give --cgroup {} and narrow down by --service, --pid or --netns; or {multi}",
                    free.display()
                ),
                None => {
                    format!("{multi}; there is no directory above that ktrace could be attached to instead")
                }
            }
        };
        match obstacle {
            Obstacle::Overridden(level, id) => Conflict::Overridden {
                at: path(level),
                below: path(0),
                program: Named::of(id),
                advice: advice(level),
            },
            Obstacle::Exclusive(level, id) => {
                Conflict::Exclusive { at: path(level), program: Named::of(id), advice: advice(level) }
            }
            Obstacle::Single(id) => {
                Conflict::Single { at: path(0), program: Named::of(id), advice: advice(0) }
            }
            Obstacle::Full => Conflict::Full { at: path(0) },
            Obstacle::OutOfSight(id) => Conflict::OutOfSight { at: path(0), program: Named::of(id) },
        }
    }
}

/// What stands in the way of a program at the first level; `effective` are the programs that run
/// there, wherever they are attached. None of them is ours.
fn obstacle(levels: &[Attached], effective: &[u32]) -> Option<Obstacle> {
    if let Some(obstacle) = obstacle_here(levels) {
        return Some(obstacle);
    }
    // Where another program is in sight, those out of sight that run all the same were attached to
    // stand beside others.
    if levels.iter().any(|level| !level.programs.is_empty()) {
        return None;
    }
    effective.first().map(|program| Obstacle::OutOfSight(*program))
}

/// The same, without what is out of sight.
fn obstacle_here(levels: &[Attached]) -> Option<Obstacle> {
    let (target, above) = levels.split_first()?;
    let is_multi = |level: &Attached| level.flags & ALLOW_MULTI != 0;
    if let Some(program) = target.programs.first() {
        if target.programs.len() >= MOST_PROGRAMS {
            return Some(Obstacle::Full);
        }
        if !is_multi(target) {
            let is_single = target.flags & ALLOW_OVERRIDE != 0;
            return Some(if is_single {
                Obstacle::Single(*program)
            } else {
                Obstacle::Exclusive(0, *program)
            });
        }
    }
    // The nearest level that has programs decides: those further up run beside it already, or no
    // longer run.
    let (level, nearest) = (1..).zip(above).find(|(_, level)| !level.programs.is_empty())?;
    let program = *nearest.programs.first()?;
    if is_multi(nearest) {
        None
    } else if nearest.flags & ALLOW_OVERRIDE == 0 {
        Some(Obstacle::Exclusive(level, program))
    } else {
        // Another program at the target has switched it off already.
        target.programs.is_empty().then_some(Obstacle::Overridden(level, program))
    }
}

/// Which programs of a type are attached at a cgroup, or run for it. Takes CAP_NET_ADMIN.
fn query(cgroup: BorrowedFd<'_>, attach_type: u32, query_flags: u32) -> io::Result<Attached> {
    /// `struct { … } query` in `union bpf_attr`, as far as Linux 4.15 has it.
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        unused: u32,
    }
    const { assert!(offset_of!(Query, prog_ids) == 16 && size_of::<Query>() == 32) };

    let mut room = MOST_PROGRAMS as u32;
    loop {
        let mut programs = vec![0_u32; room as usize];
        let mut query = Query {
            target_fd: cgroup.as_raw_fd().cast_unsigned(),
            attach_type,
            query_flags,
            attach_flags: 0,
            prog_ids: programs.as_mut_ptr() as u64,
            prog_cnt: room,
            unused: 0,
        };
        // SAFETY: the size of the attributes is given, and of the room that they point to.
        let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
        if result == 0 {
            programs.truncate(query.prog_cnt as usize);
            return Ok(Attached { flags: query.attach_flags, programs });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOSPC) || query.prog_cnt <= room || room >= MOST_EFFECTIVE {
            return Err(error);
        }
        room = query.prog_cnt.min(MOST_EFFECTIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(flags: u32, programs: &[u32]) -> Attached {
        Attached { flags, programs: programs.to_vec() }
    }

    #[test]
    fn what_the_kernel_would_switch_off_or_refuse() {
        let none = || level(0, &[]);
        let is = |levels: &[Attached], effective: &[u32]| obstacle(levels, effective);
        assert_eq!(is(&[none(), none()], &[]), None);
        assert_eq!(is(&[none(), level(ALLOW_MULTI, &[7]), none()], &[7]), None);
        assert_eq!(
            is(&[none(), none(), level(ALLOW_OVERRIDE, &[7])], &[7]),
            Some(Obstacle::Overridden(2, 7))
        );
        assert_eq!(is(&[none(), none(), level(0, &[7])], &[7]), Some(Obstacle::Exclusive(2, 7)));
        // one that is switched off already
        let far = level(ALLOW_OVERRIDE, &[7]);
        assert_eq!(is(&[none(), level(ALLOW_MULTI, &[8]), far.clone()], &[8]), None);
        assert_eq!(is(&[level(ALLOW_MULTI, &[8]), far], &[8]), None);
        // the kernel looks at the nearest alone
        assert_eq!(is(&[level(ALLOW_MULTI, &[8]), level(0, &[7])], &[8]), Some(Obstacle::Exclusive(1, 7)));
        // at the same cgroup
        assert_eq!(is(&[level(ALLOW_OVERRIDE, &[7])], &[7]), Some(Obstacle::Single(7)));
        assert_eq!(is(&[level(0, &[7])], &[7]), Some(Obstacle::Exclusive(0, 7)));
        assert_eq!(is(&[level(ALLOW_MULTI, &[7; MOST_PROGRAMS])], &[7]), Some(Obstacle::Full));
    }

    #[test]
    fn what_is_out_of_sight_is_not_switched_off_either() {
        let none = level(0, &[]);
        assert_eq!(obstacle(std::slice::from_ref(&none), &[9]), Some(Obstacle::OutOfSight(9)));
        // it runs beside another one, so it would run beside ours
        assert_eq!(obstacle(&[level(ALLOW_MULTI, &[8]), none], &[8, 9]), None);
    }
}
