//! What is played: each scene opens connections of its own and reports what was said on them.

mod ending;
mod opening;
mod owner;
mod stage;
mod ways;

use anyhow::{Context as _, Result};

pub use self::stage::{PORTS, Stage};

impl Stage {
    /// All scenes, one after the other.
    pub fn play(&mut self) -> Result<()> {
        ways::play(self).context("ways to send and receive")?;
        opening::play(self).context("ways to begin")?;
        ending::play(self).context("ways to go on and to end")?;
        owner::play(self).context("processes")
    }
}
