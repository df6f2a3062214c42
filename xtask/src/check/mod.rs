//! What the repository is held to beyond the compiler and clippy: `cargo xtask check`.

mod circles;
mod columns;
mod links;
mod names;
mod ratchet;
mod sources;
mod texts;
mod tokens;
mod words;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Check {
    /// No files of a crate import each other in a circle
    Circles,
    /// Every relative link in Markdown leads to a file, and to a heading of it
    Links,
    /// Words that the glossary has others for, lines over 110 columns, long names of tests
    Texts {
        /// Keep the findings of today as the most that is allowed
        #[arg(long)]
        bless: bool,
    },
}

/// Fails with all findings.
pub fn check(what: &Check) -> Result<()> {
    match what {
        Check::Circles => circles::check(),
        Check::Links => links::check(),
        Check::Texts { bless } => texts::check(*bless),
    }
}
