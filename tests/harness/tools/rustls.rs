//! The truth-logging Rust client over rustls, built with one of its providers; versions of
//! everything below it are in `Cargo.lock`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// Whose AES it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Ring,
    /// Takes minutes to build.
    AwsLc,
}

impl Provider {
    const fn feature(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::AwsLc => "aws-lc-rs",
        }
    }
}

/// The program.
pub fn rustls(provider: Provider) -> Result<PathBuf> {
    let recipe = [
        include_str!("../../clients/rustls/src/connection.rs"),
        include_str!("../../clients/rustls/src/consume.rs"),
        include_str!("../../clients/rustls/src/main.rs"),
        include_str!("../../clients/rustls/src/options.rs"),
        include_str!("../../clients/rustls/src/produce.rs"),
        include_str!("../../clients/rustls/src/truth.rs"),
        include_str!("../../clients/rustls/Cargo.toml"),
        include_str!("../../clients/rustls/Cargo.lock"),
    ];
    let dir = cache::tool(&format!("rustls-{}", provider.feature()), &recipe, |dir| {
        let target = dir.join("target");
        cache::step("cargo", |cargo| {
            cargo
                .args(["build", "--quiet", "--release", "--locked", "--features", provider.feature()])
                .arg("--target-dir")
                .arg(&target)
                .current_dir(tools::sources().join("clients/rustls"))
        })?;
        fs::rename(target.join("release/ktrace-test-rustls"), dir.join("rustls"))?;
        Ok(fs::remove_dir_all(target)?)
    })?;
    Ok(dir.join("rustls"))
}
