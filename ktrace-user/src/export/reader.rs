//! Whether standard output still has a reader. On a quiet host nothing is written for a long time,
//! so no write would fail and show it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::ExportError;
use crate::privilege;

/// Set when the reader has gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Gone(Arc<AtomicBool>);

impl Gone {
    /// Looks at standard output from now on, on a thread that ends with the process or with the
    /// reader, which sets `stop`.
    ///
    /// # Errors
    /// [`ExportError::Thread`].
    pub fn watch(stop: Arc<AtomicBool>) -> Result<Self, ExportError> {
        let gone = Self::default();
        let seen = gone.clone();
        let wait = move || {
            privilege::shed();
            if wait_for_the_end(&io::stdout()) {
                seen.0.store(true, Ordering::Relaxed);
                stop.store(true, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new()
            .name("ktrace-stdout".to_owned())
            .spawn(wait)
            .map_err(ExportError::Thread)?;
        Ok(gone)
    }

    /// # Errors
    /// [`ExportError::Closed`] where the reader has gone.
    pub fn check(&self) -> Result<(), ExportError> {
        if self.0.load(Ordering::Relaxed) { Err(ExportError::Closed) } else { Ok(()) }
    }
}

/// Waits until the other end is closed. False for what has none, such as a file.
fn wait_for_the_end(output: &impl AsFd) -> bool {
    // No event is asked for: errors and hang-ups are reported in any case.
    let mut waiting = [PollFd::new(output, PollFlags::empty())];
    loop {
        match poll(&mut waiting, None) {
            Ok(_) => return waiting[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_ends_with_its_reader() {
        let (reader, writer) = io::pipe().unwrap();
        let watch = std::thread::spawn(move || wait_for_the_end(&writer));
        drop(reader);
        assert!(watch.join().unwrap());
    }

    #[test]
    fn a_run_without_its_reader_is_closed() {
        assert!(Gone::default().check().is_ok());
        let gone = Gone(Arc::new(AtomicBool::new(true)));
        assert!(matches!(gone.check(), Err(ExportError::Closed)));
    }
}
