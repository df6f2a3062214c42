//! Live capture: not built yet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use super::{Event, PortSet};

/// What to capture, and with how much memory.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    pub ports: PortSet,
    /// A cgroup v2 directory; the root where it is `None`.
    pub cgroup: Option<PathBuf>,
    /// Bytes of the ring buffers together.
    pub ring_bytes: u32,
}

/// Why this host cannot capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("live capture is not part of this build")]
    NotBuilt,
}

/// Programs attached to this host.
#[derive(Debug)]
pub struct Live;

/// Losses on the way from the kernel, by reason.
pub type Counters = BTreeMap<&'static str, u64>;

impl Live {
    /// # Errors
    /// [`CaptureError`] where this host cannot capture.
    pub fn open(_options: LiveOptions) -> Result<Self, CaptureError> {
        Err(CaptureError::NotBuilt)
    }

    /// Gives events until `stop` is set.
    ///
    /// # Errors
    /// [`CaptureError`] where a ring fails.
    pub fn run(
        &mut self,
        _stop: &AtomicBool,
        _each: impl FnMut(Event<'_>),
    ) -> Result<Counters, CaptureError> {
        Ok(Counters::new())
    }
}
