//! Waiting for the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// Sleeps until the kernel side wakes the agent, [`Alarm::ring`] is called, or time is up.
///
/// Edge-triggered: data that waits in a ring without a wake-up does not end the sleep, or the agent would run for every packet.
pub(crate) struct Sleeper {
    epoll: OwnedFd,
}

/// Ends the sleep of a [`Sleeper`] from another thread.
pub(crate) struct Alarm {
    eventfd: OwnedFd,
}

impl Sleeper {
    /// Sleeps on a ring buffer.
    pub(crate) fn new(ring: &impl AsFd) -> io::Result<Self> {
        // SAFETY: no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let sleeper = Self { epoll };
        sleeper.add(ring)?;
        Ok(sleeper)
    }

    /// An alarm for this sleeper.
    pub(crate) fn alarm(&self) -> io::Result<Alarm> {
        // SAFETY: no pointers.
        let eventfd = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        self.add(&eventfd)?;
        Ok(Alarm { eventfd })
    }

    fn add(&self, source: &impl AsFd) -> io::Result<()> {
        let mut interest = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        let source = source.as_fd().as_raw_fd();
        // SAFETY: two open descriptors and a valid event.
        match unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, source, &raw mut interest)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sleeps, without end where no time is given. A signal ends the sleep too.
    pub(crate) fn sleep(&self, at_most_ms: Option<i32>) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: an open descriptor and room for one event.
        let result =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, at_most_ms.unwrap_or(-1)) };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Alarm {
    pub(crate) fn ring(&self) {
        let one = 1_u64;
        // SAFETY: an open descriptor and eight bytes. It fails only where the alarm rings already.
        unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
