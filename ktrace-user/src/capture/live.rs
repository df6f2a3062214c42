//! Live capture: not built yet.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use super::{Event, PortSet};

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct LiveOptions {
    pub ports: PortSet,
    /// Only processes below this cgroup v2 directory; `None` for the whole host.
    pub cgroup: Option<PathBuf>,
    /// Bytes of the ring buffer.
    pub ring_bytes: usize,
    /// Brokers' ends of connections too.
    pub broker_end: bool,
    /// The user's names for services.
    pub services: Vec<(String, String)>,
}

/// Why nothing can be captured from this kernel.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("this ktrace was built without eBPF")]
    NotBuilt,
}

impl CaptureError {
    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "use ktrace replay on a capture file"
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Live;

/// Events and the payload bytes that they stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub events: u64,
    pub bytes: u64,
}

/// What the kernel side has counted.
#[derive(Debug)]
pub struct Counters;

impl Counters {
    /// Every way to lose something, by its name.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, Count)> {
        std::iter::empty()
    }
}

impl Live {
    /// # Errors
    /// [`CaptureError`] where this host cannot capture.
    pub fn open(_options: LiveOptions) -> Result<Self, CaptureError> {
        Err(CaptureError::NotBuilt)
    }

    /// Hands every event to `sink` until `stop` is set.
    ///
    /// # Errors
    /// [`CaptureError`] where the ring fails.
    pub fn run(
        &mut self,
        _stop: &AtomicBool,
        _sink: impl FnMut(Event<'_>),
    ) -> Result<Counters, CaptureError> {
        Ok(Counters)
    }
}
