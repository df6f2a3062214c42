//! Waits until the kernel side wakes the agent: epoll(7) on a ring, and an eventfd for other
//! threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// Sleeps until the kernel side wakes the agent, [`Alarm::ring`] is called, or time is up.
///
/// Edge-triggered: data that lies in a ring without a wake-up does not end the sleep, or the agent
/// would run for every packet.
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
        let sleeper = Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? };
        sleeper.add(ring)?;
        Ok(sleeper)
    }

    /// An alarm for this sleeper.
    pub(crate) fn alarm(&self) -> io::Result<Alarm> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        self.add(&eventfd)?;
        Ok(Alarm { eventfd })
    }

    fn add(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?)
    }

    /// Sleeps, without end where no time is given. A signal ends the sleep too.
    pub(crate) fn sleep(&self, at_most_ms: Option<u32>) -> io::Result<()> {
        let at_most = at_most_ms
            .map(|ms| Timespec { tv_sec: (ms / 1000).into(), tv_nsec: (ms % 1000 * 1_000_000).into() });
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        match epoll::wait(&self.epoll, &mut events, at_most.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Alarm {
    pub(crate) fn ring(&self) {
        // It fails only where the alarm rings already.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }
}
