//! Waits for a directory to be made or removed, by inotify(7).

use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Sleeps until something is made or removed beside a directory, or above it.
pub(super) struct DirectoryWatch {
    /// `None` where the user has as many as are allowed (`fs.inotify.max_user_instances`): then
    /// time alone ends the sleep.
    inotify: Option<File>,
}

/// What has ended the sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something was made or removed.
    Changed,
    Time,
    /// The other end of the pipe was closed.
    Stopped,
}

impl DirectoryWatch {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map(File::from);
        let inotify = inotify.inspect_err(|error| {
            tracing::debug!(%error, "no inotify: the cgroup is looked at once a second");
        });
        Self { inotify: inotify.ok() }
    }

    /// From now on this directory is what is watched, or where some of those above it are gone too,
    /// the first that is there. The kernel forgets a directory that is removed, and does not watch
    /// one twice.
    pub(super) fn turn_to(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let events = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        for above in path.ancestors().skip(1) {
            if inotify::add_watch(inotify, above, events).is_ok() {
                return;
            }
        }
    }

    pub(super) fn wait(&mut self, stop: &PipeReader, at_most: Duration) -> Woken {
        let mut descriptors = vec![PollFd::new(stop, PollFlags::IN)];
        descriptors.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        // A failure is an end of time.
        let _ = poll(&mut descriptors, Timespec::try_from(at_most).ok().as_ref());
        let is_ready =
            |at: usize| descriptors.get(at).is_some_and(|of: &PollFd<'_>| !of.revents().is_empty());
        if is_ready(0) {
            return Woken::Stopped;
        }
        if !is_ready(1) {
            return Woken::Time;
        }
        // What has happened does not matter, only that something has.
        let mut events = [0; 4096];
        if let Some(inotify) = &mut self.inotify {
            while inotify.read(&mut events).is_ok_and(|length| length > 0) {}
        }
        Woken::Changed
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::*;

    #[test]
    fn wakes_when_a_directory_is_made_and_when_it_is_to_stop() {
        let dir = std::env::temp_dir().join(format!("ktrace-watch-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (stopped, stop) = io::pipe().unwrap();
        let mut watch = DirectoryWatch::new();
        let long = Duration::from_secs(600);
        // two levels that are not there
        let path = dir.join("above/svc");
        for level in [dir.join("above"), path.clone()] {
            watch.turn_to(&path);
            fs::create_dir(&level).unwrap();
            assert_eq!(watch.wait(&stopped, long), Woken::Changed);
        }
        assert_eq!(watch.wait(&stopped, Duration::ZERO), Woken::Time);
        fs::remove_dir(&path).unwrap();
        assert_eq!(watch.wait(&stopped, long), Woken::Changed);
        drop(stop);
        assert_eq!(watch.wait(&stopped, long), Woken::Stopped);
        fs::remove_dir_all(&dir).unwrap();
    }
}
