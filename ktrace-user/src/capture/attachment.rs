//! Our programs at their cgroup, attached only where that switches no other tool's program off.

use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use aya::programs::ProgramError;
use aya::programs::links::FdLink;

use super::CaptureError;
use super::cgroup::Cgroup;
use super::following::Following;
use super::hierarchy::{Conflict, Hierarchy};
use super::live::refusal;
use super::programs::{HOOKS, Hook, Programs};
use crate::privilege;

/// The attached programs. They are taken off when this is dropped, or the process dies.
pub(super) struct Attachment {
    /// Where the directory cannot go away.
    fixed: Vec<FdLink>,
    /// Where it can: the thread that follows it, which ends when the pipe is closed.
    following: Option<(PipeWriter, JoinHandle<()>)>,
}

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error("{}", refusal(.0))]
    Program(#[from] ProgramError),
    /// It was not loaded before, for this reason.
    #[error("{0}")]
    NotLoaded(String),
}

/// A program that is not attached, and why.
pub(super) type Refused = (&'static Hook, Refusal);

impl Attachment {
    /// Loads the programs and attaches them. Where the user has `named` a directory, a thread of
    /// its own, `ktrace-cgroup`, follows it: that needs CAP_BPF and CAP_NET_ADMIN as long as it
    /// runs. `say` puts a line before the user.
    pub(super) fn start(
        programs: Programs,
        cgroup: Cgroup,
        named: Option<PathBuf>,
        say: fn(&str),
    ) -> Result<Self, CaptureError> {
        // The root of the tree cannot be removed, and has none above it.
        let named = named.filter(|_| !cgroup.whole_host);
        let mut attached = Attached::new(programs, cgroup);
        let mut refused = attached.attach().map_err(CaptureError::Wait)?;
        if let Some(at) = refused.iter().position(|(hook, _)| hook.needed) {
            let (hook, refusal) = refused.swap_remove(at);
            return Err(CaptureError::refused(hook.name, refusal));
        }
        for (hook, refusal) in &refused {
            say(&format!("program {}: {refusal}; capture goes on without it", hook.name));
        }
        let Some(path) = named else { return Ok(Self { fixed: attached.into_links(), following: None }) };
        let (stopped, stop) = io::pipe().map_err(CaptureError::Wait)?;
        let following = Following::new(attached, path, &refused, say).map_err(CaptureError::Wait)?;
        let thread = thread::Builder::new().name("ktrace-cgroup".into());
        let thread = thread.spawn(move || {
            privilege::shed();
            following.run(&stopped);
        });
        let thread = thread.map_err(CaptureError::Wait)?;
        Ok(Self { fixed: Vec::new(), following: Some((stop, thread)) })
    }

    /// Takes all programs off: when this returns, none of them runs any more.
    pub(super) fn detach(&mut self) {
        self.fixed.clear();
        if let Some((stop, thread)) = self.following.take() {
            drop(stop);
            // One that has panicked has said so, and its links are gone.
            drop(thread.join());
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Loads and attaches one program, and takes it off again.
pub(super) fn attach_for_a_moment(
    programs: &mut Programs,
    cgroup: &Cgroup,
    hook: &'static Hook,
) -> Result<(), Refusal> {
    let hierarchy = Hierarchy::above(cgroup).map_err(|source| {
        let at = cgroup.path.clone().unwrap_or_default();
        Refusal::Conflict(Conflict::Unknown { at, source })
    })?;
    let mut place = Place { hook, program: Loaded::NotYet, link: None };
    place.check(programs, &hierarchy)?;
    place.attach(programs, cgroup, &hierarchy)
}

/// The programs, the cgroup, and the links between them.
pub(super) struct Attached {
    programs: Programs,
    cgroup: Cgroup,
    places: Vec<Place>,
}

struct Place {
    hook: &'static Hook,
    program: Loaded,
    link: Option<FdLink>,
}

enum Loaded {
    NotYet,
    /// Under this number.
    As(u32),
    /// This kernel does not take it, for this reason; it is not tried again.
    Never(String),
}

impl Attached {
    pub(super) fn new(programs: Programs, cgroup: Cgroup) -> Self {
        // Owners first, so that no segment comes before its owner.
        let place = |hook| Place { hook, program: Loaded::NotYet, link: None };
        Self { programs, cgroup, places: HOOKS.iter().rev().map(place).collect() }
    }

    /// Only the links hold the programs from here on.
    fn into_links(self) -> Vec<FdLink> {
        self.places.into_iter().filter_map(|place| place.link).collect()
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Leaves the cgroup for another one; [`Attached::attach`] attaches there.
    pub(super) fn move_to(&mut self, cgroup: Cgroup) {
        self.cgroup = cgroup;
        for place in &mut self.places {
            place.link = None;
        }
    }

    /// Takes off what stands in another program's way by now, and attaches what may be and is not.
    /// Returns which are not attached then. Where one that is needed is among them, none of those
    /// is attached: half of a conversation is worse than nothing.
    pub(super) fn attach(&mut self) -> io::Result<Vec<Refused>> {
        let Self { programs, cgroup, places } = self;
        let hierarchy = Hierarchy::above(cgroup)?;
        let mut refused = Vec::new();
        for place in places.iter_mut() {
            if let Err(refusal) = place.check(programs, &hierarchy) {
                place.link = None;
                refused.push((place.hook, refusal));
            }
        }
        let is_refused =
            |refused: &[Refused], place: &Place| refused.iter().any(|(hook, _)| *hook == place.hook);
        let lacks_needed = |refused: &[Refused]| refused.iter().any(|(hook, _)| hook.needed);
        for place in places.iter_mut() {
            let is_useless = place.hook.needed && lacks_needed(&refused);
            if !is_useless
                && !is_refused(&refused, place)
                && let Err(refusal) = place.attach(programs, cgroup, &hierarchy)
            {
                refused.push((place.hook, refusal));
            }
        }
        if lacks_needed(&refused) {
            for place in places.iter_mut().filter(|place| place.hook.needed) {
                place.link = None;
            }
        }
        Ok(refused)
    }
}

impl Place {
    /// Loads the program, and asks whether it may be attached, or stay so.
    fn check(&mut self, programs: &mut Programs, hierarchy: &Hierarchy) -> Result<(), Refusal> {
        if let Loaded::NotYet = self.program {
            let loaded = programs.load(self.hook.name).inspect_err(|error| {
                self.program = Loaded::Never(refusal(error));
            });
            self.program = Loaded::As(loaded?);
        }
        match &self.program {
            Loaded::As(id) => Ok(hierarchy.allows(self.hook, *id)?),
            Loaded::Never(why) => Err(Refusal::NotLoaded(why.clone())),
            Loaded::NotYet => Ok(()),
        }
    }

    fn attach(
        &mut self,
        programs: &mut Programs,
        cgroup: &Cgroup,
        hierarchy: &Hierarchy,
    ) -> Result<(), Refusal> {
        let Loaded::As(id) = self.program else { return Ok(()) };
        if self.link.is_some() {
            return Ok(());
        }
        let link = programs.attach(self.hook.name, cgroup);
        // Another tool's program may have come since the last look: then it is the reason, or ours
        // is taken off at once.
        hierarchy.allows(self.hook, id)?;
        self.link = Some(link?);
        Ok(())
    }
}
