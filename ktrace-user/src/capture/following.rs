//! A cgroup that the user names by its path: when its directory is removed and made again, as
//! systemd does at each restart of a service, the programs are attached to the new one. They give
//! way to other tools' programs that come later.

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::attachment::{Attached, Refusal, Refused};
use super::cgroup::{self, CgroupError};
use super::directory_watch::{DirectoryWatch, Woken};

/// How often the path and the other tools' programs are looked at. A directory that is made again
/// is noticed at once, where the kernel notifies of that.
const PAUSE: Duration = Duration::from_secs(1);

/// Lines that are said at once, and how long until there may be one more: a service that is
/// restarted in a loop does not fill the log.
const LINES: u32 = 8;
const LINE_PAUSE: Duration = Duration::from_secs(15);

/// What follows the directory; all of its work is done by one thread.
pub(super) struct Following {
    attached: Attached,
    path: PathBuf,
    say: fn(&str),
    seen: Seen,
    /// As it was when the user last heard of it.
    said: Seen,
    looked: Instant,
    room: Room,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Why there is no directory, where there is none.
    missing: Option<String>,
    /// How often it was another one.
    renewals: u64,
    /// The programs that are not attached, each with the reason and whether it is needed.
    refused: BTreeMap<&'static str, (String, bool)>,
}

impl Following {
    /// `refused` has been said already.
    pub(super) fn new(
        attached: Attached,
        path: PathBuf,
        refused: &[Refused],
        say: fn(&str),
    ) -> io::Result<Self> {
        let seen = Seen { refused: reasons(refused), ..Seen::default() };
        let (said, looked) = (seen.clone(), Instant::now());
        Ok(Self {
            attached,
            path: std::path::absolute(path)?,
            say,
            seen,
            said,
            looked,
            room: Room::new(looked),
        })
    }

    /// Until the other end of `stop` is closed.
    pub(super) fn run(mut self, stop: &PipeReader) {
        let mut watch = DirectoryWatch::new();
        loop {
            watch.turn_to(&self.path);
            self.look(Instant::now());
            if watch.wait(stop, PAUSE) == Woken::Stopped {
                return;
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let found = cgroup::open(Some(&self.path));
        let mut is_due = now.duration_since(self.looked) >= PAUSE;
        match found {
            Ok(cgroup) if cgroup.id != self.attached.cgroup().id => {
                self.attached.move_to(cgroup);
                self.seen.renewals += 1;
                self.seen.missing = None;
                is_due = true;
            }
            Ok(_) => self.seen.missing = None,
            // The path is gone and not what it led to: a mount, or a link in it.
            Err(_) if self.attached.cgroup().is_alive() => {}
            // What is attached stays so: a socket of a process that was moved away belongs to the
            // removed directory still.
            Err(CgroupError::Open { source, .. }) => self.seen.missing = Some(source.to_string()),
            Err(error) => self.seen.missing = Some(error.to_string()),
        }
        if is_due && self.seen.missing.is_none() {
            self.looked = now;
            match self.attached.attach() {
                Ok(refused) => self.seen.refused = reasons(&refused),
                Err(error) => tracing::warn!(%error, "cannot look at the cgroup"),
            }
            if !self.attached.cgroup().is_alive() {
                // Removed meanwhile: what was refused says nothing. The next look finds the next
                // one.
                return;
            }
        }
        if self.seen != self.said && self.room.take(now) {
            for line in lines(&self.said, &self.seen, &self.path) {
                (self.say)(&line);
            }
            self.said = self.seen.clone();
        }
    }
}

fn reasons(refused: &[Refused]) -> BTreeMap<&'static str, (String, bool)> {
    let reason = |refusal: &Refusal| match refusal {
        Refusal::Conflict(conflict) => format!("{conflict}\n        {}", conflict.advice()),
        Refusal::Program(_) | Refusal::NotLoaded(_) => refusal.to_string(),
    };
    refused.iter().map(|(hook, refusal)| (hook.name, (reason(refusal), hook.needed))).collect()
}

/// What is new.
fn lines(said: &Seen, seen: &Seen, path: &Path) -> Vec<String> {
    let path = path.display();
    if let Some(why) = &seen.missing {
        let is_news = said.missing.is_none();
        let line = format!("cgroup {path} is gone ({why}): nothing is captured until it is made again");
        return if is_news { vec![line] } else { Vec::new() };
    }
    let mut lines = Vec::new();
    match seen.renewals - said.renewals {
        0 if said.missing.is_some() => lines.push(format!("cgroup {path} is there again")),
        0 => {}
        1 => lines.push(format!("cgroup {path} was made again: ktrace follows it")),
        times => lines.push(format!("cgroup {path} was made again {times} times: ktrace follows it")),
    }
    for (name, (reason, needed)) in &seen.refused {
        if said.refused.get(name).is_none_or(|(said, _)| said != reason) {
            let (reason, advice) = reason.split_once('\n').unwrap_or((reason, ""));
            let outcome =
                if *needed { "nothing is captured until that is over" } else { "capture goes on without it" };
            let break_line = if advice.is_empty() { "" } else { "\n" };
            lines.push(format!("program {name} is not attached: {reason}; {outcome}{break_line}{advice}"));
        }
    }
    let again: Vec<_> =
        said.refused.keys().copied().filter(|name| !seen.refused.contains_key(name)).collect();
    if !again.is_empty() {
        lines.push(format!("nothing stands in the way of program {} any more: attached", again.join(", ")));
    }
    lines
}

/// Room for lines.
struct Room {
    left: u32,
    since: Instant,
}

impl Room {
    fn new(now: Instant) -> Self {
        Self { left: LINES, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.since).as_nanos() / LINE_PAUSE.as_nanos();
        if let Ok(more @ 1..) = u32::try_from(more) {
            self.left = self.left.saturating_add(more).min(LINES);
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let path = Path::new("/cg/svc");
        let there = Seen::default();
        let gone = Seen { missing: Some("no".into()), ..Seen::default() };
        assert_eq!(
            lines(&there, &gone, path),
            ["cgroup /cg/svc is gone (no): nothing is captured until it is made again"]
        );
        assert!(lines(&gone, &gone, path).is_empty());
        let again = Seen { renewals: 1, ..Seen::default() };
        assert_eq!(lines(&gone, &again, path), ["cgroup /cg/svc was made again: ktrace follows it"]);
        let often = Seen { renewals: 4, ..Seen::default() };
        assert_eq!(lines(&again, &often, path), ["cgroup /cg/svc was made again 3 times: ktrace follows it"]);
        let refused = Seen {
            refused: BTreeMap::from([("egress", ("taken\n        do this".to_owned(), true))]),
            ..often.clone()
        };
        let said = lines(&often, &refused, path);
        assert_eq!(
            said,
            ["program egress is not attached: taken; nothing is captured until that is over\n        do \
                this"]
        );
        assert!(lines(&refused, &refused, path).is_empty());
        assert_eq!(
            lines(&refused, &often, path),
            ["nothing stands in the way of program egress any more: attached"]
        );
    }

    #[test]
    fn a_loop_of_restarts_does_not_fill_the_log() {
        let begin = Instant::now();
        let mut room = Room::new(begin);
        let said = (0..600).filter(|second| room.take(begin + Duration::from_secs(*second))).count();
        assert_eq!(said, LINES as usize + 600 / 15 - 1);
    }
}
