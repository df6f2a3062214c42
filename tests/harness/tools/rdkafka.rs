//! The truth-logging Rust client, built with its librdkafka; versions of everything below it are in
//! `Cargo.lock`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// The program.
pub fn rdkafka() -> Result<PathBuf> {
    let recipe = [
        include_str!("../../clients/rust/src/consume.rs"),
        include_str!("../../clients/rust/src/headers.rs"),
        include_str!("../../clients/rust/src/main.rs"),
        include_str!("../../clients/rust/src/options.rs"),
        include_str!("../../clients/rust/src/produce.rs"),
        include_str!("../../clients/rust/src/truth.rs"),
        include_str!("../../clients/rust/Cargo.toml"),
        include_str!("../../clients/rust/Cargo.lock"),
    ];
    let dir = cache::tool("rdkafka", &recipe, |dir| {
        let target = dir.join("target");
        cache::step("cargo", |cargo| {
            cargo
                .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
                .arg(&target)
                // Debian's archive of OpenSSL, as pkg-config would take the shared library
                .env("OPENSSL_STATIC", "1")
                .env("OPENSSL_LIB_DIR", format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH))
                .env("OPENSSL_INCLUDE_DIR", "/usr/include")
                .current_dir(tools::sources().join("clients/rust"))
        })?;
        fs::rename(target.join("release/ktrace-test-rdkafka"), dir.join("rdkafka"))?;
        Ok(fs::remove_dir_all(target)?)
    })?;
    Ok(dir.join("rdkafka"))
}
