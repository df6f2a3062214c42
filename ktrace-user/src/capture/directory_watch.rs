//! Waits for a directory to be made or removed, by inotify(7).

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// Sleeps until something is made or removed beside a directory, or above it.
pub(super) struct DirectoryWatch {
    /// `None` where the user has as many as are allowed (`fs.inotify.max_user_instances`): then time alone
    /// ends the sleep.
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
        // SAFETY: no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, "no inotify: the cgroup is looked at once a second");
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let inotify = (fd >= 0).then(|| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        Self { inotify }
    }

    /// From now on this directory is what is watched, or where some of those above it are gone too, the first
    /// that is there. The kernel forgets a directory that is removed, and does not watch one twice.
    pub(super) fn turn_to(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let events = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        for above in path.ancestors().skip(1) {
            let Ok(name) = std::ffi::CString::new(above.as_os_str().as_bytes()) else { return };
            // SAFETY: an open descriptor and a terminated string.
            if unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), name.as_ptr(), events) } >= 0 {
                return;
            }
        }
    }

    pub(super) fn wait(&mut self, stop: &PipeReader, at_most: Duration) -> Woken {
        let inotify = self.inotify.as_ref().map_or(-1, |file| file.as_raw_fd());
        let mut descriptors = [
            libc::pollfd { fd: stop.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: inotify, events: libc::POLLIN, revents: 0 },
        ];
        let at_most = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: two valid entries; one with a negative descriptor is ignored. A failure is an end of time.
        unsafe { libc::poll(descriptors.as_mut_ptr(), 2, at_most) };
        if descriptors[0].revents != 0 {
            return Woken::Stopped;
        }
        if descriptors[1].revents == 0 {
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
    use std::fs;

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
