//! A virtual environment with the Python clients.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// The interpreter.
pub fn python() -> Result<PathBuf> {
    let requirements = include_str!("../../tools/python/requirements.txt");
    let dir = cache::tool("python", &[requirements], |dir| {
        // Debian's own, as python3-venv belongs to it
        cache::step("/usr/bin/python3", |python| python.args(["-m", "venv"]).arg(dir))?;
        cache::step(dir.join("bin/pip"), |pip| {
            pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(tools::sources().join("tools/python/requirements.txt"))
        })
    })?;
    Ok(dir.join("bin/python"))
}
